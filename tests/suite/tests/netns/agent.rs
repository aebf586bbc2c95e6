//! Agents that are killed and started again: forwarding does not notice.

use std::{path::Path, process::Command, time::Duration};

use nix::sys::signal::Signal;
use roadstead_lab::{Daemon, HoldReport, Lab, Node, Probe, Program, Running, demo::Cluster, program, wait_until};

use super::fixture::{PAIR, READY, WEB, assigned, at, lab, served_for, settle};

/// New connections a second, while agents end and begin.
const RATE: u32 = 200;
/// Longer than the agent's tick and the grace after which it frees what nobody uses.
const SETTLED: Duration = Duration::from_millis(2_500);

#[test]
fn agents_that_end_and_begin_are_not_noticed() {
    let Some(lab) = lab("agents") else { return };
    let cluster = Cluster::start(&lab).unwrap();
    lab.apply(PAIR.0, PAIR.1).unwrap();
    let pair = assigned(&cluster, "pair");
    settle(&cluster, &[cluster.web, pair].concat());
    let mut agents = take_over(&cluster);
    let holds = hold_all(&cluster, pair);
    let [node_port, _] = at(lab.node("node-a").host(), 30900);
    let [_, address] = Cluster::at(cluster.web, 9000);
    let loads = [node_port, address].map(|to| lab.client().load(to, RATE).unwrap());
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let before: Vec<_> = agents.iter().map(fill).collect();
        agents.iter().for_each(|agent| end(agent, signal));
        served_for(Duration::from_millis(300), lab.client(), &Probe::tcp(node_port), &WEB);
        agents = start(&lab);
        served_for(SETTLED, lab.client(), &Probe::tcp(address), &WEB);
        for (agent, before) in agents.iter().zip(before) {
            assert!(!agent.log().contains("programmed"), "the maps held it all:\n{}", agent.log());
            assert_eq!(fill(agent), before, "after {signal}");
        }
    }
    for _ in 0..3 {
        killed_at_its_start(&lab, &agents);
        agents = start(&lab);
    }
    served_for(SETTLED, lab.client(), &Probe::tcp(node_port), &WEB);
    for load in loads {
        let report = load.finish().unwrap();
        assert!(report.failed == 0 && report.answered > 100, "{report:?}");
        assert!(WEB.iter().all(|name| report.names.contains_key(*name)), "{report:?}");
    }
    for (name, hold) in holds {
        let report = hold.finish().unwrap();
        assert_eq!((report.error.as_deref(), report.name.as_deref()), (None, Some(name)), "{report:?}");
        assert!(report.exchanged > 20, "{report:?}");
    }
}

#[test]
fn an_upgrade_to_another_layout_of_the_maps_is_not_noticed() {
    let Some(lab) = lab("upgrade") else { return };
    let Ok(next) = program("roadstead-next") else {
        eprintln!("skipped: no agent of the next ABI version is built, which cargo xtask test does");
        return;
    };
    let cluster = Cluster::start(&lab).unwrap();
    lab.apply(PAIR.0, PAIR.1).unwrap();
    let pair = assigned(&cluster, "pair");
    settle(&cluster, &[cluster.web, pair].concat());
    let agents = take_over(&cluster);
    let holds = hold_all(&cluster, pair);
    let [node_port, _] = at(lab.node("node-a").host(), 30900);
    let [_, address] = Cluster::at(cluster.web, 9000);
    let loads = [node_port, address].map(|to| lab.client().load(to, RATE).unwrap());
    served_for(Duration::from_millis(500), lab.client(), &Probe::tcp(node_port), &WEB);
    agents.iter().for_each(|agent| end(agent, Signal::SIGKILL));
    let upgraded: Vec<_> = lab.nodes().iter().map(|node| start_other(node, &next)).collect();
    upgraded.iter().for_each(|agent| agent.wait_ready(READY).unwrap());
    for agent in &upgraded {
        assert!(agent.log().contains("taking over from an agent of another ABI version"), "{}", agent.log());
    }
    served_for(SETTLED, lab.client(), &Probe::tcp(address), &WEB);
    for load in loads {
        let report = load.finish().unwrap();
        assert!(report.failed == 0 && report.answered > 100, "{report:?}");
    }
    for (name, hold) in holds {
        let report = hold.finish().unwrap();
        assert_eq!((report.error.as_deref(), report.name.as_deref()), (None, Some(name)), "{report:?}");
        assert!(report.exchanged > 20, "{report:?}");
    }
    for node in lab.nodes() {
        // The speaker's maps have a version of their own, and stay.
        let names = std::fs::read_dir(node.bpffs()).unwrap().map(|entry| entry.unwrap().file_name());
        let versions = names.filter(|name| name.to_str().unwrap().starts_with('v')).count();
        assert_eq!(versions, 1, "{}: what the earlier agent pinned is gone", node.name());
    }
}

/// Another build of the agent, with the flags of the node's own.
fn start_other(node: &Node, agent: &Path) -> Daemon {
    let command = node.command(Program::Agent).unwrap();
    let mut other = Command::new(agent);
    other.args(command.get_args());
    node.start_with(Program::Agent, other).unwrap()
}

/// Agents that do not get far: each is killed a little later than the last one.
fn killed_at_its_start(lab: &Lab, agents: &[Daemon]) {
    agents.iter().for_each(|agent| end(agent, Signal::SIGKILL));
    let steps = ["desired state changed", "attached to the uplinks", "serving"];
    for (step, node) in steps.into_iter().flat_map(|step| lab.nodes().iter().map(move |node| (step, node))) {
        let agent = node.start(Program::Agent).unwrap();
        wait_until(READY, step, || agent.log().contains(step)).unwrap();
        end(&agent, Signal::SIGKILL);
    }
}

/// Agents whose handles are this test's, in the place of the cluster's.
fn take_over(cluster: &Cluster<'_>) -> Vec<Daemon> {
    cluster.lab.nodes().iter().for_each(|node| cluster.kill(node, Program::Agent).unwrap());
    start(cluster.lab)
}

fn start(lab: &Lab) -> Vec<Daemon> {
    let agents: Vec<_> = lab.nodes().iter().map(|node| node.start(Program::Agent).unwrap()).collect();
    agents.iter().for_each(|agent| agent.wait_ready(READY).unwrap());
    agents
}

fn end(agent: &Daemon, signal: Signal) {
    if signal == Signal::SIGKILL {
        return agent.kill().unwrap();
    }
    let status = agent.terminate(READY).unwrap();
    assert!(status.success(), "{status}: {}", agent.log_tail(5));
}

/// Held connections through node ports and the pool's address, to a backend of the node that gets the packets and to
/// one of the other node, with the name of who is held.
fn hold_all(cluster: &Cluster<'_>, pair: [std::net::IpAddr; 2]) -> Vec<(&'static str, Running<HoldReport>)> {
    let client = cluster.lab.client();
    let node_a = cluster.lab.node("node-a").host();
    let near = [at(node_a, 30901), Cluster::at(pair, 9001)].concat().into_iter().map(|to| ("api-1", to));
    let far = [at(node_a, 30902), Cluster::at(pair, 9002)].concat().into_iter().map(|to| ("web-2", to));
    near.chain(far).map(|(name, to)| (name, client.hold(to).unwrap())).collect()
}

/// How full the agent's tables are.
fn fill(agent: &Daemon) -> Vec<String> {
    let (status, text) = agent.get("/metrics").unwrap();
    assert_eq!(status, 200);
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("roadstead_agent_map_entries{")).collect();
    assert!(!lines.is_empty(), "{text}");
    lines.into_iter().map(str::to_owned).collect()
}
