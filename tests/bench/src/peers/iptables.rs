//! Rules as kube-proxy's mode `iptables` writes them: one list of all Services, from there to a chain a Service, from
//! there to a chain an endpoint.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::{Change, suffix};
use crate::state::{NAMESPACE, POD_CIDR, PORT, Service};

const FILTER: &str = "\
*filter
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

const NAT_CHAINS: &str = "\
*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
";

const NAT_RULES: &str = "\
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
";

const NODE_PORTS: &str = "\
-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" \
-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
";

/// All rules, for `iptables-restore`.
pub(crate) fn full(services: &[Service]) -> String {
    let mut text = format!("{FILTER}{NAT_CHAINS}");
    for service in services {
        text.push_str(&declare(service, &service.endpoints));
        if service.node_port.is_some() {
            text.push_str(&format!(":{} - [0:0]\n", external_chain(service)));
        }
    }
    text.push_str(NAT_RULES);
    for service in services {
        // Writing to a String cannot fail.
        let _ = write_portals(&mut text, service);
        text.push_str(&service_rules(service));
        text.extend(service.endpoints.iter().map(|endpoint| endpoint_rules(service, *endpoint)));
    }
    format!("{text}{NODE_PORTS}COMMIT\n")
}

/// The changed chains alone, for `iptables-restore --noflush`.
pub(crate) fn change(change: Change<'_>) -> String {
    let (added, removed) = change.endpoints();
    let mut text = format!("*nat\n{}", declare(change.after, &added));
    // A declared chain is emptied; one that is to go must be.
    text.extend(removed.iter().map(|endpoint| format!(":{} - [0:0]\n", endpoint_chain(change.before, *endpoint))));
    text.push_str(&service_rules(change.after));
    text.extend(added.iter().map(|endpoint| endpoint_rules(change.after, *endpoint)));
    text.extend(removed.iter().map(|endpoint| format!("-X {}\n", endpoint_chain(change.before, *endpoint))));
    format!("{text}COMMIT\n")
}

fn declare(service: &Service, endpoints: &[Ipv4Addr]) -> String {
    let mut text = format!(":{} - [0:0]\n", service_chain(service));
    text.extend(endpoints.iter().map(|endpoint| format!(":{} - [0:0]\n", endpoint_chain(service, *endpoint))));
    text
}

/// What leads to the Service's chain.
fn write_portals(text: &mut String, service: &Service) -> std::fmt::Result {
    let (chain, portal) = (service_chain(service), portal(service));
    writeln!(
        text,
        "-A KUBE-SERVICES -d {}/32 -p tcp -m comment --comment \"{portal} cluster IP\" -m tcp --dport {PORT} -j {chain}",
        service.vip
    )?;
    let Some(port) = service.node_port else { return Ok(()) };
    let external = external_chain(service);
    writeln!(
        text,
        "-A KUBE-NODEPORTS -p tcp -m comment --comment \"{portal}\" -m tcp --dport {port} -j {external}\n\
         -A {external} -m comment --comment \"masquerade traffic for {portal} external destinations\" -j KUBE-MARK-MASQ\n\
         -A {external} -j {chain}"
    )
}

fn service_rules(service: &Service) -> String {
    let (chain, portal) = (service_chain(service), portal(service));
    let mut text = format!(
        "-A {chain} ! -s {POD_CIDR} -d {}/32 -p tcp -m comment --comment \"{portal} cluster IP\" -m tcp --dport {PORT} \
         -j KUBE-MARK-MASQ\n",
        service.vip
    );
    let endpoints = service.endpoints.iter().enumerate();
    text.extend(endpoints.map(|(number, endpoint)| {
        let left = service.endpoints.len() - number;
        let chance = match left {
            1 => String::new(),
            left => format!(" -m statistic --mode random --probability {:.10}", 1.0 / left as f64),
        };
        let comment = format!("{portal} -> {endpoint}:{}", service.target_port);
        format!("-A {chain} -m comment --comment \"{comment}\"{chance} -j {}\n", endpoint_chain(service, *endpoint))
    }));
    text
}

fn endpoint_rules(service: &Service, endpoint: Ipv4Addr) -> String {
    let (chain, portal) = (endpoint_chain(service, endpoint), portal(service));
    format!(
        "-A {chain} -s {endpoint}/32 -m comment --comment \"{portal}\" -j KUBE-MARK-MASQ\n\
         -A {chain} -p tcp -m comment --comment \"{portal}\" -m tcp -j DNAT --to-destination {endpoint}:{}\n",
        service.target_port
    )
}

fn portal(service: &Service) -> String {
    format!("{NAMESPACE}/{}", service.name)
}

fn service_chain(service: &Service) -> String {
    format!("KUBE-SVC-{}", suffix(&["service", &service.name], 16))
}

fn external_chain(service: &Service) -> String {
    format!("KUBE-EXT-{}", suffix(&["service", &service.name], 16))
}

fn endpoint_chain(service: &Service, endpoint: Ipv4Addr) -> String {
    let address = format!("{endpoint}:{}", service.target_port);
    format!("KUBE-SEP-{}", suffix(&["endpoint", &service.name, &address], 16))
}
