//! A speaker that is nobody, with raw sockets alone, tells the agent's programs who announces what: by the group that the
//! agent gives the speaker's maps to, as the pods of `deploy/` do.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, chown},
    process::Command,
};

use nix::sys::signal::Signal;
use roadstead_lab::{Program, wait_until};

use super::{
    fixture::{LATE, READY},
    segment::{FIRST, Segment},
};

/// The user and the group of the pods.
const NOBODY: u32 = 65532;

#[test]
fn a_speaker_without_rights_to_bpf_writes_its_maps() {
    let Some(segment) = Segment::alone("unprivileged") else { return };
    let node = segment.lab.node("node-a");
    let mut agent = node.command(Program::Agent).unwrap();
    agent.args(["--speaker-group", &NOBODY.to_string()]);
    let agent = node.start_with(Program::Agent, agent).unwrap();
    agent.wait_ready(READY).unwrap();
    let version = |name: &str| {
        fs::read_dir(node.bpffs())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(name))
    };
    let modes = |folder: &std::path::Path| -> Vec<(u32, u32)> {
        let entries = fs::read_dir(folder.join("maps")).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
        entries.map(|data| (data.gid(), data.mode() & 0o777)).collect()
    };
    let speakers = modes(&version("speaker-").unwrap());
    assert!(speakers.len() == 3 && speakers.iter().all(|pin| *pin == (NOBODY, 0o660)), "{speakers:?}");
    let others = modes(&version("v").unwrap());
    assert!(others.len() > 5 && others.iter().all(|pin| *pin == (0, 0o600)), "{others:?}");

    chown(node.state_dir(), Some(NOBODY), Some(NOBODY)).unwrap();
    let speaker = node.command(Program::Speaker).unwrap();
    let mut nobody = Command::new("setpriv");
    let (user, group) = (format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"));
    nobody.args([&user, &group, "--clear-groups", "--no-new-privs", "--bounding-set=-all,+net_raw"]);
    nobody
        .args(["--inh-caps=-all,+net_raw", "--ambient-caps=-all,+net_raw"])
        .arg(speaker.get_program())
        .args(speaker.get_args())
        .args(["--responder", "ebpf"]);
    let speaker = node.start_with(Program::Speaker, nobody).unwrap();
    speaker.wait_ready(READY).unwrap();
    // Where it cannot open the maps it says so before it starts.
    wait_until(LATE, "the speaker has started", || speaker.log().contains("started")).unwrap();
    assert!(!speaker.log().contains("no agent's programs yet"), "{}", speaker.log());
    let status = fs::read_to_string(format!("/proc/{}/status", speaker.pid())).unwrap();
    let rights = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    assert_eq!(u64::from_str_radix(rights, 16).unwrap(), 1 << 13, "CAP_NET_RAW and nothing else");

    // What it has written, the programs answer by: it stands still itself, within the lease that it gave them.
    segment.wait_owned(FIRST);
    speaker.signal(Signal::SIGSTOP).unwrap();
    let answered = FIRST.map(|ip| segment.owner(ip));
    speaker.signal(Signal::SIGCONT).unwrap();
    assert_eq!(answered.map(|owner| owner.as_deref() == Some("node-a")), [true, true], "{}", speaker.log());
}
