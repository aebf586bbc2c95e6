//! The Debian package on hosts that boot: its units serve, come back, are upgraded under traffic and leave nothing behind.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use roadstead_lab::{Lab, Probe, Topology, wait_until};

use super::{
    machine::{Ground, LATE, Machine, UNITS},
    site::{assigned, furnish, owner, ready, start},
};

/// New connections a second.
const RATE: u32 = 50;
/// How long traffic goes on after something happened.
const AFTER: Duration = Duration::from_secs(1);

#[test]
fn units_serve_come_back_are_upgraded_and_leave_nothing_behind() {
    let Some(ground) = Ground::find() else { return };
    let lab = Lab::with("units", Topology::default()).unwrap();
    let _pods = furnish(&lab);
    let machine = ground.boot(&lab, lab.node("node-a"));
    ground.install(&machine);
    for unit in UNITS {
        let state = ["UnitFileState", "ActiveState"].map(|name| machine.property(unit, name));
        assert_eq!(state, ["disabled", "inactive"], "{unit} after the installation");
    }
    start(&ground, &machine, "");
    let pair = assigned(&lab, &machine, "pair");
    let host = IpAddr::from(lab.node("node-a").host().v4());
    let at = |port: u16| pair.map(|ip| SocketAddr::new(ip, port));
    let request = Probe::http("http://shop.example.com/").at((host, 80));
    let redirected = lab.client().probe_once(&request).unwrap();
    assert!(redirected.outcome().contains("308"), "{}", redirected.outcome());

    let services: Vec<SocketAddr> = at(9001).into_iter().chain(at(9002)).chain([(host, 30901).into()]).collect();
    let holds: Vec<_> = services.iter().map(|to| lab.client().hold(*to).unwrap()).collect();
    let loads: Vec<_> = services.iter().map(|to| lab.client().load(*to, RATE).unwrap()).collect();
    killed_daemons_come_back(&machine);
    an_upgrade_starts_them_anew(&ground, &machine);
    go_on();
    for load in loads {
        let report = load.finish().unwrap();
        assert!(report.failed == 0 && report.answered > 50, "{report:?}\n{}", machine.journal());
    }
    for hold in holds {
        let report = hold.finish().unwrap();
        assert!(report.error.is_none() && report.exchanged > 20, "{report:?}\n{}", machine.journal());
    }
    removed_it_leaves_nothing(&machine);
}

fn killed_daemons_come_back(machine: &Machine<'_>) {
    for unit in UNITS {
        let before = machine.property(unit, "MainPID");
        machine.run(&["systemctl", "kill", "--signal=KILL", &format!("{unit}.service")]);
        let restarted = || machine.property(unit, "NRestarts") == "1";
        wait_until(LATE, &format!("{unit} is started again"), restarted).unwrap();
        assert_ne!(ready(machine, unit), before, "{unit}");
    }
}

fn an_upgrade_starts_them_anew(ground: &Ground, machine: &Machine<'_>) {
    let before = UNITS.map(|unit| machine.property(unit, "MainPID"));
    ground.install(machine);
    let after = UNITS.map(|unit| ready(machine, unit));
    assert!(before.iter().zip(&after).all(|(before, after)| before != after), "{before:?} {after:?}");
    // What the administrator has written is still there.
    assert!(machine.output(&["cat", "/etc/roadstead/agent.yaml"]).contains("eth0"));
}

