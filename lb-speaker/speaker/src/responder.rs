//! The responder in the kernel (`--responder`): what the engine leases becomes entries of the map that the agent's
//! programs read, and the speaker's signs of life a stamp beside them.
//!
//! The agent makes the map and attaches the programs; where they are missing, this process answers by itself. What an
//! earlier speaker has left stays until the engine knows what this node owns, or until its lease ends.
//!
//! Whoever answers, the programs are told which node had an address before it came here in a planned way.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use clap::ValueEnum;
use nix::time::{ClockId, clock_gettime};
use roadstead_dataplane::{
    addresses::to_map,
    responder::{Addr, Announced, AnnouncedKey, Be16, LONGEST_QUESTION, Responder, Speaker},
};
use roadstead_layer2::membership::KERNEL_LEASE;
use tracing::{info, warn};

use crate::{
    kernel::{KernelLease, KernelResponder},
    links::Link,
};

/// Who answers questions for addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// The agent's programs where they are, this process elsewhere
    Auto,
    /// This process
    Userspace,
    /// The agent's programs: without their maps the speaker does not start
    Ebpf,
}

/// For how long a former owner is known of an address that is not leased: a node that was starved takes it up again.
const LINGER: Duration = Duration::from_secs(3);
/// For how long after a planned move connections are sent to where they were; renewed for as long as that node lives.
const FORMER: Duration = Duration::from_mins(10);

/// The agent's programs as a responder.
#[derive(Debug)]
pub(crate) struct InKernel {
    choice: Choice,
    bpffs: PathBuf,
    /// Where this speaker hears its peers.
    port: u16,
    peers: Vec<SocketAddr>,
    maps: Option<Responder>,
    /// The interfaces where a program of the agent meets what comes in.
    attached: BTreeSet<u32>,
    /// Those where none does, about which there was a warning.
    missing: BTreeSet<u32>,
    vouches: bool,
    counted: BTreeMap<AnnouncedKey, u64>,
    failing: bool,
}

impl InKernel {
    /// Opens the maps below `bpffs`. But with [`Choice::Ebpf`] they may come later.
    ///
    /// # Errors
    /// With [`Choice::Ebpf`], when they are not there.
    pub(crate) fn open(choice: Choice, bpffs: PathBuf, port: u16, peers: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let maps = match (choice, Responder::open(&bpffs)) {
            (_, Ok(maps)) => Some(maps),
            (Choice::Ebpf, Err(error)) => {
                return Err(error).with_context(|| {
                    format!(
                        "--responder ebpf: no maps of a running agent in {}, or CAP_BPF is missing; start `roadstead run` \
                         first, or take --responder auto",
                        bpffs.display()
                    )
                });
            }
            (Choice::Auto | Choice::Userspace, Err(error)) => {
                info!(%error, bpffs = %bpffs.display(), "no agent's programs yet: this process answers");
                None
            }
        };
        let mut kernel = Self {
            choice,
            bpffs,
            port,
            peers,
            maps,
            attached: BTreeSet::new(),
            missing: BTreeSet::new(),
            vouches: false,
            counted: BTreeMap::new(),
            failing: false,
        };
        if choice != Choice::Userspace {
            kernel.resume(now_ns());
        }
        Ok(kernel)
    }

    /// What an earlier speaker has left is answered for until its lease would have ended, had it been renewed with its
    /// last sign of life: the peers wait for longer than that.
    fn resume(&mut self, now: u64) {
        let Some(maps) = &mut self.maps else { return };
        let Ok(Speaker { stamp, .. }) = maps.stamped() else { return };
        let length = ns(KERNEL_LEASE);
        // Others were leases of a node whose peers would not wait.
        let runs = |entry: &Announced| entry.lease_until > now && entry.lease_until > stamp.saturating_add(length / 2);
        let left: Vec<_> =
            maps.written().iter().filter(|(_, entry)| runs(entry)).map(|(key, entry)| (*key, *entry)).collect();
        if !left.is_empty() {
            info!(addresses = left.len(), "goes on with what an earlier speaker has left to the kernel");
        }
        for (key, entry) in left {
            let lease_until = entry.lease_until.max(stamp.saturating_add(length));
            // Not renewed, it ends a little earlier.
            let _ = maps.put(key, &Announced { lease_until, ..entry });
        }
    }

    /// Whether every one of the peers' datagrams comes in where a program echoes probes, as far as the routes tell.
    fn hears_peers(&self, links: &[Link]) -> bool {
        let at = |ip: IpAddr| links.iter().find(|link| link.addresses.contains(&ip)).map(|link| link.index);
        let mut towards = self.peers.iter().map(|peer| local_address(*peer).and_then(at));
        towards.all(|index| index.is_some_and(|index| self.attached.contains(&index)))
    }

    fn tell(&mut self, outcome: Result<(), roadstead_dataplane::maps::MapError>) {
        match outcome {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                warn!(error = format!("{:#}", anyhow::Error::new(error)), "cannot write the kernel's map, will retry");
            }
            Err(_) => {}
        }
    }
}

