//! What a control plane is for: a whole cluster, or no more than a source of objects for the daemons of a lab.

use std::net::{Ipv4Addr, SocketAddr};

use super::assets::Part;

/// Which parts run, and with which flags beyond the usual ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Everything, for nodes with kubelets.
    Cluster,
    /// The API server and the controller that makes EndpointSlices of Pods: nobody schedules and nobody collects garbage.
    Source,
}

/// Whoever is asked to keep a lab's objects, not to judge them: Pods need no ServiceAccount there.
const SOURCE_API: [&str; 1] = ["--disable-admission-plugins=ServiceAccount"];
/// Of the controllers the ones whose work the daemons read.
const SOURCE_CONTROLLERS: [&str; 1] = ["--controllers=endpointslice-controller,endpointslice-mirroring-controller"];

impl Shape {
    /// What is started beside etcd and the API server.
    pub(super) fn controllers(self) -> &'static [Part] {
        match self {
            Self::Cluster => &[Part::Controllers, Part::Scheduler],
            Self::Source => &[Part::Controllers],
        }
    }

    /// Flags after those of every control plane.
    pub(super) fn more_flags(self, part: Part) -> &'static [&'static str] {
        match (self, part) {
            (Self::Source, Part::ApiServer) => &SOURCE_API,
            (Self::Source, Part::Controllers) => &SOURCE_CONTROLLERS,
            _ => &[],
        }
    }

    /// Where the lab itself and the controllers ask the API server: a source's host is on no segment between two labs.
    pub(super) fn near(self, address: SocketAddr) -> SocketAddr {
        match self {
            Self::Cluster => address,
            Self::Source => (Ipv4Addr::LOCALHOST, address.port()).into(),
        }
    }
}
