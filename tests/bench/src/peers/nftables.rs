//! Rules as kube-proxy's mode `nftables` writes them: verdict maps to a chain a Service, from there to a chain an
//! endpoint.

use std::net::Ipv4Addr;

use super::{Change, suffix};
use crate::state::{NAMESPACE, POD_CIDR, PORT, SERVICE_CIDR, Service};

/// Table, base chains, sets and maps. `NODE` stands for the node's address.
const BASE: &str = "\
add table ip kube-proxy { comment \"rules for kube-proxy\" ; }
add set ip kube-proxy cluster-ips { type ipv4_addr ; }
add set ip kube-proxy nodeport-ips { type ipv4_addr ; }
add map ip kube-proxy no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict ; }
add map ip kube-proxy no-endpoint-nodeports { type inet_proto . inet_service : verdict ; }
add map ip kube-proxy firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict ; }
add map ip kube-proxy service-ips { type ipv4_addr . inet_proto . inet_service : verdict ; }
add map ip kube-proxy service-nodeports { type inet_proto . inet_service : verdict ; }
add chain ip kube-proxy filter-prerouting-pre-dnat { type filter hook prerouting priority -110 ; }
add chain ip kube-proxy filter-output-pre-dnat { type filter hook output priority -110 ; }
add chain ip kube-proxy filter-input { type filter hook input priority 0 ; }
add chain ip kube-proxy filter-forward { type filter hook forward priority 0 ; }
add chain ip kube-proxy filter-output { type filter hook output priority 0 ; }
add chain ip kube-proxy nat-prerouting { type nat hook prerouting priority -100 ; }
add chain ip kube-proxy nat-output { type nat hook output priority -100 ; }
add chain ip kube-proxy nat-postrouting { type nat hook postrouting priority 100 ; }
add chain ip kube-proxy firewall-check
add chain ip kube-proxy nodeport-endpoints-check
add chain ip kube-proxy service-endpoints-check
add chain ip kube-proxy cluster-ips-check
add chain ip kube-proxy mark-for-masquerade
add chain ip kube-proxy masquerading
add chain ip kube-proxy services
add rule ip kube-proxy mark-for-masquerade mark set mark or 0x4000
add rule ip kube-proxy masquerading mark and 0x4000 == 0 return
add rule ip kube-proxy masquerading mark set mark xor 0x4000
add rule ip kube-proxy masquerading masquerade fully-random
add rule ip kube-proxy firewall-check ip daddr . meta l4proto . th dport vmap @firewall-ips
add rule ip kube-proxy nodeport-endpoints-check ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
add rule ip kube-proxy service-endpoints-check ip daddr . meta l4proto . th dport vmap @no-endpoint-services
add rule ip kube-proxy cluster-ips-check ip daddr @cluster-ips reject
add rule ip kube-proxy cluster-ips-check ip daddr SERVICES drop
add rule ip kube-proxy services ip daddr . meta l4proto . th dport vmap @service-ips
add rule ip kube-proxy services ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
add rule ip kube-proxy filter-prerouting-pre-dnat ct state new jump firewall-check
add rule ip kube-proxy filter-output-pre-dnat ct state new jump firewall-check
add rule ip kube-proxy filter-input ct state new jump nodeport-endpoints-check
add rule ip kube-proxy filter-input ct state new jump service-endpoints-check
add rule ip kube-proxy filter-forward ct state new jump service-endpoints-check
add rule ip kube-proxy filter-forward ct state new jump cluster-ips-check
add rule ip kube-proxy filter-output ct state new jump service-endpoints-check
add rule ip kube-proxy filter-output ct state new jump cluster-ips-check
add rule ip kube-proxy nat-prerouting jump services
add rule ip kube-proxy nat-output jump services
add rule ip kube-proxy nat-postrouting jump masquerading
add element ip kube-proxy nodeport-ips { NODE }
";

/// The rules that are there without any Service.
pub(crate) fn base(node: Ipv4Addr) -> String {
    BASE.replace("NODE", &node.to_string()).replace("SERVICES", SERVICE_CIDR)
}

/// The chains and elements of Services.
pub(crate) fn services(services: &[Service]) -> String {
    services.iter().map(service).collect()
}

fn service(service: &Service) -> String {
    let chain = service_chain(service);
    let mut text = format!(
        "add chain ip kube-proxy {chain}\n\
         add element ip kube-proxy cluster-ips {{ {vip} }}\n\
         add element ip kube-proxy service-ips {{ {vip} . tcp . {PORT} : goto {chain} }}\n",
        vip = service.vip
    );
    for endpoint in &service.endpoints {
        text.push_str(&endpoint_rules(service, *endpoint));
    }
    text.push_str(&service_rules(service));
    if let Some(port) = service.node_port {
        let external = format!("external-{}", name(service));
        text.push_str(&format!(
            "add chain ip kube-proxy {external}\n\
             add rule ip kube-proxy {external} jump mark-for-masquerade\n\
             add rule ip kube-proxy {external} goto {chain}\n\
             add element ip kube-proxy service-nodeports {{ tcp . {port} : goto {external} }}\n"
        ));
    }
    text
}

/// The transaction that exchanges endpoints.
pub(crate) fn change(change: Change<'_>) -> String {
    let (added, removed) = change.endpoints();
    let mut text: String = added.iter().map(|endpoint| endpoint_rules(change.after, *endpoint)).collect();
    text.push_str(&format!("flush chain ip kube-proxy {}\n", service_chain(change.after)));
    text.push_str(&service_rules(change.after));
    for endpoint in removed {
        let chain = endpoint_chain(change.before, endpoint);
        text.push_str(&format!("flush chain ip kube-proxy {chain}\ndelete chain ip kube-proxy {chain}\n"));
    }
    text
}

fn service_rules(service: &Service) -> String {
    let chain = service_chain(service);
    let endpoints = service.endpoints.iter().enumerate();
    let targets: Vec<String> =
        endpoints.map(|(number, endpoint)| format!("{number} : goto {}", endpoint_chain(service, *endpoint))).collect();
    format!(
        "add rule ip kube-proxy {chain} ip daddr {} tcp dport {PORT} ip saddr != {POD_CIDR} jump mark-for-masquerade\n\
         add rule ip kube-proxy {chain} numgen random mod {} vmap {{ {} }}\n",
        service.vip,
        targets.len(),
        targets.join(" , ")
    )
}

fn endpoint_rules(service: &Service, endpoint: Ipv4Addr) -> String {
    let chain = endpoint_chain(service, endpoint);
    format!(
        "add chain ip kube-proxy {chain}\n\
         add rule ip kube-proxy {chain} ip saddr {endpoint} jump mark-for-masquerade\n\
         add rule ip kube-proxy {chain} meta l4proto tcp dnat to {endpoint}:{}\n",
        service.target_port
    )
}

fn name(service: &Service) -> String {
    format!("{}-{NAMESPACE}/{}/tcp/", suffix(&["service", &service.name], 8), service.name)
}

fn service_chain(service: &Service) -> String {
    format!("service-{}", name(service))
}

fn endpoint_chain(service: &Service, endpoint: Ipv4Addr) -> String {
    let address = format!("{endpoint}/{}", service.target_port);
    let own = suffix(&["endpoint", &service.name, &address], 8);
    format!("endpoint-{own}-{NAMESPACE}/{}/tcp/__{address}", service.name)
}
