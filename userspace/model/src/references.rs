//! Objects that other objects name.

use std::collections::BTreeSet;

use crate::ObjectName;

/// Secrets and ConfigMaps that are needed because something names them. A source that has to fetch each of them takes no others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    /// Secrets, of whatever type.
    pub secrets: BTreeSet<ObjectName>,
    /// ConfigMaps.
    pub config_maps: BTreeSet<ObjectName>,
}
