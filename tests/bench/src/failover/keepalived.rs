//! keepalived on a node: its configuration as its documentation has it, one VRRP instance for each family.
//!
//! It is started without its parent's daemonising, with files of its own, so that several run on one machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use roadstead_lab::{Lab, Node, Process};

use super::site::{VIP_V4, VIP_V6};

/// The names of the instances.
const INSTANCES: [&str; 2] = ["v4", "v6"];

/// How it is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tuning {
    /// What it does when nothing is said: an advertisement a second, five gratuitous ARPs at once and five 5 s later.
    Default,
    /// VRRPv3 with an advertisement every 40 ms, the second burst of gratuitous ARPs after a second, refreshed.
    Fast,
}

/// Starts it on a node; the first node has the highest priority.
pub(crate) fn start(lab: &Lab, node: &Node, place: usize, tuning: Tuning) -> Result<Process> {
    let file = |name: &str| lab.folder().join(format!("{}-{name}", node.name()));
    let config = file("keepalived.conf");
    let text = configuration(node.name(), place, tuning);
    fs::write(&config, text).with_context(|| format!("could not write {}", config.display()))?;
    let pids = [file("keepalived.pid"), file("vrrp.pid")];
    for pid in &pids {
        // Of a process that was killed; keepalived would take whoever has that number now for itself.
        let _none = fs::remove_file(pid);
    }
    node.host().spawn("keepalived", command(&config, &pids))
}

fn command(config: &Path, [pid, vrrp_pid]: &[PathBuf; 2]) -> Command {
    let mut command = Command::new("keepalived");
    command.args(["--dont-fork", "--log-console", "--vrrp", "--use-file"]).arg(config);
    command.arg("--pid").arg(pid).arg("--vrrp_pid").arg(vrrp_pid);
    command
}

/// Whether every instance has taken up its part, by the log.
pub(crate) fn is_armed(process: &Process) -> bool {
    let log = process.log();
    let state = |instance: &str| {
        let entered = format!("({instance}) Entering ");
        log.lines().rev().find_map(|line| line.split_once(&entered).map(|(_, state)| state))
    };
    let is_up = |state: &str| state.starts_with("MASTER") || state.starts_with("BACKUP");
    INSTANCES.iter().all(|instance| state(instance).is_some_and(is_up))
}

fn configuration(node: &str, place: usize, tuning: Tuning) -> String {
    let (global, interval, state) = match tuning {
        Tuning::Default => ("", "1", if place == 0 { "MASTER" } else { "BACKUP" }),
        Tuning::Fast => {
            ("  vrrp_version 3\n  vrrp_garp_master_delay 1\n  vrrp_garp_master_refresh 60\n", "0.04", "BACKUP")
        }
    };
    let priority = 150_usize.saturating_sub(50 * place).max(1);
    let instance = |name: &str, router: u8, address: &str| {
        format!(
            "vrrp_instance {name} {{\n  state {state}\n  interface eth0\n  virtual_router_id {router}\n  priority {priority}\n  \
             advert_int {interval}\n  virtual_ipaddress {{\n    {address} dev eth0\n  }}\n}}\n"
        )
    };
    let [v4, v6] = INSTANCES;
    [
        format!("global_defs {{\n  router_id {node}\n{global}}}\n"),
        instance(v4, 51, &format!("{VIP_V4}/32")),
        instance(v6, 52, &format!("{VIP_V6}/128")),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_node_has_the_highest_priority() {
        let first = configuration("node-a", 0, Tuning::Default);
        assert!(first.contains("state MASTER") && first.contains("priority 150") && first.contains("advert_int 1\n"));
        let second = configuration("node-b", 1, Tuning::Fast);
        assert!(
            second.contains("state BACKUP") && second.contains("priority 100") && second.contains("advert_int 0.04")
        );
        assert_eq!(second.matches("vrrp_instance").count(), 2);
    }
}
