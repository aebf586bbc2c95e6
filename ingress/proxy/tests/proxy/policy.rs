//! Who may come, how often, and from which origin: each annotation by its effect on real requests.

mod access;
mod cors;
mod external;
mod external_tls;
mod headers;
mod limits;
mod passwords;

use roadstead_model::{ObjectName, Snapshot};
use roadstead_routes::Controller;

use crate::proxy::Proxy;

/// A proxy whose options are in ConfigMap `default/options`.
fn with_options(snapshot: Snapshot) -> Proxy {
    let config_map = Some(ObjectName::new("default", "options"));
    Proxy::controlled(snapshot, Controller { config_map, ..Controller::default() }, 100)
}
