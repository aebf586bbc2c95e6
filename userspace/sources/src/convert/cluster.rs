//! Nodes, Namespaces, Pods, Secrets and ConfigMaps.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use roadstead_model::{ConfigMap, IpFamily, Namespace, Node, Secret};

use super::metadata;
use crate::{
    findings::Findings,
    names,
    object::{Kind, Object, Pod},
};

/// The cluster autoscaler's taint for a node that it is about to remove, whatever its value and effect (KEP-3836).
const GOING: &str = "ToBeDeletedByClusterAutoscaler";

pub(super) fn node(wire: &core::Node, findings: &mut Findings) -> Option<Object> {
    let meta = metadata(Kind::Node, &wire.metadata, findings);
    let (mut internal_ips, mut external_ips) = (Vec::new(), Vec::new());
    let status = wire.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    for (index, address) in addresses.iter().enumerate() {
        let list = match address.type_.as_str() {
            "InternalIP" => &mut internal_ips,
            "ExternalIP" => &mut external_ips,
            _ => continue,
        };
        list.extend(findings.ip(format_args!("status.addresses[{index}].address"), &address.address));
    }
    let spec = wire.spec.as_ref();
    let mut pod_cidrs = Vec::new();
    for (index, text) in spec.and_then(|spec| spec.pod_cidrs.as_ref()).into_iter().flatten().enumerate() {
        pod_cidrs.extend(findings.cidr(format_args!("spec.podCIDRs[{index}]"), text));
    }
    if let Some(text) = spec.and_then(|spec| spec.pod_cidr.as_deref()).filter(|text| !text.is_empty())
        && pod_cidrs.is_empty()
    {
        pod_cidrs.extend(findings.cidr("spec.podCIDR", text));
    }
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let network_unavailable = conditions.iter().any(|at| at.type_ == "NetworkUnavailable" && at.status == "True");
    let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let is_going = wire.metadata.deletion_timestamp.is_some() || taints.iter().any(|taint| taint.key == GOING);
    let node = Node { meta, internal_ips, external_ips, pod_cidrs, network_unavailable, is_going };
    (!findings.has_errors()).then(|| Object::Node(node.into()))
}

pub(super) fn namespace(wire: &core::Namespace, findings: &mut Findings) -> Option<Object> {
    let meta = metadata(Kind::Namespace, &wire.metadata, findings);
    let namespace = Namespace { name: meta.name.name.to_string(), labels: meta.labels };
    (!findings.has_errors()).then(|| Object::Namespace(namespace.into()))
}

pub(super) fn pod(wire: &core::Pod, findings: &mut Findings) -> Option<Object> {
    let meta = metadata(Kind::Pod, &wire.metadata, findings);
    let status = wire.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or("Running");
    // A pod that ended has given its address back.
    let ips = if matches!(phase, "Succeeded" | "Failed") { Vec::new() } else { pod_ips(wire, findings) };
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    let pod = Pod {
        labels: meta.labels,
        ips,
        node: wire.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        ready: ready.is_none_or(|condition| condition.status == "True"),
        terminating: wire.metadata.deletion_timestamp.is_some(),
        ports: container_ports(wire, findings),
        name: meta.name,
    };
    (!findings.has_errors()).then(|| Object::Pod(pod.into()))
}

fn pod_ips(wire: &core::Pod, findings: &mut Findings) -> Vec<IpAddr> {
    let Some(status) = &wire.status else { return Vec::new() };
    let listed = status.pod_ips.iter().flatten().enumerate();
    let mut texts: Vec<_> =
        listed.map(|(index, entry)| (format!("status.podIPs[{index}].ip"), entry.ip.as_str())).collect();
    if texts.is_empty() {
        texts.extend(status.pod_ip.as_deref().map(|ip| ("status.podIP".to_owned(), ip)));
    }
    let mut ips: Vec<IpAddr> = Vec::new();
    for (field, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        let Some(ip) = findings.routable_ip(&field, text) else { continue };
        if ips.iter().any(|other| IpFamily::of(*other) == IpFamily::of(ip)) {
            findings.error(field, "at most one address of each family may be given");
            continue;
        }
        ips.push(ip);
    }
    ips
}

/// Named ports of the containers, and of the init containers that keep running beside them (KEP-753).
fn container_ports(
    wire: &core::Pod,
    findings: &mut Findings,
) -> Vec<(String, roadstead_model::Protocol, roadstead_model::Port)> {
    let Some(spec) = &wire.spec else { return Vec::new() };
    let always = |container: &&core::Container| container.restart_policy.as_deref() == Some("Always");
    let sidecars = spec.init_containers.iter().flatten().enumerate().filter(|(_, container)| always(container));
    let containers = spec.containers.iter().enumerate().map(|(index, container)| ("containers", index, container));
    let containers = containers.chain(sidecars.map(|(index, container)| ("initContainers", index, container)));
    let mut ports = Vec::new();
    for (list, number, container) in containers {
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let at = format!("spec.{list}[{number}].ports[{index}]");
            let protocol = findings.protocol(format_args!("{at}.protocol"), port.protocol.as_deref());
            let number = findings.port(format_args!("{at}.containerPort"), port.container_port);
            if let (Some(name), Some(protocol), Some(number)) = (&port.name, protocol, number) {
                findings.form(format_args!("{at}.name"), name, names::is_port_name, names::PORT_NAME);
                ports.push((name.clone(), protocol, number));
            }
        }
    }
    ports
}

pub(super) fn secret(wire: &core::Secret, findings: &mut Findings) -> Option<Object> {
    let meta = metadata(Kind::Secret, &wire.metadata, findings);
    let kind = wire.type_.clone().filter(|kind| !kind.is_empty()).unwrap_or_else(|| "Opaque".to_owned());
    let mut data: std::collections::BTreeMap<_, _> =
        wire.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect();
    data.extend(wire.string_data.iter().flatten().map(|(key, text)| (key.clone(), text.clone().into_bytes())));
    for key in data.keys() {
        findings.form(format_args!("data[{key}]"), key, names::is_data_key, names::DATA_KEY);
    }
    if data.values().map(Vec::len).sum::<usize>() > 1 << 20 {
        findings.error("data", "may hold at most 1 MiB");
    }
    if kind == "kubernetes.io/tls" {
        for key in ["tls.crt", "tls.key"] {
            if !data.contains_key(key) {
                findings.error("data", format!("{key} is missing, which type {kind} needs"));
            }
        }
    }
    (!findings.has_errors()).then(|| Object::Secret(Secret { meta, kind, data }.into()))
}

pub(super) fn config_map(wire: &core::ConfigMap, findings: &mut Findings) -> Option<Object> {
    let meta = metadata(Kind::ConfigMap, &wire.metadata, findings);
    let data = wire.data.clone().unwrap_or_default();
    for key in data.keys() {
        findings.form(format_args!("data[{key}]"), key, names::is_data_key, names::DATA_KEY);
    }
    (!findings.has_errors()).then(|| Object::ConfigMap(ConfigMap { meta, data }.into()))
}
