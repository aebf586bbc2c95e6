//! Services: what `ValidateService` of Kubernetes asks, and the defaults of its `SetDefaults_Service`.

use std::{collections::BTreeSet, net::IpAddr};

use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::util::intstr::IntOrString};
use roadstead_model::{
    FamilyPolicy, IpFamily, Metadata, Selection, Service, ServiceKind, ServicePort, TargetPort, TrafficPolicy,
    UnknownSelection,
};

use super::{load_balancer, metadata};
use crate::{
    findings::Findings,
    limits, names,
    object::{Draft, Kind, Object},
};

const POLICIES: [(&str, TrafficPolicy); 2] = [("Cluster", TrafficPolicy::Cluster), ("Local", TrafficPolicy::Local)];
const FAMILIES: [(&str, IpFamily); 2] = [("IPv4", IpFamily::V4), ("IPv6", IpFamily::V6)];

pub(super) fn service(wire: &core::Service, findings: &mut Findings) -> Option<Object> {
    let meta = metadata(Kind::Service, &wire.metadata, findings);
    let Some(spec) = &wire.spec else {
        findings.error("spec", "is missing");
        return None;
    };
    let kind = kind(spec, findings)?;
    let headless =
        spec.cluster_ip.as_deref() == Some("None") || spec.cluster_ips.iter().flatten().any(|ip| ip == "None");
    let external = matches!(kind, ServiceKind::NodePort | ServiceKind::LoadBalancer);
    if headless && external {
        findings.error("spec.clusterIP", format!("may not be None for a Service of type {}", kind.as_str()));
    }
    let cluster_ips = if headless { Vec::new() } else { cluster_ips(spec, &kind, findings) };
    let service = Service {
        selector: selector(spec, findings),
        ip_families: families(spec, &cluster_ips, findings),
        family_policy: FamilyPolicy::default(),
        ports: ports(spec, &kind, headless, findings),
        external_ips: external_ips(spec, findings),
        external_policy: external_policy(spec, external, findings),
        internal_policy: policy("spec.internalTrafficPolicy", spec.internal_traffic_policy.as_deref(), findings),
        affinity_seconds: affinity(spec, findings),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        traffic_distribution: traffic_distribution(spec, findings),
        selection: selection(&meta, findings),
        load_balancer: load_balancer::spec(spec, &kind, &meta, findings),
        status: load_balancer::status(wire, findings),
        cluster_ips,
        kind,
        meta,
    };
    limits::warn(&service, findings);
    let service = Service { family_policy: family_policy(spec, &service, findings), ..service };
    let allocate_node_ports = spec.allocate_load_balancer_node_ports.unwrap_or(true);
    let draft = Draft { service: service.into(), headless, allocate_node_ports };
    (!findings.has_errors()).then(|| Object::Service(draft.into()))
}

fn kind(spec: &core::ServiceSpec, findings: &mut Findings) -> Option<ServiceKind> {
    Some(match spec.type_.as_deref().unwrap_or("ClusterIP") {
        "ClusterIP" => ServiceKind::ClusterIp,
        "NodePort" => ServiceKind::NodePort,
        "LoadBalancer" => ServiceKind::LoadBalancer,
        "ExternalName" => {
            let name = spec.external_name.clone().unwrap_or_default();
            findings.subdomain("spec.externalName", name.strip_suffix('.').unwrap_or(&name));
            ServiceKind::ExternalName(name)
        }
        other => {
            let known = "ClusterIP, NodePort, LoadBalancer or ExternalName";
            findings.error("spec.type", format!("{other:?} is not known, expected {known}"));
            return None;
        }
    })
}

fn cluster_ips(spec: &core::ServiceSpec, kind: &ServiceKind, findings: &mut Findings) -> Vec<IpAddr> {
    let first = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty());
    let listed = spec.cluster_ips.as_deref().unwrap_or_default();
    if matches!(kind, ServiceKind::ExternalName(_)) && (first.is_some() || !listed.is_empty()) {
        findings.error("spec.clusterIP", "may not be set for a Service of type ExternalName");
        return Vec::new();
    }
    if let (Some(first), Some(head)) = (first, listed.first())
        && first != head
    {
        findings.error("spec.clusterIPs[0]", format!("is {head}, but spec.clusterIP is {first}"));
    }
    let texts: Vec<(String, &str)> = if listed.is_empty() {
        first.map(|ip| ("spec.clusterIP".to_owned(), ip)).into_iter().collect()
    } else {
        listed.iter().enumerate().map(|(index, ip)| (format!("spec.clusterIPs[{index}]"), ip.as_str())).collect()
    };
    let mut ips: Vec<IpAddr> = Vec::new();
    for (field, text) in texts {
        let Some(ip) = findings.routable_ip(&field, text) else { continue };
        if ips.iter().any(|other| other.is_ipv4() == ip.is_ipv4()) {
            findings.error(field, "at most one address of each family may be given");
            continue;
        }
        ips.push(ip);
    }
    ips
}

