//! What Services of type LoadBalancer carry: the fields of their own, the annotations that ask for addresses, status.

use k8s_openapi::api::core::v1 as core;
use roadstead_model::{IngressIpMode, LoadBalancerIngress, LoadBalancerSpec, Metadata, ServiceKind};

use crate::{findings::Findings, names};

pub(super) fn spec(
    spec: &core::ServiceSpec,
    kind: &ServiceKind,
    meta: &Metadata,
    findings: &mut Findings,
) -> LoadBalancerSpec {
    let mut read = LoadBalancerSpec::default();
    let balanced = *kind == ServiceKind::LoadBalancer;
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    if let Some(number) = spec.health_check_node_port.filter(|number| *number != 0) {
        if balanced && local {
            read.health_check_node_port = findings.port("spec.healthCheckNodePort", number);
        } else {
            let reason = "may only be set for type LoadBalancer with externalTrafficPolicy Local";
            findings.error("spec.healthCheckNodePort", reason);
        }
    }
    if !balanced {
        let only = "may only be set for type LoadBalancer";
        if spec.load_balancer_source_ranges.as_ref().is_some_and(|ranges| !ranges.is_empty()) {
            findings.error("spec.loadBalancerSourceRanges", only);
        }
        if spec.load_balancer_class.is_some() {
            findings.error("spec.loadBalancerClass", only);
        }
        if spec.allocate_load_balancer_node_ports.is_some() {
            findings.error("spec.allocateLoadBalancerNodePorts", only);
        }
        return read;
    }
    if let Some(class) = &spec.load_balancer_class {
        findings.form("spec.loadBalancerClass", class, names::is_qualified, names::QUALIFIED);
    }
    read.class.clone_from(&spec.load_balancer_class);
    for (index, text) in spec.load_balancer_source_ranges.iter().flatten().enumerate() {
        read.source_ranges.extend(findings.cidr(format_args!("spec.loadBalancerSourceRanges[{index}]"), text));
    }
    requests(spec, meta, &mut read, findings);
    read
}

/// Prefixes of the annotations that ask for addresses: ours goes first, and of MetalLB's the one in force before the old one.
const PREFIXES: [&str; 3] = ["roadstead.dev", "metallb.io", DEPRECATED];
const DEPRECATED: &str = "metallb.universe.tf";
/// The annotations that are read, and the one that MetalLB's controller writes.
const ANNOTATIONS: [&str; 4] = ["loadBalancerIPs", "address-pool", "allow-shared-ip", "ip-allocated-from-pool"];

/// What the annotations ask for. A mistake in them is the allocator's to answer: the API server takes such a Service, and
/// its cluster address serves.
fn requests(spec: &core::ServiceSpec, meta: &Metadata, read: &mut LoadBalancerSpec, findings: &mut Findings) {
    let annotation = |name: &str| {
        let keys = PREFIXES.map(|prefix| format!("{prefix}/{name}"));
        let found = keys.into_iter().find_map(|key| meta.annotations.get(&key).map(|value| (key, value.clone())));
        found.filter(|(_, value)| !value.is_empty())
    };
    spellings(meta, findings);
    let mut wrong = Vec::new();
    let by_field = spec.load_balancer_ip.clone().filter(|ip| !ip.is_empty());
    let requested = match (annotation("loadBalancerIPs"), by_field) {
        (Some((key, _)), Some(_)) => {
            let reason = format!("may not be set together with the annotation {key}");
            wrong.push(("spec.loadBalancerIP".to_owned(), reason));
            None
        }
        (Some((key, value)), None) => Some((format!("metadata.annotations[{key}]"), value)),
        (None, ip) => ip.map(|ip| ("spec.loadBalancerIP".to_owned(), ip)),
    };
    for (field, ip) in requested.iter().flat_map(|(field, all)| all.split(',').map(move |ip| (field, ip))) {
        let mut found = Findings::default();
        read.requested_ips.extend(found.routable_ip(field, ip.trim()));
        wrong.extend(found.0.into_iter().map(|finding| (finding.field, finding.reason)));
    }
    read.request_error = wrong.first().map(|(field, reason)| format!("{field}: {reason}"));
    for (field, reason) in wrong {
        findings.warn(field, format!("{reason}, so no address is assigned"));
    }
    read.requested_pool = annotation("address-pool").map(|(_, value)| value);
    read.sharing_key = annotation("allow-shared-ip").map(|(_, value)| value);
}

/// Tells of annotations of MetalLB's under its former name, and of those that neither it nor we know.
fn spellings(meta: &Metadata, findings: &mut Findings) {
    for key in meta.annotations.keys() {
        let Some((prefix, name)) = key.split_once('/') else { continue };
        let field = format!("metadata.annotations[{key}]");
        match (prefix, ANNOTATIONS.contains(&name)) {
            (DEPRECATED, true) => findings.warn(field, format!("is deprecated, write metallb.io/{name}")),
            (DEPRECATED | "metallb.io", false) => {
                findings.warn(field, format!("is not known, expected {}", ANNOTATIONS.join(", ")));
            }
            _ => {}
        }
    }
}

