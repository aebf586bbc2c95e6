//! The place of a responder that answers in the kernel, while this process may be stopped, killed or started again.
//!
//! The engine tells it all that it may answer for, and until when on the kernel's own clock, whenever that changes and with
//! each heartbeat. What it does not name is to be silent at once; what it names goes silent by itself.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};
use roadstead_layer2::wire::Mac;

use crate::links::Link;

/// One address on one interface that the kernel may answer for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KernelLease {
    pub(crate) interface: u32,
    pub(crate) mac: Mac,
    /// The interface's link-local address.
    pub(crate) link_local: Option<Ipv6Addr>,
    pub(crate) ip: IpAddr,
    /// Nanoseconds of CLOCK_MONOTONIC, as `bpf_ktime_get_ns` counts.
    pub(crate) until_ns: u64,
    /// Where the address was before it came here in a planned way, for the flows that are there.
    pub(crate) former: Option<IpAddr>,
}

/// A responder in the kernel.
pub(crate) trait KernelResponder: fmt::Debug + Send {
    /// Takes on which interfaces its programs are: `ports` are those that addresses are announced on, `links` all.
    fn look(&mut self, ports: &[(u32, &str)], links: &[Link], attached: &BTreeSet<u32>);

    /// Where the peers are from now on.
    fn meet(&mut self, peers: Vec<SocketAddr>);

    /// Whether it answers and echoes probes wherever it should, so that a lease may outlive the speaker.
    fn vouches(&self) -> bool;

    /// The speaker is at work at `now_ns` and these are all its leases, and the addresses of which the kernel keeps what it has
    /// until that ends by itself. Before the speaker knows what it owns, none are told.
    fn follow(&mut self, now_ns: u64, leases: Option<(&[KernelLease], &BTreeSet<IpAddr>)>);

    /// Whether it answers for the address there, while its lease runs.
    fn answers(&self, interface: u32, ip: IpAddr) -> bool;

    /// For which addresses it has answered since the last look, and how often.
    fn answered(&mut self) -> Vec<(IpAddr, u64)>;

    /// The speaker ends, and with it every lease.
    fn leave(&mut self);
}

/// The beginning of the engine's time, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    instant: Instant,
    ns: u64,
}

impl Origin {
    pub(crate) fn now() -> Self {
        let (instant, clock) = (Instant::now(), clock_gettime(ClockId::CLOCK_MONOTONIC));
        let ns = clock.map(Duration::from).map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        Self { instant, ns }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.instant.elapsed()
    }

    /// A moment of the engine's time on the kernel's clock.
    pub(crate) fn ns(&self, moment: Duration) -> u64 {
        self.ns.saturating_add(u64::try_from(moment.as_nanos()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_go_on_together() {
        let origin = Origin::now();
        let clock =
            || u64::try_from(Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_nanos()).unwrap();
        let (before, told, after) = (clock(), origin.ns(origin.elapsed()), clock());
        // The two readings of the origin lie a moment apart.
        assert!(told + 50_000_000 >= before && told <= after + 50_000_000, "{before} {told} {after}");
    }
}
