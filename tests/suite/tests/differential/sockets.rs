//! The same for connect(2): the kernel has no test run for socket programs, so a process in a control group of its own
//! makes the calls, and the programs' own events say what they did.

use std::{
    net::{SocketAddr, SocketAddrV6},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, connect, socket},
};
use roadstead_abi::{Be16, hook};
use roadstead_dataplane::{
    addresses::from_map,
    explain::{self, Call, Explanation, MemoryView, Socket, Verdict},
    netns_cookie,
    trace::Tracer,
};

use super::{
    ground::Ground,
    random::Random,
    state::{self, BACKEND_PORTS, NODE_PORTS, SERVICE_PORTS, pools},
};

const GROUP: &str = "ROADSTEAD_DIFFERENTIAL_CGROUP";

/// A control group that ends with the test.
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        std::fs::remove_dir(&self.0).unwrap();
    }
}

/// Runs the named test once more, as a process in a control group of its own; `None` in that process, which gets the
/// group's folder by [`group`].
pub(crate) fn in_a_group(test: &str) -> Option<bool> {
    if std::env::var_os(GROUP).is_some() {
        return None;
    }
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|line| line[2] == "cgroup2");
    let mount = mount.expect("no cgroup2 file system is mounted");
    let group = Group(Path::new(mount[1]).join(format!("roadstead-differential-{}", std::process::id())));
    std::fs::create_dir(&group.0).unwrap();
    let enter = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", enter]).arg(&group.0).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(GROUP, &group.0);
    let status = command.status().unwrap();
    Some(status.success())
}

/// Compares calls of this process, which [`in_a_group`] has started.
pub(crate) fn compare(seed: u64, states: u64, calls: u64) {
    let mut ground = Ground::new("sockets");
    let group = PathBuf::from(std::env::var_os(GROUP).unwrap());
    ground.programs.attach_sockets(&group).unwrap();
    let own = netns_cookie().unwrap();
    let mut tracer = Tracer::open(ground.programs.pins()).unwrap();
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    for number in 0..states {
        let mut random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let mut state = state::random(&mut random, ground.now());
        // This process is the node's, or a pod's.
        let node = if random.percent(50) { own } else { own + 1 };
        state.node = state.node.map(|config| roadstead_abi::NodeConfig { netns_cookie: node, ..config });
        add_affinity(&mut state, own, &mut random);
        ground.fill(&state);
        for step in 0..calls {
            let call = random_call(&mut random, own);
            let label = format!("seed {seed} state {number} call {step}: {call:?}");
            ground.now();
            let explained = explain::connect(&ground.view, &call).unwrap();
            // A machine that stands still for a while loses the lease.
            tracer.renew().unwrap();
            let outcome = ask(&call);
            check(&explained, outcome, &mut tracer, &label);
            *seen.entry(format!("{}: {}", explained.verdict.as_str(), explained.rule)).or_default() += 1;
        }
    }
    for (outcome, count) in &seen {
        println!("{count:6} connect {outcome}");
    }
    assert!(states < 100 || seen.len() >= 15, "only {} outcomes", seen.len());
}

/// What this process's namespace had.
fn add_affinity(state: &mut MemoryView, own: u64, random: &mut Random) {
    let backends = state.backends.len();
    for service in 1..=30 {
        for family in [4, 6] {
            if random.percent(40) {
                let key = roadstead_abi::AffinityKey::of_socket(own, family, service);
                let backend = u32::try_from(1 + random.below(backends - 1)).unwrap();
                let last_seen = state.now - random.of(&[0, 100]);
                state.affinities.insert(key, roadstead_abi::Affinity { backend, last_seen });
            }
        }
    }
}

fn random_call(random: &mut Random, own: u64) -> Call {
    let pool = &pools()[random.below(2)];
    let (asked, ports): (_, &[u16]) = match random.below(100) {
        0..60 => (random.of(&pool.services), &SERVICE_PORTS),
        60..85 => (random.of(&pool.node), &NODE_PORTS),
        85..90 => (pool.unallocated, &SERVICE_PORTS),
        90..95 => (random.of(&pool.services), &[443]),
        _ => (random.of(&pool.backends), &BACKEND_PORTS),
    };
    let mapped = asked.is_v4() && random.percent(20);
    Call {
        asked,
        port: Be16::new(random.of(ports)),
        protocol: random.of(&[6, 17]),
        family: if asked.is_v4() && !mapped { 4 } else { 6 },
        socket: Socket { netns_cookie: Some(own), cookie: None },
    }
}

/// Makes the call.
fn ask(call: &Call) -> Result<(), Errno> {
    let kind = if call.protocol == 6 { SockType::Stream } else { SockType::Datagram };
    let family = if call.family == 4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None).unwrap();
    match (SocketAddr::new(from_map(&call.asked), call.port.get()), call.family) {
        (SocketAddr::V4(to), 4) => connect(socket.as_raw_fd(), &SockaddrIn::from(to)),
        (SocketAddr::V4(to), _) => {
            let mapped = SocketAddrV6::new(to.ip().to_ipv6_mapped(), to.port(), 0, 0);
            connect(socket.as_raw_fd(), &SockaddrIn6::from(mapped))
        }
        (SocketAddr::V6(to), _) => connect(socket.as_raw_fd(), &SockaddrIn6::from(to)),
    }
}

fn check(explained: &Explanation, outcome: Result<(), Errno>, tracer: &mut Tracer, label: &str) {
    let label = format!("{label}\nmodel: {explained:?}\ncall: {outcome:?}");
    let event = tracer.next_event();
    assert_eq!(tracer.next_event(), None, "{label}");
    match (explained.verdict, event) {
        (Verdict::Pass, None) => {}
        (Verdict::Forward, Some(event)) => {
            assert_eq!((event.hook, event.reason, event.service), (hook::SOCKET, 0, explained.service), "{label}");
            let is_got =
                |backend: roadstead_abi::Backend| (backend.addr, backend.port) == (event.backend, event.backend_port);
            assert!(explained.candidates.iter().any(|candidate| is_got(candidate.backend)), "{label}\n{event:?}");
        }
        (Verdict::Reject, Some(event)) => {
            let reason = explained.reason.unwrap() as u32;
            assert_eq!((event.reason, event.service), (reason, explained.service), "{label}");
            assert_eq!(outcome, Err(Errno::ECONNREFUSED), "{label}");
        }
        (_, event) => panic!("{label}\n{event:?}"),
    }
}
