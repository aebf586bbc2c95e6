//! Housekeeping of flows: expired pairs are freed, and flows that lead nowhere any more.
//!
//! The programs never free a live flow, so this is the only way that the table empties. The map is walked without a copy,
//! and an entry is looked up anew, with its other half, before it is judged: the programs go on meanwhile.

use std::collections::HashSet;

use roadstead_abi::{Addr, CtEntry, CtKey, ct_flags, map_names, proto};
use roadstead_datapath::conntrack::{SHORTEST, is_expired, is_orphan_expired};

use crate::{
    clock::Time,
    frontends::EndpointAddress,
    maps::{FlowMaps, MapError},
};

/// What a collection saw and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Entries that stay; a flow has two.
    pub live: usize,
    /// Entries freed.
    pub freed: usize,
    /// Addresses that the flows came by: the filter must let their packets through to the table.
    pub frontends: HashSet<Addr>,
    /// Endpoints that they lead to, likewise.
    pub backends: HashSet<EndpointAddress>,
    /// Some flow of datagrams is sent on by the programs: it may be one of this node to an endpoint that is gone.
    pub sends_datagrams: bool,
}

/// Frees expired pairs, halves whose other half is missing, and UDP flows to endpoints that answer no more (`may_go_on`
/// gets the id of the Service port and the endpoint), so that the client's next datagram finds a live one, as kube-proxy's
/// `conntrack/cleanup.go`. TCP flows keep their backend until it dies.
///
/// # Errors
/// When the map cannot be read. An entry that cannot be removed is tried again the next time.
pub fn collect(
    flows: &mut FlowMaps,
    time: Time,
    may_go_on: impl Fn(u32, &EndpointAddress) -> bool,
) -> Result<Collected, MapError> {
    let is_stale = |key: &CtKey, entry: &CtEntry| {
        key.proto == proto::UDP
            && entry.flags & ct_flags::REPLY == 0
            && !may_go_on(entry.service, &(entry.dst, entry.dport))
    };
    walk(flows, |flows, key, entry| {
        if is_stale(key, entry) {
            return true;
        }
        time.idle(entry.last_seen) > SHORTEST && is_doomed(flows, key, time)
    })
}

/// Frees the flows that use a device which is gone: its index would lead them nowhere, uncounted.
///
/// # Errors
/// As [`collect`].
pub fn forget_device(flows: &mut FlowMaps, ifindex: u32) -> Result<Collected, MapError> {
    walk(flows, |_, _, entry| entry.ifindex == ifindex)
}

fn walk(
    flows: &mut FlowMaps,
    mut is_doomed: impl FnMut(&FlowMaps, &CtKey, &CtEntry) -> bool,
) -> Result<Collected, MapError> {
    let failed = |source| MapError { map: map_names::CONNTRACK, operation: "read", source: Box::new(source) };
    let (mut collected, mut doomed) = (Collected::default(), Vec::new());
    for element in flows.conntrack.iter() {
        let (key, entry) = element.map_err(failed)?;
        collected.live += 1;
        if is_doomed(flows, &key, &entry) {
            doomed.push((key, entry.reverse_key(key.proto)));
        } else if entry.flags & ct_flags::REPLY == 0 {
            collected.frontends.insert(key.dst);
            collected.backends.insert((entry.dst, entry.dport));
            collected.sends_datagrams |= key.proto == proto::UDP && entry.ifindex != 0;
        }
    }
    for key in doomed.into_iter().flat_map(|(key, other)| [key, other]) {
        // Gone already, with its other half, or tried again the next time.
        collected.freed += usize::from(flows.conntrack.remove(&key).is_ok());
    }
    collected.live = collected.live.saturating_sub(collected.freed);
    Ok(collected)
}

/// Judges an entry as it is now, with its other half.
fn is_doomed(flows: &FlowMaps, key: &CtKey, time: Time) -> bool {
    let Ok(entry) = flows.conntrack.get(key, 0) else { return false };
    let other = flows.conntrack.get(&entry.reverse_key(key.proto), 0).ok();
    is_pair_expired(key.proto, &entry, other.as_ref(), time)
}

fn is_pair_expired(protocol: u8, entry: &CtEntry, other: Option<&CtEntry>, time: Time) -> bool {
    let Some(other) = other else { return is_orphan_expired(protocol, entry, time.now, time.clock) };
    let (forward, reply) = if entry.flags & ct_flags::REPLY == 0 { (entry, other) } else { (other, entry) };
    is_expired(protocol, forward, reply, time.now, time.clock)
}

#[cfg(test)]
mod tests {
    use roadstead_datapath::conntrack::{Clock, timeout};

    use super::*;

    #[test]
    fn pairs_expire_together_and_halves_like_unanswered_flows() {
        let clock = Clock { hz: 256 };
        let entry = |flags, last_seen| CtEntry { flags, last_seen, ..CtEntry::default() };
        let forward = entry(ct_flags::SEEN | ct_flags::ACKED, 1_000);
        let reply = entry(ct_flags::REPLY | ct_flags::SEEN, 1_100);
        let established = 1_100 + timeout::TCP_ESTABLISHED;
        for (now, expired) in [(1_101 + timeout::TCP_OPENING, false), (established, false), (established + 1, true)] {
            let time = Time { now, clock };
            assert_eq!(is_pair_expired(proto::TCP, &forward, Some(&reply), time), expired, "{now}");
            assert_eq!(is_pair_expired(proto::TCP, &reply, Some(&forward), time), expired, "{now}");
        }
        for (half, since) in [(forward, 1_000), (reply, 1_100)] {
            let at = |now| Time { now, clock };
            assert!(!is_pair_expired(proto::TCP, &half, None, at(since + timeout::TCP_OPENING)));
            assert!(is_pair_expired(proto::TCP, &half, None, at(since + 1 + timeout::TCP_OPENING)));
        }
    }
}
