//! What the engine tells the rest of the process: what it announces, which speakers there are, and what they have said.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use roadstead_layer2::{membership::PeerState, ownership::Partition};
use tokio::sync::watch;
use tracing::{info, warn};

use super::{super::Verdict, Turn};
use crate::{members::Members, plan::Owned, ports::Announced, report::Announcing, standalone::Meeting};

impl Turn {
    /// Hands on what came from peers, and what is known of them.
    pub(super) fn assemble(&mut self, now: Duration) {
        let strict = self.setup.ownership.rules().partition == Partition::Strict;
        let membership = &mut self.setup.ownership.membership;
        while let Ok(place) = self.arrived.try_reserve() {
            let Some(arrival) = membership.take_arrival() else { break };
            place.send(arrival);
        }
        let (version, indices) = membership.indices();
        let away = membership.states().filter(|(_, state)| *state != PeerState::Alive);
        let away: BTreeSet<&str> = away.map(|(peer, _)| peer).collect();
        let mut live = membership.live();
        live.retain(|name| !away.contains(&**name));
        let meeting = Meeting {
            over: membership.has_heard(now) && !membership.is_behind(now),
            cold: membership.is_cold(now),
            quorate: !strict || membership.is_quorate(),
            disagreeing: membership.disagreeing(now).map(str::to_owned).collect(),
            live,
            indices: BTreeMap::new(),
        };
        let same = self.met == Some(version) && self.meeting.borrow().is_but_for_indices(&meeting);
        if !same {
            let known = indices.into_iter().filter(|(peer, _)| meeting.live.contains(*peer));
            let indices = known.map(|(peer, index)| (peer.to_owned(), Arc::clone(index))).collect();
            self.met = Some(version);
            self.meeting.send_replace(Meeting { indices, ..meeting });
        }
    }

    /// Logs and counts what changed. An address that was won but has no interface to be announced on is told about too:
    /// nobody answers for it then.
    pub(super) fn tell(&mut self, owned: BTreeMap<IpAddr, Owned>, announced: &BTreeSet<Announced>) {
        let heard: BTreeSet<IpAddr> = announced.iter().map(|announced| announced.ip).collect();
        let (audible, silent): (BTreeMap<_, _>, BTreeMap<_, _>) =
            owned.into_iter().partition(|(ip, _)| heard.contains(ip));
        for ip in audible.keys().filter(|ip| !self.audible.contains_key(ip)) {
            info!(%ip, "announces the address");
        }
        for ip in self.audible.keys().filter(|ip| !audible.contains_key(ip)) {
            info!(%ip, "no longer announces the address");
        }
        self.tell_announcing(&audible, &silent, announced);
        let silent: BTreeSet<IpAddr> = silent.into_keys().collect();
        for ip in silent.difference(&self.silent) {
            warn!(%ip, "this node is to announce the address, but on no interface it can");
        }
        self.setup.metrics.announced(&self.setup.node, &audible);
        (self.audible, self.silent) = (audible, silent);
    }

    fn tell_announcing(
        &self,
        audible: &BTreeMap<IpAddr, Owned>,
        silent: &BTreeMap<IpAddr, Owned>,
        announced: &BTreeSet<Announced>,
    ) {
        let mut announcing = Announcing::default();
        for Announced { interface, ip, .. } in announced {
            let (Some(owned), Some(port)) = (audible.get(ip), self.setup.ports.port(*interface)) else { continue };
            for service in &owned.services {
                announcing.services.entry(service.clone()).or_default().insert(port.name.clone());
            }
        }
        announcing.silent = silent.values().flat_map(|owned| owned.services.iter().cloned()).collect();
        send_news(&self.setup.announcing, announcing);
    }

    pub(super) fn tell_members(&self) {
        send_news(&self.told, Members::of(&self.setup.ownership));
    }

    pub(super) fn tell_verdict(&self) {
        let done = if self.segment.is_asking() { self.verdict.borrow().done } else { self.number };
        let verdict = Verdict { done, occupied: self.segment.occupied() };
        self.setup.metrics.occupied(verdict.occupied.len());
        send_news(&self.verdict, verdict);
    }
}

/// Wakes whoever waits only where there is something new.
fn send_news<T: PartialEq>(sender: &watch::Sender<T>, value: T) {
    sender.send_if_modified(|told| {
        let news = *told != value;
        *told = value;
        news
    });
}
