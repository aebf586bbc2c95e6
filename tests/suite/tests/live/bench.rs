//! Loaded programs over maps with two Services, and the operator's program beside them.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    time::Duration,
};

use etherparse::PacketBuilder;
use roadstead_abi::{Addr, Be16, EndpointSet, NodeConfig, SvcKey, SvcValue, kind, node_address, scope, svc_flags};
use roadstead_dataplane::{
    explain::MemoryView,
    load::Programs,
    pins::{Pins, remove_all},
    testmaps::TestMaps,
};

pub(crate) const VIP: [u8; 4] = [198, 51, 100, 10];
pub(crate) const CLIENT: [u8; 4] = [192, 0, 2, 9];
/// The id of the Service port, and of its backend.
pub(crate) const SERVICE: u32 = 7;
pub(crate) const BACKEND: u32 = 1;

pub(crate) struct Bench {
    programs: Programs,
    pub(crate) pins: Pins,
    root: PathBuf,
}

impl Drop for Bench {
    fn drop(&mut self) {
        remove_all(&self.root).unwrap();
    }
}

impl Bench {
    pub(crate) fn open(name: &str) -> Option<Self> {
        if !nix::unistd::Uid::effective().is_root() {
            eprintln!("skipped: loading BPF programs needs root");
            return None;
        }
        let root = Path::new("/sys/fs/bpf").join(format!("roadstead-live-{name}-{}", std::process::id()));
        let pins = Pins::open(&root).unwrap();
        let (programs, _, _) = Programs::load(pins.clone(), 1_024).unwrap();
        TestMaps::open(&pins).unwrap().fill(&state(), &[]).unwrap();
        Some(Self { programs, pins, root })
    }

    /// A datagram from the client through `uplink_in`.
    pub(crate) fn send(&self, sport: u16, port: u16) -> i32 {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [0; 6]).ipv4(CLIENT, VIP, 61).udp(sport, port);
        builder.write(&mut frame, b"payload").unwrap();
        self.programs.run("uplink_in", &frame).unwrap().verdict
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(roadstead_lab::program("roadstead").unwrap());
        command.args(arguments).arg("--bpffs").arg(&self.root).env_remove("ROADSTEAD_MANIFESTS");
        command
    }

    pub(crate) fn output(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// One Service at port 53 with an endpoint of this host, and one at 54 with none.
fn state() -> MemoryView {
    let mut state = MemoryView::default();
    let (vip, node) = (Addr::v4(VIP), Addr::v4([192, 0, 2, 1]));
    state.node =
        Some(NodeConfig { ipv4: node, node_port_first: 30_000, node_port_last: 32_767, ..NodeConfig::default() });
    state.node_addresses.insert(node, node_address::SERVES_NODE_PORTS);
    state.vips.insert(vip, kind::LOAD_BALANCER.into());
    assert_eq!(state.backend_id(Addr::v4([127, 0, 0, 9]), Be16::new(5_353)), BACKEND);
    let members = state.add_slots(&[BACKEND]);
    let set = EndpointSet { members, ..EndpointSet::default() };
    for (port, set, flags) in [(53, set, svc_flags::HAS_ENDPOINTS), (54, EndpointSet::default(), 0)] {
        let key = SvcKey { addr: vip, port: Be16::new(port), proto: 17, scope: scope::ADDRESS };
        let value = SvcValue {
            check: key.check().into(),
            service: SERVICE + u32::from(port) - 53,
            flags,
            kind: kind::LOAD_BALANCER,
            cluster: set,
            local: set,
            ..SvcValue::default()
        };
        state.services.insert(key, value);
    }
    state.fill_filter();
    state
}

/// Asks until the answer is yes, with pauses.
pub(crate) fn wait(what: &str, is_done: impl FnMut() -> bool) {
    roadstead_lab::wait_until(Duration::from_secs(20), what, is_done).unwrap();
}

/// Kills the command where a test fails.
pub(crate) struct Running(pub(crate) Option<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Running {
    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    pub(crate) fn finish(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}
