//! Programs that do the same work on this host, what they have left in the kernel, and who holds the daemons' ports.
//!
//! A rival that can be lived with for a while is a warning, for every move begins with both at work; one that takes a port
//! or an address away is in the way.

use super::{
    DaemonName, Purpose,
    facts::Facts,
    finding::Finding,
    listeners::{HTTP, HTTPS, Listener, MEMBERSHIP, Protocol},
    processes::Process,
    rulesets::Seen,
};

pub(super) fn check(facts: &Facts, purpose: &Purpose) -> Vec<Finding> {
    let mut findings = Vec::new();
    if purpose.runs(DaemonName::Agent) {
        findings.push(kube_proxy(facts));
        findings.extend(ipvs(facts));
        findings.push(cilium(facts));
    }
    if purpose.runs(DaemonName::Speaker) {
        findings.push(metallb(facts));
        findings.extend(membership(facts));
    }
    if purpose.runs(DaemonName::Ingress) {
        findings.push(ingress_nginx(facts));
        findings.extend(ports(facts));
    }
    findings
}

/// The running programs of a name which share this host's network.
fn running<'a>(facts: &'a Facts, name: &'a str) -> impl Iterator<Item = &'a Process> {
    facts.processes.iter().filter(move |process| process.name == name && process.shares_network)
}

/// Where kube-proxy's rules are: in tables of its own (nftables mode), or in chains beside others' (iptables mode).
fn traces(facts: &Facts) -> Vec<String> {
    let rulesets = [("nftables", &facts.rulesets.nftables), ("iptables-legacy", &facts.rulesets.legacy)];
    let mut traces = Vec::new();
    for (place, seen) in rulesets {
        for chain in seen.chains() {
            let own_table = place == "nftables" && chain.table == "kube-proxy";
            let trace = match (own_table, chain.name.as_str()) {
                (true, _) => format!("table {} kube-proxy of {place}", chain.family),
                (false, "KUBE-SERVICES") => {
                    format!("chain KUBE-SERVICES in table {} {} of {place}", chain.family, chain.table)
                }
                (false, _) => continue,
            };
            if !traces.contains(&trace) {
                traces.push(trace);
            }
        }
    }
    traces
}

fn kube_proxy(facts: &Facts) -> Finding {
    let traces = traces(facts);
    let process = running(facts, "kube-proxy").next();
    let unknown = [&facts.rulesets.nftables, &facts.rulesets.legacy].into_iter().find_map(|seen| match seen {
        Seen::Unknown(why) => Some(why.clone()),
        Seen::Chains(_) => None,
    });
    match (process, traces.as_slice(), unknown) {
        (Some(process), _, _) => {
            let rules = if traces.is_empty() { String::new() } else { format!(", with {}", traces.join(", ")) };
            Finding::warn(
                "kube-proxy",
                format!("kube-proxy runs (process {}){rules}", process.pid),
                "both may run while the agent takes over, which it does as soon as it is ready; then stop kube-proxy and run \
                 \"kube-proxy --cleanup\" on this host",
            )
        }
        (None, [_, ..], _) => Finding::warn(
            "kube-proxy",
            format!("kube-proxy has left {}", traces.join(", ")),
            "run \"kube-proxy --cleanup\" on this host: old rules send what the agent leaves alone to endpoints of the past",
        ),
        (None, [], Some(why)) => Finding::warn("kube-proxy", why, "as root, doctor sees them"),
        (None, [], None) => Finding::ok("kube-proxy", "no kube-proxy, and no rules of one"),
    }
}

