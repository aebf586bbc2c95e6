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

/// What the annotations under our name and MetalLB's two ask for; ours goes first.
fn requests(spec: &core::ServiceSpec, meta: &Metadata, read: &mut LoadBalancerSpec, findings: &mut Findings) {
    let annotation = |name: &str| {
        let keys = ["roadstead.dev", "metallb.io", "metallb.universe.tf"].map(|prefix| format!("{prefix}/{name}"));
        keys.into_iter().find_map(|key| meta.annotations.get(&key).map(|value| (key, value.clone())))
    };
    let requested = annotation("loadBalancerIPs")
        .map(|(key, value)| (format!("metadata.annotations[{key}]"), value))
        .or_else(|| {
            let ip = spec.load_balancer_ip.clone().filter(|ip| !ip.is_empty())?;
            Some(("spec.loadBalancerIP".to_owned(), ip))
        });
    if let Some((field, value)) = requested {
        read.requested_ips = value.split(',').filter_map(|ip| findings.routable_ip(&field, ip.trim())).collect();
    }
    read.requested_pool = annotation("address-pool").map(|(_, value)| value);
    read.sharing_key = annotation("allow-shared-ip").map(|(_, value)| value);
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
