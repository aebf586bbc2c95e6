//! Until when this node may answer without new evidence.
//!
//! The peers take over what a node announced when they have not heard it for [`super::DEAD_AFTER`]. So each heartbeat that
//! goes out buys a little less than that; a process that was stopped finds its lease at an end when it goes on, whatever
//! questions have queued up. It then waits for a word of each peer that it had counted: until then it cannot know what
//! they took over.

use std::{collections::BTreeSet, time::Duration};

/// With a responder in userspace: ends before the peers take over, with room for clocks that drift and for the way.
pub const LEASE: Duration = Duration::from_millis(120);
/// With a responder in the kernel that echoes probes: ends before [`super::STALLED_DEAD_AFTER`].
pub const KERNEL_LEASE: Duration = Duration::from_millis(2500);

/// The lease of a node.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    length: Duration,
    /// When the last heartbeat went out.
    beaten: Option<Duration>,
    /// Peers whose word is awaited, after the lease had ended unwanted.
    awaited: BTreeSet<String>,
}

impl Lease {
    pub(super) fn new(length: Duration) -> Self {
        Self { length, beaten: None, awaited: BTreeSet::new() }
    }

    /// How long a heartbeat's lease is from now on.
    pub(super) fn set_length(&mut self, length: Duration) {
        self.length = length;
    }

    /// A heartbeat goes out. If the lease had ended meanwhile, the `counted` peers are to speak first.
    pub(super) fn beat(&mut self, now: Duration, counted: impl Iterator<Item = String>) {
        if self.beaten.is_some_and(|beaten| now >= beaten + self.length) {
            self.awaited = counted.collect();
        }
        self.beaten = Some(now);
    }

    /// The peer spoke, or is counted no more.
    pub(super) fn settle(&mut self, peer: &str) {
        self.awaited.remove(peer);
    }

    /// Whether the word of peers is awaited.
    pub(super) fn is_waiting(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// Until when this node may answer; nothing if it may not.
    pub(super) fn until(&self) -> Option<Duration> {
        let beaten = self.beaten.filter(|_| self.awaited.is_empty())?;
        Some(beaten + self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_lease_ends_by_itself_and_is_taken_up_only_when_all_have_spoken() {
        let mut lease = Lease::new(LEASE);
        let peers = || ["b", "c"].map(str::to_owned).into_iter();
        assert_eq!(lease.until(), None);
        lease.beat(ms(0), peers());
        assert_eq!(lease.until(), Some(ms(120)));
        lease.beat(ms(119), peers());
        assert_eq!(lease.until(), Some(ms(239)));
        lease.beat(ms(239), peers());
        assert_eq!(lease.until(), None);
        lease.settle("b");
        lease.beat(ms(279), peers());
        assert_eq!(lease.until(), None);
        lease.settle("c");
        assert_eq!(lease.until(), Some(ms(399)));
    }
}