impl KernelResponder for InKernel {
    fn meet(&mut self, peers: Vec<SocketAddr>) {
        self.peers = peers;
    }

    fn look(&mut self, ports: &[(u32, &str)], links: &[Link], attached: &BTreeSet<u32>) {
        // After `roadstead cleanup` other maps are pinned, or none.
        if !self.maps.as_ref().is_some_and(|maps| maps.is_current(&self.bpffs)) {
            self.maps = Responder::open(&self.bpffs).ok();
        }
        if self.choice == Choice::Userspace {
            return;
        }
        self.attached = self.maps.as_ref().map(|_| attached.clone()).unwrap_or_default();
        for (index, name) in ports {
            match self.attached.contains(index) {
                true if self.missing.remove(index) => info!(interface = name, "the agent's program answers here"),
                false if self.missing.insert(*index) => {
                    warn!(interface = name, "no program of the agent here: this process answers");
                }
                _ => {}
            }
        }
        let all = ports.iter().all(|(index, _)| self.attached.contains(index));
        self.vouches = self.maps.is_some() && all && !ports.is_empty() && self.hears_peers(links);
    }

    fn vouches(&self) -> bool {
        self.vouches
    }

    fn follow(&mut self, now_ns: u64, leases: Option<(&[KernelLease], &BTreeSet<IpAddr>)>) {
        let Some(maps) = &mut self.maps else { return };
        // Whose leases are short must not be vouched for.
        let port = if self.vouches { self.port } else { 0 };
        let mut outcome = maps.stamp(Speaker { stamp: now_ns, port: Be16::new(port), reserved: [0; 3] });
        if let Some((leases, left)) = leases {
            let answers = self.choice != Choice::Userspace;
            let renew = |lease: &KernelLease| {
                let key = key_of(lease);
                let entry = entry(maps.written().get(&key), now_ns, lease);
                let lease_until = if answers { entry.lease_until } else { 0 };
                (key, Announced { lease_until, ..entry })
            };
            let told = leases
                .iter()
                .filter(|lease| answers || lease.former.is_some() || maps.written().contains_key(&key_of(lease)));
            let mut wanted: BTreeMap<AnnouncedKey, Announced> = told.map(renew).collect();
            let gone = maps.written().iter().filter(|(key, _)| !wanted.contains_key(key));
            let rest = |key: &AnnouncedKey, entry: &Announced| match left.contains(&from_map(key)) {
                true if entry.lease_until > now_ns => Some(*entry),
                _ => linger(entry, now_ns),
            };
            let kept: Vec<_> = gone.filter_map(|(key, entry)| Some((*key, rest(key, entry)?))).collect();
            wanted.extend(kept);
            outcome = maps.follow(&wanted).and(outcome);
        }
        self.tell(outcome);
    }

    fn answers(&self, interface: u32, ip: IpAddr) -> bool {
        let key = AnnouncedKey { addr: to_map(ip), ifindex: interface };
        self.attached.contains(&interface) && self.maps.as_ref().is_some_and(|maps| maps.written().contains_key(&key))
    }

    fn answered(&mut self) -> Vec<(IpAddr, u64)> {
        let Some(maps) = &self.maps else { return Vec::new() };
        let counts = maps.written().keys().filter_map(|key| Some((*key, maps.answers(key).ok()?.answers)));
        let counts: BTreeMap<_, _> = counts.collect();
        let before = std::mem::replace(&mut self.counted, counts);
        // One that was taken away and put back counts from zero.
        let fresh = |(key, count): (&AnnouncedKey, &u64)| {
            let more = count.checked_sub(before.get(key).copied().unwrap_or(0)).unwrap_or(*count);
            (from_map(key), more)
        };
        self.counted.iter().map(fresh).filter(|(_, more)| *more > 0).collect()
    }

    fn leave(&mut self) {
        let Some(maps) = &mut self.maps else { return };
        let silent = maps.follow(&BTreeMap::new());
        let outcome = maps.stamp(Speaker::default()).and(silent);
        self.tell(outcome);
    }
}

/// Whether a question is one that the programs leave to this process: a solicitation with more options than they look at.
pub(crate) fn is_too_long_for_kernel(frame: &[u8]) -> bool {
    const IPV6: [u8; 2] = [0x86, 0xdd];
    let length = frame.get(18..20).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u16::from_be_bytes(*bytes));
    frame.get(12..14) == Some(&IPV6) && usize::from(length) > LONGEST_QUESTION
}

/// The map's entry for a lease. One that runs is renewed when a fifth of it is used up, not with every heartbeat.
fn entry(written: Option<&Announced>, now: u64, lease: &KernelLease) -> Announced {
    let written = written.copied().unwrap_or_default();
    let until = lease.until_ns;
    let is_fresh = written.lease_until > now
        && until >= written.lease_until
        && until - written.lease_until < until.saturating_sub(now) / 5;
    // Who had the address before stays known: an address that is taken up again did not come from anybody.
    let known = if written.former_until > now { written.former } else { Addr::UNSPECIFIED };
    let former = lease.former.map_or(known, to_map);
    let former_until = match former {
        Addr::UNSPECIFIED => 0,
        _ if written.former == former && written.former_until > now + ns(FORMER) / 2 => written.former_until,
        _ => now + ns(FORMER),
    };
    Announced {
        lease_until: if is_fresh { written.lease_until } else { until },
        former_until,
        former,
        link_local: lease.link_local.map(|ip| to_map(ip.into())).unwrap_or_default(),
        mac: lease.mac.0,
        ..Announced::default()
    }
}

