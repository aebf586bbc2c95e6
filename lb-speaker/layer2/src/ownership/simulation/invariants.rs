//! What is looked at while a schedule runs: that no two answer and somebody does.

use std::fmt::Write as _;

use super::*;

/// Two nodes of which one has not heard the other for so long may take each other for dead, by the clock that is fastest.
const UNHEARD: u64 = 150;

impl World {
    pub(super) fn owners(&self, ip: IpAddr) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| self.nodes[*index].answers(self.now, ip)).collect()
    }

    pub(super) fn is_whole(&self) -> bool {
        self.loss == 0 && self.cut.is_empty()
    }

    pub(super) fn may_serve(&self) -> bool {
        let up = self.nodes.iter().filter(|node| node.core.is_some() && !node.still).count();
        let is_able = |(index, node): (usize, &Node)| {
            let counts = node.core.as_ref().is_some_and(|core| core.membership.live().contains(NAMES[index]));
            counts && node.has_interface && !node.draining && !node.still && node.excluded != Some(index)
        };
        let able = self.nodes.iter().enumerate().any(is_able);
        able && (self.rules.partition == Partition::Availability || up > self.nodes.len() / 2)
    }

    pub(super) fn look(&mut self) {
        if !self.is_whole() {
            (self.network_disturbed, self.disturbed) = (self.now, self.now);
        }
        if self.nodes.iter().any(|node| node.still) {
            self.disturbed = self.now;
        }
        let may_serve = self.may_serve();
        if !may_serve {
            self.died = self.now;
        }
        if self.heard.iter().any(|((from, to), heard)| self.now - heard > UNHEARD && self.talk(*from, *to)) {
            self.torn = self.now;
        }
        for index in 0..self.nodes.len() {
            self.look_for_two(index);
        }
        for ip in self.ips.clone() {
            self.look_for_none(ip, may_serve);
        }
    }

    /// Whether the nodes are to hear each other.
    fn talk(&self, one: usize, other: usize) -> bool {
        let runs = |index: usize| {
            let node = &self.nodes[index];
            node.core.is_some() && !node.still && node.has_interface
        };
        one != other && runs(one) && runs(other)
    }

    /// Invariant 4, and 7: a node that stood still is among the owners only if it may answer. Where a majority decides, two
    /// never answer; elsewhere they may as long as one cannot tell the other from a dead one, and a while after.
    pub(super) fn look_for_two(&mut self, index: usize) {
        let (now, node) = (self.now, &self.nodes[index]);
        let own = node.leases.keys().filter(|ip| node.answers(now, **ip));
        let others =
            |ip: &IpAddr| (0..self.nodes.len()).any(|other| other != index && self.nodes[other].answers(now, *ip));
        let twos: Vec<IpAddr> = own.copied().filter(others).collect();
        let Some(ip) = twos.first() else { return };
        self.contested.extend(twos.iter().map(|ip| (*ip, now)));
        if self.rules.partition == Partition::Strict || now - self.torn > REST {
            panic!("{ip} is answered for by {:?}{}", self.owners(*ip), self.told());
        }
    }

    /// Invariant 5.
    fn look_for_none(&mut self, ip: IpAddr, may_serve: bool) {
        let is_served = self.nodes.iter().any(|node| node.answers(self.now, ip));
        if is_served || !may_serve {
            self.silent_since.remove(&ip);
            return;
        }
        let since = *self.silent_since.entry(ip).or_insert(self.now);
        let calm = self.now - self.network_disturbed > REST && self.now - self.disturbed.max(self.died) > 300;
        if calm && self.now - since > 300 {
            panic!("nobody has answered for {ip} for {} ms{}", self.now - since, self.told());
        }
    }

    pub(super) fn told(&self) -> String {
        let mut text =
            format!(" at {} ms, {:?}, loss {}, delay {}\n{}", self.now, self.rules, self.loss, self.slowest, self.log);
        for (name, node) in NAMES.iter().zip(&self.nodes) {
            let Some(core) = &node.core else { continue };
            let claims: Vec<_> = core.claims().map(|(ip, claim)| (ip, claim, core.lease_until(ip))).collect();
            let states: Vec<_> = core.membership.states().collect();
            writeln!(text, "{name} at {:?}: {states:?} {claims:?}", node.clock(self.now)).unwrap();
        }
        text
    }

    /// All addresses are answered for by one node each, in a whole network that has come to rest.
    #[track_caller]
    pub(super) fn check_rest(&self, what: &str) -> Vec<usize> {
        let owners = self.ips.iter().map(|ip| (*ip, self.owners(*ip)));
        owners
            .map(|(ip, owners)| match owners.as_slice() {
                [one] => *one,
                _ => panic!("{what}: {ip} is answered for by {owners:?}{}", self.told()),
            })
            .collect()
    }

    /// Invariant 8: whom two told different things was told the last word by the one who stays.
    pub(super) fn check_announced(&mut self) {
        for (ip, double) in std::mem::take(&mut self.contested) {
            let owner = self.owners(ip)[0];
            let announced = self.nodes[owner].announced.get(&ip).copied().unwrap_or(0);
            assert!(announced >= double, "two answered for {ip} at {double}, last told at {announced}{}", self.told());
        }
    }

    /// Invariant 9, as far as answers go: nobody answers for no longer than two datagrams take, or those that a majority needs.
    pub(super) fn run_without_a_break(&mut self, millis: u64, what: &str) {
        let ways = if self.rules.partition == Partition::Strict { 5 } else { 2 };
        for _ in 0..millis {
            self.run(1);
            for (ip, since) in &self.silent_since {
                let silent = self.now - since;
                assert!(silent < ways * (self.slowest + 1), "{ip} is silent for {silent} ms in {what}{}", self.told());
            }
        }
    }
}
