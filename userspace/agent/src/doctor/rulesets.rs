//! The chains of the kernel's packet filters: those of nftables, where iptables-nft keeps its own too, by netlink; those
//! of iptables-legacy by the program that lists them, for the kernel tells them by no other way than its private layout.

use std::{fs, io, process::Command};

use nix::errno::Errno;

use crate::netlink::{Chain, Kernel};

/// What is in the kernel.
#[derive(Debug, Default)]
pub(super) struct Rulesets {
    pub(super) nftables: Seen,
    pub(super) legacy: Seen,
}

/// The chains of one of them, or why they are not known.
#[derive(Debug)]
pub(super) enum Seen {
    Chains(Vec<Chain>),
    Unknown(String),
}

impl Default for Seen {
    fn default() -> Self {
        Self::Chains(Vec::new())
    }
}

impl Seen {
    /// The chains that are known.
    pub(super) fn chains(&self) -> &[Chain] {
        match self {
            Self::Chains(chains) => chains,
            Self::Unknown(_) => &[],
        }
    }
}

/// Looks at the network namespace of this process.
pub(super) fn look() -> Rulesets {
    Rulesets { nftables: nftables(), legacy: legacy() }
}

fn nftables() -> Seen {
    match Kernel::open_netfilter().and_then(|mut kernel| kernel.chains()) {
        Ok(chains) => Seen::Chains(chains),
        Err(error) if is_absent(&error) => Seen::default(),
        Err(error) => Seen::Unknown(format!("the kernel does not list the chains of nftables: {error}")),
    }
}

/// What a kernel without nftables answers.
fn is_absent(error: &io::Error) -> bool {
    let absent = [Errno::EINVAL, Errno::EOPNOTSUPP, Errno::EPROTONOSUPPORT];
    absent.iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}

/// IPv4 and IPv6, with the program that lists the tables that the kernel says are in use.
const LEGACY: [(&str, &str, &str); 2] = [
    ("ip", "/proc/self/net/ip_tables_names", "iptables-legacy-save"),
    ("ip6", "/proc/self/net/ip6_tables_names", "ip6tables-legacy-save"),
];

fn legacy() -> Seen {
    let mut chains = Vec::new();
    for (family, names, program) in LEGACY {
        let tables = match fs::read_to_string(names) {
            Ok(tables) => tables,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Seen::Unknown(format!("cannot read {names}: {error}")),
        };
        // Asking for a table makes it, so only those in use are asked for.
        for table in tables.lines().filter(|table| ["nat", "filter", "mangle"].contains(table)) {
            match Command::new(program).args(["-t", table]).output() {
                Ok(output) if output.status.success() => {
                    chains.extend(saved(family, table, &String::from_utf8_lossy(&output.stdout)));
                }
                Ok(output) => return Seen::Unknown(format!("{program} failed ({})", output.status)),
                Err(_) => {
                    return Seen::Unknown(format!(
                        "iptables-legacy is in use, and {program} is not there to list its chains"
                    ));
                }
            }
        }
    }
    Seen::Chains(chains)
}

/// The chains of what iptables-save prints, `:NAME POLICY [0:0]` each.
fn saved(family: &str, table: &str, text: &str) -> Vec<Chain> {
    let names = text.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
    names.map(|name| Chain { family: family.to_owned(), table: table.to_owned(), name: name.to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_iptables_save_are_read() {
        let text = "# Generated\n*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\nCOMMIT\n";
        let names: Vec<_> = saved("ip", "nat", text).into_iter().map(|chain| chain.name).collect();
        assert_eq!(names, ["PREROUTING", "KUBE-SERVICES"]);
    }
}
