//! Tombstones: UDP endpoints that are gone, kept as frontends for a while.
//!
//! A socket that has been connected to one goes on sending to its address, and no error may ever come back. As long as the
//! tombstone stands, the programs lead its datagrams to another endpoint of the same Service port. It goes at once when
//! an endpoint of any Service answers at the address: it belongs to another pod now.

use std::time::{Duration, Instant};

use roadstead_abi::{Addr, SvcKey, proto, scope};
use roadstead_model::IpFamily;

use crate::frontends::{EndpointAddress, ServicePortName};

/// How long a tombstone stands: longer than applications keep a socket without an answer.
pub const TOMBSTONE_LIFETIME: Duration = Duration::from_secs(120);

/// Most tombstones at a time; the oldest go first.
const MOST: usize = 16_384;

/// An endpoint that is gone.
#[derive(Clone, Debug)]
pub(crate) struct Tombstone {
    pub(crate) endpoint: EndpointAddress,
    pub(crate) port: ServicePortName,
    pub(crate) family: IpFamily,
    until: Instant,
}

impl Tombstone {
    /// Where it stands among the frontends.
    pub(crate) fn key(&self) -> SvcKey {
        SvcKey { addr: self.endpoint.0, port: self.endpoint.1, proto: proto::UDP, scope: scope::ADDRESS }
    }
}

/// All of them, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Tombstones(Vec<Tombstone>);

impl Tombstones {
    /// Puts one up; one that stands already stands longer.
    pub(crate) fn add(&mut self, endpoint: EndpointAddress, port: &ServicePortName, family: IpFamily, now: Instant) {
        let until = now + TOMBSTONE_LIFETIME;
        self.0.retain(|stone| stone.endpoint != endpoint || stone.port != *port);
        self.0.push(Tombstone { endpoint, port: port.clone(), family, until });
    }

    /// Takes away those whose time is over or whose address lives, and what is too many.
    pub(crate) fn take_fallen(&mut self, now: Instant, is_live: impl Fn(&Addr) -> bool) -> Vec<Tombstone> {
        let surplus = self.0.len().saturating_sub(MOST);
        let mut fallen: Vec<_> = self.0.drain(..surplus).collect();
        fallen.extend(self.0.extract_if(.., |stone| stone.until <= now || is_live(&stone.endpoint.0)));
        fallen
    }

    /// Takes one away.
    pub(crate) fn remove(&mut self, fallen: &Tombstone) {
        self.0.retain(|stone| stone.endpoint != fallen.endpoint || stone.port != fallen.port);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Tombstone> {
        self.0.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// When the oldest one falls.
    pub(crate) fn next_fall(&self) -> Option<Instant> {
        self.0.first().map(|stone| stone.until)
    }
}