pub(super) fn status(wire: &core::Service, findings: &mut Findings) -> Vec<LoadBalancerIngress> {
    let words = [("VIP", IngressIpMode::Vip), ("Proxy", IngressIpMode::Proxy)];
    let balancer = wire.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let mut entries = Vec::new();
    for (index, entry) in balancer.iter().flat_map(|balancer| balancer.ingress.iter().flatten()).enumerate() {
        let at = format!("status.loadBalancer.ingress[{index}]");
        let Some(text) = entry.ip.as_deref().filter(|ip| !ip.is_empty()) else { continue };
        let mode = entry.ip_mode.as_deref().and_then(|mode| findings.word(format_args!("{at}.ipMode"), mode, &words));
        let ip = findings.ip(format_args!("{at}.ip"), text);
        entries.extend(ip.map(|ip| LoadBalancerIngress { ip, mode: mode.unwrap_or_default() }));
    }
    entries
}

#[cfg(test)]
mod tests {
    use roadstead_model::Service;

    use crate::{LoadOptions, load};

    /// The Service of these annotations and fields, and what is said about it.
    fn read(annotations: &str, fields: &str) -> (Service, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: s\n  annotations: {{{annotations}}}\n\
             spec: {{type: LoadBalancer, ports: [{{port: 80}}]{fields}}}\n"
        );
        std::fs::write(&path, text).unwrap();
        let snapshot = load(&[path], &LoadOptions::default());
        let problems = snapshot.problems.iter().map(|problem| {
            assert_eq!(problem.place.as_ref().unwrap().line, if problem.reason.contains("together") { 6 } else { 5 });
            format!("{}: {}", problem.field.as_deref().unwrap(), problem.reason)
        });
        let problems = problems.collect();
        (snapshot.services.values().next().unwrap().as_ref().clone(), problems)
    }

    #[test]
    fn what_is_asked_for_by_field_and_by_every_annotation() {
        let old = "metadata.annotations[metallb.universe.tf/loadBalancerIPs]: is deprecated";
        // Annotations, fields, the addresses, and the beginnings of what is said.
        let cases: [(&str, &str, &[&str], &[&str]); 12] = [
            ("", "", &[], &[]),
            ("", ", loadBalancerIP: 192.0.2.1", &["192.0.2.1"], &[]),
            ("", ", loadBalancerIP: \"\"", &[], &[]),
            ("metallb.io/loadBalancerIPs: 192.0.2.1", "", &["192.0.2.1"], &[]),
            ("roadstead.dev/loadBalancerIPs: 192.0.2.1", "", &["192.0.2.1"], &[]),
            ("metallb.io/loadBalancerIPs: \"192.0.2.1, 2001:db8::1\"", "", &["192.0.2.1", "2001:db8::1"], &[]),
            ("metallb.universe.tf/loadBalancerIPs: 192.0.2.1", "", &["192.0.2.1"], &[old]),
            (
                "metallb.universe.tf/loadBalancerIPs: 192.0.2.1, metallb.io/loadBalancerIPs: 192.0.2.2",
                "",
                &["192.0.2.2"],
                &[old],
            ),
            (
                "metallb.io/loadBalancerIPs: 192.0.2.1",
                ", loadBalancerIP: 192.0.2.1",
                &[],
                &["spec.loadBalancerIP: may not be set together with the annotation metallb.io/loadBalancerIPs"],
            ),
            (
                "metallb.io/loadBalancerIPs: \"192.0.2.1,web\"",
                "",
                &["192.0.2.1"],
                &["metadata.annotations[metallb.io/loadBalancerIPs]: \"web\" is no IP address"],
            ),
            (
                "metallb.io/loadBalancerIPs: 127.0.0.1",
                "",
                &[],
                &["metadata.annotations[metallb.io/loadBalancerIPs]: 127.0.0.1 is a loopback address"],
            ),
            (
                "metallb.io/loadBalancerIP: 192.0.2.1",
                "",
                &[],
                &["metadata.annotations[metallb.io/loadBalancerIP]: is not known, expected loadBalancerIPs"],
            ),
        ];
        for (annotations, fields, ips, said) in cases {
            let (service, problems) = read(annotations, fields);
            let found: Vec<_> = service.load_balancer.requested_ips.iter().map(ToString::to_string).collect();
            assert_eq!(found, ips, "{annotations} {fields}");
            assert_eq!(problems.len(), said.len(), "{problems:?}");
            let begins = problems.iter().zip(said).all(|(problem, said)| problem.starts_with(said));
            assert!(begins, "{problems:?} are not {said:?}");
            let wrong = problems.iter().any(|problem| problem.contains("no address is assigned"));
            assert_eq!(service.load_balancer.request_error.is_some(), wrong, "{annotations} {fields}");
        }
    }

    #[test]
    fn pools_and_keys_under_every_prefix() {
        for (prefix, deprecated) in [("roadstead.dev", 0), ("metallb.io", 0), ("metallb.universe.tf", 2)] {
            let (service, problems) = read(&format!("{prefix}/address-pool: lan, {prefix}/allow-shared-ip: \"k\""), "");
            assert_eq!(service.load_balancer.requested_pool.as_deref(), Some("lan"), "{prefix}");
            assert_eq!(service.load_balancer.sharing_key.as_deref(), Some("k"), "{prefix}");
            assert_eq!(problems.len(), deprecated, "{problems:?}");
        }
        let (service, _) = read("metallb.io/address-pool: \"\"", "");
        assert_eq!(service.load_balancer.requested_pool, None, "an empty annotation asks for nothing");
    }
}
