//! Cells of the tables, column for column those of `kubectl get`.

use std::net::IpAddr;

use roadstead_model::{
    EndpointSlice, Ingress, IngressStatus, IpAddressPool, Metadata, Node, Service, ServiceKind, Snapshot,
};

use super::{GetKind, Shown, object, speaker::Told};

/// The annotation that names the pool of a Service's addresses.
const POOL: &str = "metallb.io/ip-allocated-from-pool";

/// Headings of the plain table, and those that `-o wide` adds.
pub(super) fn headings(kind: GetKind) -> (&'static [&'static str], &'static [&'static str]) {
    match kind {
        GetKind::Services => (
            &["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"],
            &["SELECTOR", "POOL", "ANNOUNCED BY", "LACKS AN ADDRESS BECAUSE"],
        ),
        GetKind::Endpoints => (&["NAME", "ENDPOINTS", "AGE"], &["SLICES", "NODES"]),
        GetKind::Ingresses => (&["NAME", "CLASS", "HOSTS", "ADDRESS", "PORTS", "AGE"], &["SECRETS", "CONFLICTS"]),
        GetKind::Pools => {
            (&["NAME", "AUTO ASSIGN", "AVOID BUGGY IPS", "ADDRESSES"], &["ADVERTISED BY", "ASSIGNED", "AVAILABLE"])
        }
        GetKind::Nodes => (&["NAME", "INTERNAL-IP", "EXTERNAL-IP", "AGE"], &["POD-CIDRS", "ZONE"]),
    }
}

/// Every object of the kind, in order of names.
pub(super) fn all(kind: GetKind, snapshot: &Snapshot, told: &Told, now: i64) -> Vec<Shown> {
    match kind {
        GetKind::Services => snapshot.services.values().map(|service| self::service(service, told, now)).collect(),
        GetKind::Endpoints => {
            // A Service without endpoints is shown too: that it has none is what one looks for.
            let services = snapshot.services.values().filter(|service| !is_alias(service));
            let own = services.map(|service| endpoints(&service.meta, snapshot.slices_of(&service.meta.name), now));
            let strays = snapshot.slices.iter().filter(|(name, _)| !snapshot.services.contains_key(*name));
            let strays = strays.filter_map(|(name, slices)| {
                let meta = Metadata { name: name.clone(), ..slices.first()?.meta.clone() };
                Some(endpoints(&meta, slices, now))
            });
            let mut shown: Vec<_> = own.chain(strays).collect();
            shown.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
            shown
        }
        GetKind::Ingresses => snapshot.ingresses.values().map(|ingress| self::ingress(ingress, now)).collect(),
        GetKind::Pools => snapshot.pools.values().map(|pool| self::pool(pool, snapshot, told)).collect(),
        GetKind::Nodes => snapshot.nodes.values().map(|node| self::node(node, now)).collect(),
    }
}

fn is_alias(service: &Service) -> bool {
    matches!(service.kind, ServiceKind::ExternalName(_))
}

fn shown(meta: &Metadata, cells: Vec<String>, object: serde_json::Value) -> Shown {
    let (namespace, name) = (meta.name.namespace.to_string(), meta.name.name.to_string());
    Shown { namespace, name, cells, object, warnings: Vec::new() }
}

fn service(service: &Service, told: &Told, now: i64) -> Shown {
    let cluster_ip = match service.cluster_ips.first() {
        Some(ip) => ip.to_string(),
        None if is_alias(service) => String::new(),
        None => "None".to_owned(),
    };
    let ports = service.ports.iter().map(|port| match port.node_port {
        Some(node_port) => format!("{}:{node_port}/{}", port.port, port.protocol),
        None => format!("{}/{}", port.port, port.protocol),
    });
    let cells = vec![
        service.meta.name.name.to_string(),
        service.kind.as_str().to_owned(),
        cluster_ip,
        external_ip(service),
        ports.collect::<Vec<_>>().join(","),
        age(service.meta.created, now),
        pairs(&service.selector),
        service.meta.annotations.get(POOL).cloned().unwrap_or_default(),
        told.nodes(&service.meta.name),
        told.reason(&service.meta.name),
    ];
    shown(&service.meta, cells, object::service(service))
}

fn external_ip(service: &Service) -> String {
    let assigned = service.status.iter().map(|entry| entry.ip);
    match &service.kind {
        ServiceKind::ExternalName(name) => name.clone(),
        ServiceKind::LoadBalancer => {
            let all = join(assigned.chain(service.external_ips.iter().copied()));
            if all.is_empty() { "<pending>".to_owned() } else { all }
        }
        ServiceKind::ClusterIp | ServiceKind::NodePort => join(service.external_ips.iter().copied()),
    }
}

