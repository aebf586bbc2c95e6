//! Where the comparison takes place: a network namespace of its own with an uplink, a pod's device and routes, and the
//! programs loaded over maps of their own.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{
    net::if_::if_nametoindex,
    sched::{CloneFlags, unshare},
};
use roadstead_dataplane::{
    explain::{KernelRoutes, KernelView, MemoryView},
    load::Programs,
    maps::FlowMaps,
    pins::{Pins, remove_all},
    testmaps::TestMaps,
};

/// Flows of one state: no test run here may find the table full.
const CONNTRACK_ENTRIES: u32 = 16_384;

const DEVICES: &str = "\
link set lo up
link add up0 address 02:00:00:00:00:01 type veth peer name up1
link add pod0 address 02:00:00:00:00:02 type veth peer name pod1
link set up0 up
link set up1 up
link set pod0 up
link set pod1 up
addr add 192.0.2.1/24 dev up0
addr add 2001:db8::1/64 dev up0 nodad
addr add 10.244.1.1/24 dev pod0
addr add fd00:244:1::1/64 dev pod0 nodad
route add 10.244.2.0/24 via 192.0.2.2
route add fd00:244:2::/64 via 2001:db8::2
route add unreachable 198.19.0.0/16
route add unreachable fd00:dead::/64
route add 203.0.113.0/24 via 192.0.2.254
";

/// The devices that packets are met on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Devices {
    pub(crate) uplink: u32,
    pub(crate) pod: u32,
}

/// Programs, maps and devices.
pub(crate) struct Ground {
    pub(crate) programs: Programs,
    pub(crate) flows: FlowMaps,
    pub(crate) view: KernelView,
    pub(crate) routes: KernelRoutes,
    pub(crate) devices: Devices,
    maps: TestMaps,
    _pins: RemovedOnDrop,
}

struct RemovedOnDrop(PathBuf);

impl Drop for RemovedOnDrop {
    fn drop(&mut self) {
        remove_all(&self.0).unwrap();
    }
}

impl Ground {
    /// Moves the calling thread into a namespace of its own.
    pub(crate) fn new(name: &str) -> Self {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip(DEVICES);
        for name in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(Path::new("/proc/sys/net").join(name), "1").unwrap();
        }
        let root = Path::new("/sys/fs/bpf").join(format!("roadstead-differential-{name}-{}", std::process::id()));
        let removed = RemovedOnDrop(root.clone());
        let pins = Pins::open(&root).unwrap();
        let (programs, _, flows) = Programs::load(pins.clone(), CONNTRACK_ENTRIES).unwrap();
        let index = |name| if_nametoindex(name).unwrap();
        let devices = Devices { uplink: index("up0"), pod: index("pod0") };
        Self {
            programs,
            flows,
            view: KernelView::open(&pins).unwrap(),
            routes: KernelRoutes::with_uplinks([devices.uplink].into()).unwrap(),
            devices,
            maps: TestMaps::open(&pins).unwrap(),
            _pins: removed,
        }
    }

    /// The programs' clock, which the model goes by from now on.
    pub(crate) fn now(&mut self) -> u32 {
        let now = self.programs.time().unwrap().now;
        self.view.set_now(now);
        now
    }

    /// Puts the state into the maps.
    pub(crate) fn fill(&mut self, state: &MemoryView) {
        self.maps.fill(state, &[self.devices.uplink]).unwrap();
    }
}

fn ip(batch: &str) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut child = Command::new("ip").env("PATH", path).args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(batch.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}