fn removed_it_leaves_nothing(machine: &Machine<'_>) {
    for unit in UNITS {
        machine.run(&["systemctl", "stop", unit]);
        let end = ["Result", "ExecMainStatus"].map(|name| machine.property(unit, name));
        assert_eq!(end, ["success", "0"], "{unit}: {}", machine.journal());
    }
    machine.run(&["systemctl", "start", UNITS[0], UNITS[1], UNITS[2]]);
    machine.run(&["dpkg", "--remove", "roadstead"]);
    for unit in UNITS {
        assert_eq!(machine.property(unit, "LoadState"), "not-found", "{unit}");
    }
    let left = ["/sys/fs/bpf/roadstead", "/etc/systemd/system/multi-user.target.wants/roadstead.service"];
    assert!(left.iter().all(|path| !machine.path(path).is_symlink() && !machine.path(path).exists()), "{left:?}");
    assert!(machine.path("/var/lib/roadstead/status").is_dir() && machine.path("/etc/roadstead/agent.yaml").is_file());
    machine.run(&["dpkg", "--purge", "roadstead"]);
    let gone = ["/var/lib/roadstead", "/etc/roadstead/agent.yaml", "/etc/default/roadstead"];
    assert!(
        gone.iter().all(|path| !machine.path(path).exists()),
        "{}",
        machine.output(&["ls", "-R", "/etc/roadstead"])
    );
    // Manifests and keys are the administrator's.
    assert!(
        machine.path("/etc/roadstead/manifests/pair.yaml").is_file() && machine.path("/etc/roadstead/key").is_file()
    );
}

#[test]
fn connections_survive_planned_moves_between_hosts() {
    let Some(ground) = Ground::find() else { return };
    let lab = Lab::with("hosts", Topology::default()).unwrap();
    let _pods = furnish(&lab);
    let peers: Vec<String> = lab.nodes().iter().map(|node| format!("{}={}", node.name(), node.host().v4())).collect();
    let machines: Vec<Machine<'_>> = lab.nodes().iter().map(|node| ground.boot(&lab, node)).collect();
    for machine in &machines {
        start(&ground, machine, &peers.join(", "));
        speaker_may_write_its_maps_alone(machine);
    }
    let pair = assigned(&lab, &machines[0], "pair");
    let settled = |name: &str| {
        let answers = || pair.iter().all(|ip| owner(&lab, *ip).as_deref() == Some(name));
        wait_until(LATE, &format!("{name} answers for both"), answers).unwrap();
    };
    let first = owner(&lab, pair[0]).unwrap();
    let (from, others): (Vec<_>, Vec<_>) = machines.iter().partition(|machine| machine.name() == first);
    settled(&first);

    let to = [9001, 9002].into_iter().flat_map(|port| pair.map(|ip| SocketAddr::new(ip, port)));
    let holds: Vec<_> = to.map(|to| lab.client().hold(to).unwrap()).collect();
    go_on();
    from[0].run(&["systemctl", "stop", "roadstead-speaker"]);
    settled(others[0].name());
    go_on();
    from[0].run(&["systemctl", "start", "roadstead-speaker"]);
    settled(&first);
    go_on();
    for hold in holds {
        let report = hold.finish().unwrap();
        let journals = || machines.iter().map(Machine::journal).collect::<Vec<_>>().join("\n");
        assert!(report.error.is_none() && report.exchanged > 20, "{report:?}\n{}", journals());
    }
}

/// The speaker is nobody, with raw sockets, and of what is pinned it may write its own maps.
fn speaker_may_write_its_maps_alone(machine: &Machine<'_>) {
    let process = machine.property("roadstead-speaker", "MainPID");
    let status = machine.run(&["cat", &format!("/proc/{process}/status")]);
    let rights = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    assert_eq!(u64::from_str_radix(rights, 16).unwrap(), 1 << 13, "CAP_NET_RAW and nothing else");
    let find = ["find", "/sys/fs/bpf/roadstead", "-type", "f", "-group", "roadstead-speaker", "-perm", "660"];
    assert_eq!(machine.run(&find).lines().count(), 3);
    let writable = ["find", "/sys/fs/bpf/roadstead", "-type", "f", "-perm", "/0077"];
    assert_eq!(machine.run(&writable).lines().count(), 3, "{}", machine.run(&writable));
}

/// Lets the traffic run for a while.
fn go_on() {
    let end = Instant::now() + AFTER;
    wait_until(LATE, "the traffic has gone on", || Instant::now() > end).unwrap();
}