/// As written, else those of the addresses; `assign` completes them by policy.
fn families(spec: &core::ServiceSpec, cluster_ips: &[IpAddr], findings: &mut Findings) -> Vec<IpFamily> {
    let mut families = Vec::new();
    for (index, text) in spec.ip_families.iter().flatten().enumerate() {
        let field = format!("spec.ipFamilies[{index}]");
        let Some(family) = findings.word(&field, text, &FAMILIES) else { continue };
        if families.contains(&family) {
            findings.error(field, format!("{family} is given twice"));
        }
        families.push(family);
    }
    for (index, ip) in cluster_ips.iter().enumerate() {
        let family = IpFamily::of(*ip);
        match families.get(index) {
            Some(wanted) if *wanted != family => {
                findings.error(format_args!("spec.ipFamilies[{index}]"), format!("is {wanted}, but {ip} is {family}"));
            }
            Some(_) => {}
            None => families.push(family),
        }
    }
    families
}

fn family_policy(spec: &core::ServiceSpec, service: &Service, findings: &mut Findings) -> FamilyPolicy {
    let words = [
        ("SingleStack", FamilyPolicy::SingleStack),
        ("PreferDualStack", FamilyPolicy::PreferDualStack),
        ("RequireDualStack", FamilyPolicy::RequireDualStack),
    ];
    let two = service.cluster_ips.len() == 2 || service.ip_families.len() == 2;
    let Some(text) = spec.ip_family_policy.as_deref() else {
        return if two { FamilyPolicy::RequireDualStack } else { FamilyPolicy::SingleStack };
    };
    let policy = findings.word("spec.ipFamilyPolicy", text, &words).unwrap_or(FamilyPolicy::SingleStack);
    if two && policy == FamilyPolicy::SingleStack {
        findings.error("spec.ipFamilyPolicy", "is SingleStack, but two families or cluster addresses are given");
    }
    policy
}

fn selector(spec: &core::ServiceSpec, findings: &mut Findings) -> roadstead_model::Labels {
    let selector = spec.selector.clone().unwrap_or_default();
    findings.labels("spec.selector", &selector);
    selector
}