/// In IPVS mode kube-proxy gives every Service's address to a device of every node, and each of them answers ARP for it
/// unless `arp_ignore` keeps it from that.
fn ipvs(facts: &Facts) -> Option<Finding> {
    let has_device = facts.devices.as_ref().is_some_and(|devices| devices.has("kube-ipvs0"));
    if !has_device {
        return (facts.ipvs_servers > 0).then(|| {
            Finding::warn(
                "ipvs",
                format!("IPVS has {} virtual servers", facts.ipvs_servers),
                "those of kube-proxy go by \"kube-proxy --cleanup\" or ipvsadm --clear",
            )
        });
    }
    let advice = "stop kube-proxy, run \"kube-proxy --cleanup\" on this host, or: ip link del kube-ipvs0";
    let found = "kube-ipvs0 has the Services' addresses";
    Some(match facts.number("net/ipv4/conf/all/arp_ignore") {
        None | Some(0) => {
            Finding::fail("ipvs", format!("{found}, and this host answers ARP for all of them (arp_ignore 0)"), advice)
        }
        Some(_) => Finding::warn("ipvs", found, advice),
    })
}

fn cilium(facts: &Facts) -> Finding {
    let process = running(facts, "cilium-agent").next();
    let device = facts.devices.as_ref().is_some_and(|devices| devices.has("cilium_host"));
    let found = match (process, device || facts.cilium_pins) {
        (Some(process), _) => format!("cilium-agent runs (process {})", process.pid),
        (None, true) => "Cilium has left devices or pinned maps".to_owned(),
        (None, false) => return Finding::ok("cilium", "no Cilium"),
    };
    let advice = "as a pod network it must leave Services alone: kubeProxyReplacement=false; its bpf masquerading comes behind the agent's programs";
    Finding::warn("cilium", found, advice)
}

fn metallb(facts: &Facts) -> Finding {
    // Others are called speaker too; MetalLB's has these flags in its manifests.
    let is_metallb = |process: &&Process| {
        process.arguments.iter().any(|argument| argument.starts_with("--port=") || argument.starts_with("--ml-"))
    };
    match running(facts, "speaker").find(is_metallb) {
        Some(process) => Finding::warn(
            "metallb",
            format!("MetalLB's speaker runs (process {})", process.pid),
            "side by side only with --lb-class and --listen-membership; else scale MetalLB down before roadstead-speaker starts",
        ),
        None => Finding::ok("metallb", "no speaker of MetalLB"),
    }
}

/// The speakers' heartbeats come to the port that MetalLB's members use.
fn membership(facts: &Facts) -> Option<Finding> {
    let held = facts.listeners.iter().find(|listener| {
        listener.protocol == Protocol::Udp
            && listener.at.port() == MEMBERSHIP
            && !is_owned_by(listener, "roadstead-speaker")
    })?;
    Some(Finding::fail(
        "membership",
        format!("UDP port {MEMBERSHIP} is in use by {}", owner(held)),
        "stop it, or give roadstead-speaker another port by --listen-membership (the same on all nodes)",
    ))
}

fn ingress_nginx(facts: &Facts) -> Finding {
    // In a network of its own it takes no port from us, but serves the same Ingresses.
    match facts.processes.iter().find(|process| process.name == "nginx-ingress-controller") {
        Some(process) => Finding::warn(
            "ingress-nginx",
            format!("ingress-nginx runs (process {})", process.pid),
            "both serve their own classes; roadstead-ingress run --ingress-class nginx takes its Ingresses over",
        ),
        None => Finding::ok("ingress-nginx", "no ingress-nginx"),
    }
}

fn ports(facts: &Facts) -> Vec<Finding> {
    let held = facts.listeners.iter().filter(|listener| {
        listener.protocol == Protocol::Tcp
            && [HTTP, HTTPS].contains(&listener.at.port())
            && !is_owned_by(listener, "roadstead-ingress")
    });
    let mut findings: Vec<Finding> = held
        .map(|listener| {
            Finding::fail(
                "ports",
                format!("{} is in use by {}", listener.at, owner(listener)),
                "stop it, or give roadstead-ingress other addresses by --http and --https",
            )
        })
        .collect();
    findings.dedup();
    if findings.is_empty() {
        findings.push(Finding::ok("ports", format!("{HTTP} and {HTTPS} are free, or roadstead-ingress has them")));
    }
    findings
}

fn is_owned_by(listener: &Listener, name: &str) -> bool {
    listener.owner.as_deref() == Some(name)
}

fn owner(listener: &Listener) -> &str {
    listener.owner.as_deref().unwrap_or("a program that cannot be seen (as root it can)")
}
