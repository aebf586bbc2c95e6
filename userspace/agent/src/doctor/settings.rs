//! The settings of the network that Services and announced addresses depend on, and the devices.

use std::collections::BTreeSet;

use super::{
    DaemonName, Purpose,
    facts::{Facts, reverse_path_filter},
    finding::Finding,
};

pub(super) fn check(facts: &Facts, purpose: &Purpose) -> Vec<Finding> {
    let mut findings = Vec::new();
    if purpose.runs(DaemonName::Agent) {
        findings.push(forwarding(facts));
        findings.extend(forwarding_v6(facts));
        findings.push(devices(facts, purpose));
        findings.push(reverse_path(facts, purpose));
        findings.push(local_network(facts));
        findings.push(unprivileged(facts));
    }
    findings
}

fn forwarding(facts: &Facts) -> Finding {
    match facts.parameter("net/ipv4/ip_forward") {
        Some("1") => Finding::ok("forwarding", "IPv4 is forwarded"),
        _ => Finding::fail(
            "forwarding",
            "IPv4 is not forwarded: Services reach no pods from the network",
            "sysctl -w net.ipv4.ip_forward=1, and keep it in /etc/sysctl.d",
        ),
    }
}

/// A host without IPv6 needs none.
fn forwarding_v6(facts: &Facts) -> Option<Finding> {
    let found = facts.parameter("net/ipv6/conf/all/forwarding")?;
    let has_addresses = facts.devices.as_ref().is_some_and(|devices| devices.addresses().any(|ip| ip.is_ipv6()));
    Some(match found {
        "1" => Finding::ok("forwarding6", "IPv6 is forwarded"),
        _ if has_addresses => Finding::warn(
            "forwarding6",
            "IPv6 is not forwarded, though this host has addresses of it",
            "for Services with IPv6: sysctl -w net.ipv6.conf.all.forwarding=1 (with router advertisements also accept_ra=2)",
        ),
        _ => Finding::ok("forwarding6", "IPv6 is not forwarded, and this host has no addresses of it"),
    })
}

fn uplinks(facts: &Facts, purpose: &Purpose) -> Result<BTreeSet<String>, String> {
    let devices = facts.devices.as_ref().ok_or("the kernel does not list its devices")?;
    devices.uplinks(&purpose.devices, &[]).map_err(|error| error.to_string())
}

fn devices(facts: &Facts, purpose: &Purpose) -> Finding {
    let uplinks = match uplinks(facts, purpose) {
        Ok(uplinks) => uplinks,
        Err(error) => return Finding::fail("devices", error, "name an Ethernet device with --device"),
    };
    let absent = uplinks.iter().find(|name| !facts.devices.as_ref().is_some_and(|devices| devices.has(name)));
    if let Some(absent) = absent {
        return Finding::warn(
            "devices",
            format!("there is no device {absent}"),
            "the agent waits for it; is the name right?",
        );
    }
    if uplinks.is_empty() {
        return Finding::warn(
            "devices",
            "no Ethernet device has a default route",
            "the agent takes those with the Node's addresses; where there are none, name the device with --device",
        );
    }
    let pods = facts.devices.as_ref().map_or(0, |devices| devices.pods(&uplinks).len());
    let names: Vec<_> = uplinks.into_iter().collect();
    Finding::ok("devices", format!("{} towards the network, {pods} towards pods", names.join(", ")))
}

/// The higher one of "all" and the device's own value holds (Documentation/networking/ip-sysctl.rst).
fn reverse_path(facts: &Facts, purpose: &Purpose) -> Finding {
    let all = facts.number("net/ipv4/conf/all/rp_filter").unwrap_or(0);
    let uplinks = uplinks(facts, purpose).unwrap_or_default();
    let pods = facts.devices.as_ref().map(|devices| devices.pods(&uplinks)).unwrap_or_default();
    let strict: Vec<String> = pods
        .into_values()
        .filter(|device| facts.number(&reverse_path_filter(device)).unwrap_or(0).max(all) == 1)
        .collect();
    match strict.as_slice() {
        [] => Finding::ok("rp_filter", "no pod's device filters strictly by the reverse path"),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            Finding::warn(
                "rp_filter",
                format!("{first}{more} drops what comes from addresses behind another device"),
                "harmless with --socket-lb on; with off, write 0 or 2 to net.ipv4.conf.all.rp_filter and the device's own",
            )
        }
    }
}

/// kube-proxy sets it for node ports at 127.0.0.1, and forbids by a rule of its own what it opens (CVE-2020-8558). The
/// agent's node ports at localhost need neither.
fn local_network(facts: &Facts) -> Finding {
    match facts.parameter("net/ipv4/conf/all/route_localnet") {
        Some("1") => Finding::warn(
            "route_localnet",
            "127.0.0.0/8 of this host can be reached from its network, as kube-proxy leaves it",
            "once kube-proxy is gone: sysctl -w net.ipv4.conf.all.route_localnet=0",
        ),
        _ => Finding::ok("route_localnet", "127.0.0.0/8 stays on this host"),
    }
}

fn unprivileged(facts: &Facts) -> Finding {
    match facts.number("kernel/unprivileged_bpf_disabled") {
        Some(0) => Finding::warn(
            "unprivileged_bpf",
            "every user may load BPF programs",
            "nothing of ours needs it: sysctl -w kernel.unprivileged_bpf_disabled=2",
        ),
        _ => Finding::ok("unprivileged_bpf", "only who has the right may load BPF programs"),
    }
}