fn ports(spec: &core::ServiceSpec, kind: &ServiceKind, headless: bool, findings: &mut Findings) -> Vec<ServicePort> {
    let wire = spec.ports.as_deref().unwrap_or_default();
    if wire.is_empty() && !headless && !matches!(kind, ServiceKind::ExternalName(_)) {
        findings.error("spec.ports", "must name at least one port");
    }
    let (mut names, mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut ports = Vec::with_capacity(wire.len());
    for (index, wire_port) in wire.iter().enumerate() {
        let at = format!("spec.ports[{index}]");
        let Some(port) = port(&at, wire_port, kind, findings) else { continue };
        if port.name.is_empty() && wire.len() > 1 {
            findings.error(format_args!("{at}.name"), "is missing, every port of several needs a name");
        } else if !names.insert(port.name.clone()) {
            findings.error(format_args!("{at}.name"), format!("{:?} names an earlier port too", port.name));
        }
        if !numbers.insert((port.protocol, port.port)) {
            findings.error(format_args!("{at}.port"), format!("{}/{} is given twice", port.port, port.protocol));
        }
        if let Some(node_port) = port.node_port
            && !node_ports.insert((port.protocol, node_port))
        {
            findings.error(format_args!("{at}.nodePort"), format!("{node_port}/{} is given twice", port.protocol));
        }
        ports.push(port);
    }
    ports
}

fn port(at: &str, wire: &core::ServicePort, kind: &ServiceKind, findings: &mut Findings) -> Option<ServicePort> {
    let name = wire.name.clone().unwrap_or_default();
    if !name.is_empty() {
        findings.label(format_args!("{at}.name"), &name);
    }
    let protocol = findings.protocol(format_args!("{at}.protocol"), wire.protocol.as_deref());
    let port = findings.port(format_args!("{at}.port"), wire.port);
    if *kind == ServiceKind::LoadBalancer && wire.port == 10250 {
        findings.error(format_args!("{at}.port"), "10250 is kubelet's and may not be exposed by a LoadBalancer");
    }
    let target = match &wire.target_port {
        None | Some(IntOrString::Int(0)) => port.map(TargetPort::Number),
        Some(IntOrString::Int(number)) => {
            findings.port(format_args!("{at}.targetPort"), *number).map(TargetPort::Number)
        }
        Some(IntOrString::String(name)) if name.is_empty() => port.map(TargetPort::Number),
        Some(IntOrString::String(name)) => {
            findings.form(format_args!("{at}.targetPort"), name, names::is_port_name, names::PORT_NAME);
            Some(TargetPort::Name(name.clone()))
        }
    };
    let node_port = match wire.node_port.filter(|number| *number != 0) {
        Some(_) if !matches!(kind, ServiceKind::NodePort | ServiceKind::LoadBalancer) => {
            findings.error(format_args!("{at}.nodePort"), format!("may not be set for type {}", kind.as_str()));
            None
        }
        number => number.and_then(|number| findings.port(format_args!("{at}.nodePort"), number)),
    };
    if let Some(app_protocol) = &wire.app_protocol {
        let field = format_args!("{at}.appProtocol");
        findings.form(field, app_protocol, names::is_qualified, names::QUALIFIED);
    }
    Some(ServicePort {
        name,
        protocol: protocol?,
        port: port?,
        target: target?,
        node_port,
        app_protocol: wire.app_protocol.clone(),
    })
}

fn external_ips(spec: &core::ServiceSpec, findings: &mut Findings) -> Vec<IpAddr> {
    let texts = spec.external_ips.iter().flatten().enumerate();
    texts.filter_map(|(index, text)| findings.routable_ip(format_args!("spec.externalIPs[{index}]"), text)).collect()
}

fn external_policy(spec: &core::ServiceSpec, external: bool, findings: &mut Findings) -> TrafficPolicy {
    let field = "spec.externalTrafficPolicy";
    let text = spec.external_traffic_policy.as_deref().filter(|text| !text.is_empty());
    let reachable = external || spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
    if text.is_some() && !reachable {
        findings.error(field, "may only be set for a Service that is reachable from outside");
    }
    policy(field, text, findings)
}

fn policy(field: &str, text: Option<&str>, findings: &mut Findings) -> TrafficPolicy {
    text.and_then(|text| findings.word(field, text, &POLICIES)).unwrap_or_default()
}

fn affinity(spec: &core::ServiceSpec, findings: &mut Findings) -> Option<u32> {
    let words = [("None", false), ("ClientIP", true)];
    let text = spec.session_affinity.as_deref().unwrap_or("None");
    let timeout = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
    let by_client = findings.word("spec.sessionAffinity", text, &words)?;
    if !by_client {
        if timeout.is_some() {
            findings.error(field, "may only be set with sessionAffinity ClientIP");
        }
        return None;
    }
    match u32::try_from(timeout.unwrap_or(10_800)) {
        Ok(seconds @ 1..=86_400) => Some(seconds),
        _ => {
            findings.error(field, "must be 1 to 86400 seconds");
            None
        }
    }
}

fn traffic_distribution(spec: &core::ServiceSpec, findings: &mut Findings) -> Option<String> {
    let words = ["PreferClose", "PreferSameZone", "PreferSameNode"].map(|word| (word, ()));
    let text = spec.traffic_distribution.clone()?;
    findings.word("spec.trafficDistribution", &text, &words);
    Some(text)
}

/// The annotation for what Kubernetes has no field for.
const SELECTION: &str = "roadstead.dev/load-balancing";

fn selection(meta: &Metadata, findings: &mut Findings) -> Option<Selection> {
    let text = meta.annotations.get(SELECTION)?;
    let selection = text.parse().map_err(|error: UnknownSelection| error.to_string());
    selection.map_err(|reason| findings.error(format_args!("metadata.annotations[{SELECTION}]"), reason)).ok()
}