fn endpoints(meta: &Metadata, slices: &[std::sync::Arc<EndpointSlice>], now: i64) -> Shown {
    let mut addresses = Vec::new();
    let mut nodes = Vec::new();
    for slice in slices {
        for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.ready) {
            nodes.extend(endpoint.node.clone());
            for port in &slice.ports {
                addresses.push(std::net::SocketAddr::new(endpoint.ip, port.port.get()).to_string());
            }
        }
    }
    nodes.sort();
    nodes.dedup();
    let names: Vec<_> = slices.iter().map(|slice| slice.meta.name.name.to_string()).collect();
    let cells =
        vec![meta.name.name.to_string(), addresses.join(","), age(meta.created, now), names.join(","), nodes.join(",")];
    shown(meta, cells, object::endpoints(meta, slices))
}

fn ingress(ingress: &Ingress, now: i64) -> Shown {
    let mut hosts: Vec<String> = Vec::new();
    for rule in &ingress.rules {
        let host = rule.host.as_ref().map_or_else(|| "*".to_owned(), ToString::to_string);
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    let hosts = if hosts.is_empty() { "*".to_owned() } else { hosts.join(",") };
    let IngressStatus { addresses, conflicts } = &ingress.status;
    let secrets: Vec<_> =
        ingress.tls.iter().filter_map(|tls| tls.secret.as_ref()).map(|secret| secret.name.to_string()).collect();
    let cells = vec![
        ingress.meta.name.name.to_string(),
        ingress.class.clone().unwrap_or_default(),
        hosts,
        // An address that is not there yet shows as nothing, as kubectl does.
        if addresses.is_empty() { " ".to_owned() } else { join(addresses.iter().copied()) },
        if ingress.tls.is_empty() { "80" } else { "80, 443" }.to_owned(),
        age(ingress.meta.created, now),
        secrets.join(","),
        conflicts.join("; "),
    ];
    let warnings = conflicts.iter().map(|conflict| format!("Ingress {}: {conflict}", ingress.meta.name)).collect();
    Shown { warnings, ..shown(&ingress.meta, cells, object::ingress(ingress)) }
}

fn pool(pool: &IpAddressPool, snapshot: &Snapshot, told: &Told) -> Shown {
    let status = told.pool(&pool.meta.name);
    let ranges: Vec<_> = pool.addresses.iter().map(|range| format!("\"{range}\"")).collect();
    let advertisements = snapshot.l2_advertisements.values().filter(|advertisement| advertisement.covers(pool));
    let advertisements: Vec<_> = advertisements.map(|advertisement| advertisement.meta.name.name.to_string()).collect();
    let cells = vec![
        pool.meta.name.name.to_string(),
        pool.auto_assign.to_string(),
        pool.avoid_buggy_ips.to_string(),
        format!("[{}]", ranges.join(",")),
        advertisements.join(","),
        counts(status, "assigned"),
        counts(status, "available"),
    ];
    shown(&pool.meta, cells, object::pool(pool, status))
}

/// Both families' counters of a pool; one that reaches the end of its type counts endless addresses.
fn counts(status: Option<&serde_json::Value>, what: &str) -> String {
    let count = |family: &str| status?.get(format!("{what}{family}"))?.as_i64();
    let show = |count: i64| if count == i64::MAX { "endless".to_owned() } else { count.to_string() };
    let shown = ["IPv4", "IPv6"].map(|family| count(family).map(|count| format!("{} {family}", show(count))));
    shown.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn node(node: &Node, now: i64) -> Shown {
    let cidrs: Vec<_> = node.pod_cidrs.iter().map(ToString::to_string).collect();
    let cells = vec![
        node.meta.name.name.to_string(),
        join(node.internal_ips.iter().copied()),
        join(node.external_ips.iter().copied()),
        age(node.meta.created, now),
        cidrs.join(","),
        node.zone().unwrap_or_default().to_owned(),
    ];
    shown(&node.meta, cells, object::node(node))
}

fn join(ips: impl Iterator<Item = IpAddr>) -> String {
    ips.map(|ip| ip.to_string()).collect::<Vec<_>>().join(",")
}

fn pairs(labels: &roadstead_model::Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// As `duration.HumanDuration` of apimachinery.
pub(super) fn age(created: Option<i64>, now: i64) -> String {
    let Some(seconds) = created.map(|created| now.saturating_sub(created).max(0)) else {
        return "<unknown>".to_owned();
    };
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 192 => two(days, "d", hours % 24, "h"),
        () if days < 730 => format!("{days}d"),
        () if days < 2920 => two(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}