/// What is left of the entry of an address that is not leased: nothing is answered, but connections that this node does
/// not know go on to the former owner for a while.
fn linger(entry: &Announced, now: u64) -> Option<Announced> {
    let former_until = entry.former_until.min(now + ns(LINGER));
    let lingers = entry.former != Addr::UNSPECIFIED && entry.former_until > now;
    // Once it lingers its end stays.
    let former_until =
        if entry.lease_until == 0 && entry.former_until < now + ns(LINGER) { entry.former_until } else { former_until };
    lingers.then_some(Announced { lease_until: 0, former_until, ..*entry })
}

fn key_of(lease: &KernelLease) -> AnnouncedKey {
    AnnouncedKey { addr: to_map(lease.ip), ifindex: lease.interface }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).map_or(0, ns)
}

fn from_map(key: &AnnouncedKey) -> IpAddr {
    IpAddr::from(key.addr.octets()).to_canonical()
}

/// The address of this node that datagrams to the peer come from, and so those of the peer go to.
fn local_address(peer: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(peer).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use roadstead_layer2::wire::Mac;

    use super::*;

    const MS: u64 = 1_000_000;

    fn lease(until_ns: u64, former: Option<&str>) -> KernelLease {
        KernelLease {
            interface: 2,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            link_local: None,
            ip: "192.0.2.1".parse().unwrap(),
            until_ns,
            former: former.map(|ip| ip.parse().unwrap()),
        }
    }

    #[test]
    fn a_lease_is_renewed_when_a_fifth_is_over_and_shortened_at_once() {
        let now = 10_000 * MS;
        let written = entry(None, now, &lease(now + 2_500 * MS, None));
        assert_eq!(written.lease_until, now + 2_500 * MS);
        let cases = [
            (400, 2_500, 12_500),
            (500, 2_500, 13_000),
            // Without an echo the lease is a short one.
            (40, 120, 10_160),
            // It had ended meanwhile.
            (2_600, 2_500, 15_100),
        ];
        for (after, length, until) in cases {
            let now = now + after * MS;
            let renewed = entry(Some(&written), now, &lease(now + length * MS, None));
            assert_eq!(renewed.lease_until, until * MS, "{after} {length}");
        }
    }

    #[test]
    fn a_former_owner_is_renewed_for_as_long_as_it_is_told() {
        let (now, minute) = (10_000 * MS, 60_000 * MS);
        let first = entry(None, now, &lease(now + MS, Some("192.0.2.12")));
        assert_eq!((first.former, first.former_until), (to_map("192.0.2.12".parse().unwrap()), now + 10 * minute));
        let after = |time: u64, former| {
            let now = now + time;
            entry(Some(&first), now, &lease(now + MS, former))
        };
        assert_eq!(after(minute, Some("192.0.2.12")).former_until, first.former_until);
        assert_eq!(after(6 * minute, Some("192.0.2.12")).former_until, now + 16 * minute);
        assert_eq!(after(minute, Some("192.0.2.13")).former_until, now + 11 * minute);
        // Taken up again from nobody, it still was there.
        assert_eq!((after(minute, None).former, after(minute, None).former_until), (first.former, first.former_until));
        assert_eq!((after(11 * minute, None).former, after(11 * minute, None).former_until), (Addr::UNSPECIFIED, 0));
    }

    #[test]
    fn a_former_owner_is_known_a_while_longer_than_the_lease() {
        let now = 10_000 * MS;
        let entry = entry(None, now, &lease(now + 2_500 * MS, Some("192.0.2.12")));
        let left = linger(&entry, now).unwrap();
        assert_eq!((left.lease_until, left.former_until), (0, now + 3_000 * MS));
        let later = linger(&left, now + 1_000 * MS).unwrap();
        assert_eq!(later, left, "its end stays");
        assert_eq!(linger(&left, now + 3_000 * MS), None);
        assert_eq!(linger(&Announced { former: Addr::UNSPECIFIED, ..entry }, now), None);
    }

    #[test]
    fn only_solicitations_with_many_options_are_too_long() {
        let frame = |ethertype: [u8; 2], length: u16| {
            let mut frame = vec![0; 60];
            frame[12..14].copy_from_slice(&ethertype);
            frame[18..20].copy_from_slice(&length.to_be_bytes());
            frame
        };
        let cases = [([0x86, 0xdd], 504, false), ([0x86, 0xdd], 512, true), ([0x08, 0x06], 0x0604, false)];
        for (ethertype, length, expected) in cases {
            assert_eq!(is_too_long_for_kernel(&frame(ethertype, length)), expected, "{ethertype:02x?} {length}");
        }
        assert!(!is_too_long_for_kernel(&[0; 10]));
    }
}
