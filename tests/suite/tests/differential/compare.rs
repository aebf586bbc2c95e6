//! One packet through the model and through the program, and what must agree.

use std::{collections::BTreeMap, fmt};

use roadstead_abi::{CtEntry, CtKey, DropReason, limits};
use roadstead_dataplane::{
    counters,
    explain::{self, Explanation, Form, Hook, Verdict, View as _},
    testrun::Ran,
};

use super::{
    frames::{frame, is_refusal, tuple},
    ground::{Devices, Ground},
    packets::Sent,
};

const NEXT: i32 = -1;
const SHOT: i32 = 2;
const REDIRECT: i32 = 7;

type Drops = BTreeMap<(DropReason, u32), u64>;

/// What a packet met, for the summary at the end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Seen {
    verdict: &'static str,
    rule: String,
    more: &'static str,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}{}", self.verdict, self.rule, self.more)
    }
}

/// The packets of one state.
pub(crate) struct Run<'a> {
    ground: &'a mut Ground,
    drops: Drops,
    /// Refusals sent in the clock's unit.
    rejections: (u32, u32),
}

impl<'a> Run<'a> {
    pub(crate) fn new(ground: &'a mut Ground) -> Self {
        Self { ground, drops: Drops::new(), rejections: (0, 0) }
    }

    pub(crate) fn devices(&self) -> Devices {
        self.ground.devices
    }

    /// Compares; the entry that forwarded the packet is returned.
    pub(crate) fn compare(&mut self, sent: &Sent, label: &str) -> (Seen, Option<CtEntry>) {
        let ground = &mut *self.ground;
        ground.now();
        let explained = explain::packet(&ground.view, &ground.routes, sent.hook, &sent.packet).unwrap();
        let before = frame(&sent.packet, mac(sent, ground.devices));
        let name = match sent.hook {
            Hook::UplinkIn => "uplink_in",
            Hook::UplinkOut => "uplink_out",
            Hook::IntIn => "int_in",
            Hook::IntOut => "int_out",
        };
        let ran = ground.programs.run_on(name, &before, sent.packet.ifindex).unwrap();
        let label = format!("{label}\nmodel: {explained:?}\nprogram: {}", ran.verdict);
        let moved = self.moved();
        let entry = match explained.verdict {
            Verdict::Pass => {
                assert_eq!((ran.verdict, moved, ran.packet == before), (NEXT, None, true), "{label}");
                None
            }
            Verdict::Drop => {
                // Where every endpoint refuses, each by its own reason, the dice choose among the reasons.
                let diced = explained.candidates.iter().filter_map(|candidate| candidate.entry.err());
                let mut reasons = explained.reason.into_iter().chain(diced);
                let told =
                    moved.is_some_and(|(why, id)| id == explained.service && reasons.any(|reason| reason == why));
                assert!(ran.verdict == SHOT && told, "{label}\nmoved {moved:?}");
                None
            }
            Verdict::Reject => {
                assert_eq!(moved, explained.reason.map(|reason| (reason, explained.service)), "{label}");
                self.assert_rejected(sent, &ran, &label);
                None
            }
            Verdict::Forward => self.assert_forwarded(sent, &explained, &ran, moved, &label),
        };
        (seen(sent, &explained), entry)
    }

    /// The one counter that has moved by one since the last look.
    fn moved(&mut self) -> Option<(DropReason, u32)> {
        let drops = counters::drops(&self.ground.flows).unwrap();
        let now: Drops = drops.into_iter().map(|drop| ((drop.reason, drop.service), drop.count)).collect();
        let before = std::mem::replace(&mut self.drops, now);
        let fresh = |(key, count): (&(DropReason, u32), &u64)| (*key, count - before.get(key).unwrap_or(&0));
        let moved: Vec<_> = self.drops.iter().map(fresh).filter(|(_, fresh)| *fresh > 0).collect();
        assert!(moved.iter().map(|(_, fresh)| fresh).sum::<u64>() <= 1, "one packet moved {moved:?}");
        moved.first().map(|(key, _)| *key)
    }

    /// A CPU that has sent enough refusals drops the rest; what all together have sent is more.
    fn assert_rejected(&mut self, sent: &Sent, ran: &Ran, label: &str) {
        let now = self.ground.now();
        let (unit, count) = self.rejections;
        self.rejections = (now, if unit == now { count + 1 } else { 1 });
        if ran.verdict == SHOT && (unit == 0 || self.rejections.1 > limits::REJECTIONS) {
            return;
        }
        assert_eq!(ran.verdict, REDIRECT, "{label}");
        assert!(is_refusal(&ran.packet, &sent.packet), "{label}: {:02x?}", ran.packet);
    }

    fn assert_forwarded(
        &self,
        sent: &Sent,
        explained: &Explanation,
        ran: &Ran,
        moved: Option<(DropReason, u32)>,
        label: &str,
    ) -> Option<CtEntry> {
        if let Some((reason, service)) = moved {
            // One of the endpoints that it may get is out of reach.
            let refuses = explained.candidates.iter().any(|candidate| candidate.entry == Err(reason));
            assert!(refuses && service == explained.service && ran.verdict == SHOT, "{label}\nmoved {moved:?}");
            return None;
        }
        assert!(ran.verdict == NEXT || ran.verdict == REDIRECT, "{label}");
        let after = tuple(&ran.packet, sent.packet.form == Form::Error);
        let offered = explained.candidates.iter().filter_map(|candidate| candidate.entry.ok().flatten());
        let entry = explained.flow.into_iter().chain(offered).find(|entry| leaves_with(&after, entry));
        let entry = entry.unwrap_or_else(|| panic!("{label}\nleft as {after:?}"));
        let verdict = if entry.ifindex == 0 { NEXT } else { REDIRECT };
        assert_eq!(ran.verdict, verdict, "{label}\n{entry:?}");
        if explained.flow.is_none() {
            let written = self.ground.view.flow(&sent.packet.key).unwrap().unwrap();
            let same = CtEntry { last_seen: written.last_seen, ..entry };
            assert_eq!(written, same, "{label}");
            let reply = self.ground.view.flow(&entry.reverse_key(sent.packet.key.proto)).unwrap();
            assert_eq!(reply.unwrap().reverse_key(sent.packet.key.proto), sent.packet.key, "{label}");
        }
        Some(entry)
    }
}

fn leaves_with(after: &CtKey, entry: &CtEntry) -> bool {
    (after.src, after.dst, after.sport, after.dport) == (entry.src, entry.dst, entry.sport, entry.dport)
}

fn mac(sent: &Sent, devices: Devices) -> [u8; 6] {
    match sent.packet.ifindex {
        index if index == devices.uplink => [2, 0, 0, 0, 0, 1],
        index if index == devices.pod => [2, 0, 0, 0, 0, 2],
        _ => [0; 6],
    }
}

fn seen(sent: &Sent, explained: &Explanation) -> Seen {
    let maglev = explained.frontend.is_some_and(|found| found.cluster.table.count > 0);
    let more = match () {
        () if sent.packet.form == Form::Error => ", ICMP error",
        () if explained.affinity() && explained.candidates.len() == 1 => ", affinity",
        () if maglev && explained.candidates.len() == 1 => ", Maglev",
        () if explained.masquerade() => ", masqueraded",
        () => "",
    };
    Seen { verdict: explained.verdict.as_str(), rule: explained.rule.to_string(), more }
}
