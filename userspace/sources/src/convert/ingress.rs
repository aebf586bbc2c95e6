//! Ingresses and their classes: what `ValidateIngress` of Kubernetes asks.

use std::net::IpAddr;

use k8s_openapi::api::networking::v1 as wire;
use roadstead_model::{
    BackendPort, CONFLICTS_ANNOTATION, Host, Ingress, IngressBackend, IngressClass, IngressPath, IngressRule,
    IngressStatus, IngressTls, Metadata, ObjectName, PathType,
};

use super::metadata;
use crate::{
    findings::Findings,
    names,
    object::{Kind, Object},
};

/// Names the class where `spec.ingressClassName` does not; older than that field.
const CLASS: &str = "kubernetes.io/ingress.class";
/// Marks the class of Ingresses that name none.
const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";
const PATH_TYPES: [(&str, PathType); 3] = [
    ("Exact", PathType::Exact),
    ("Prefix", PathType::Prefix),
    ("ImplementationSpecific", PathType::ImplementationSpecific),
];
/// What a path by type Exact or Prefix may not hold, for clients and proxies read it in several ways.
const AMBIGUOUS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];

pub(super) fn ingress(object: &wire::Ingress, findings: &mut Findings) -> Option<Object> {
    let mut meta = metadata(Kind::Ingress, &object.metadata, findings);
    let Some(spec) = &object.spec else {
        findings.error("spec", "is missing");
        return None;
    };
    let annotated = meta.annotations.get(CLASS);
    if annotated.is_some() && spec.ingress_class_name.is_some() {
        let reason = "may not be set beside spec.ingressClassName";
        findings.error(format_args!("metadata.annotations[{CLASS}]"), reason);
    }
    if let Some(class) = &spec.ingress_class_name {
        findings.subdomain("spec.ingressClassName", class);
    }
    let wire_rules = spec.rules.as_deref().unwrap_or_default();
    if spec.default_backend.is_none() && wire_rules.is_empty() {
        findings.error("spec", "must hold defaultBackend or rules");
    }
    let default_backend =
        spec.default_backend.as_ref().and_then(|wire| backend("spec.defaultBackend", wire, &meta, findings));
    let rules = wire_rules.iter().enumerate().map(|(index, wire)| rule(index, wire, &meta, findings)).collect();
    let tls = spec.tls.iter().flatten().enumerate().map(|(index, wire)| tls(index, wire, &meta, findings)).collect();
    let class = spec.ingress_class_name.clone().or_else(|| annotated.cloned());
    let status = status(object, findings);
    // What the proxy wrote there is no setting.
    let conflicts = meta.annotations.remove(CONFLICTS_ANNOTATION);
    let conflicts = conflicts.iter().flat_map(|text| text.lines()).map(str::to_owned).collect();
    let status = IngressStatus { addresses: status, conflicts };
    let ingress = Ingress { meta, class, default_backend, tls, rules, status };
    (!findings.has_errors()).then(|| Object::Ingress(ingress.into()))
}

fn rule(index: usize, wire: &wire::IngressRule, meta: &Metadata, findings: &mut Findings) -> IngressRule {
    let at = format!("spec.rules[{index}]");
    let host = wire.host.as_deref().filter(|text| !text.is_empty());
    let host = host.and_then(|text| host_name(&format!("{at}.host"), text, findings));
    let Some(http) = &wire.http else { return IngressRule { host, paths: Vec::new() } };
    if http.paths.is_empty() {
        findings.error(format_args!("{at}.http.paths"), "must hold at least one path");
    }
    let paths = http.paths.iter().enumerate();
    let paths =
        paths.filter_map(|(index, wire)| path(&format!("{at}.http.paths[{index}]"), wire, meta, findings)).collect();
    IngressRule { host, paths }
}

fn path(at: &str, wire: &wire::HTTPIngressPath, meta: &Metadata, findings: &mut Findings) -> Option<IngressPath> {
    let path = wire.path.clone().unwrap_or_default();
    let backend = backend(&format!("{at}.backend"), &wire.backend, meta, findings);
    let field = format!("{at}.pathType");
    if wire.path_type.is_empty() {
        findings.error(field, "is missing, expected Exact or Prefix or ImplementationSpecific");
        return None;
    }
    let path_type = findings.word(field, &wire.path_type, &PATH_TYPES)?;
    let field = format!("{at}.path");
    let specific = path_type == PathType::ImplementationSpecific;
    let absent = specific && path.is_empty();
    if !absent && !path.starts_with('/') {
        findings.error(&field, format!("{path:?} does not start with '/'"));
    }
    if !specific {
        let ambiguous = AMBIGUOUS.iter().find(|part| path.contains(**part)).copied();
        let ending = ["/..", "/."].into_iter().find(|end| path.ends_with(end));
        if let Some(part) = ambiguous.or(ending) {
            findings.error(&field, format!("{path:?} holds {part:?}, which is read in several ways"));
        }
    }
    Some(IngressPath { path, path_type, backend: backend? })
}

fn backend(at: &str, wire: &wire::IngressBackend, meta: &Metadata, findings: &mut Findings) -> Option<IngressBackend> {
    let service = match (&wire.service, &wire.resource) {
        (Some(service), None) => service,
        (None, Some(resource)) => {
            return Some(IngressBackend::Resource { kind: resource.kind.clone(), name: resource.name.clone() });
        }
        (Some(_), Some(_)) => {
            findings.error(format_args!("{at}.resource"), "may not be set beside service");
            return None;
        }
        (None, None) => {
            findings.error(at, "must hold service or resource");
            return None;
        }
    };
    let named = findings.label(format_args!("{at}.service.name"), &service.name);
    let field = format!("{at}.service.port");
    let port = service.port.as_ref();
    let name = port.and_then(|port| port.name.as_deref()).filter(|name| !name.is_empty());
    let number = port.and_then(|port| port.number).filter(|number| *number != 0);
    let port = match (name, number) {
        (Some(name), None) => {
            findings.form(format_args!("{field}.name"), name, names::is_port_name, names::PORT_NAME);
            Some(BackendPort::Name(name.to_owned()))
        }
        (None, Some(number)) => findings.port(format_args!("{field}.number"), number).map(BackendPort::Number),
        (Some(_), Some(_)) => {
            findings.error(field, "may hold name or number, not both");
            None
        }
        (None, None) => {
            findings.error(field, "must hold name or number");
            None
        }
    };
    let service = ObjectName::new(&meta.name.namespace, &service.name);
    Some(IngressBackend::Service { service, port: port.filter(|_| named)? })
}

/// Lower-cases: the API server refuses capitals, but a host means the same in either.
fn host_name(field: &str, text: &str, findings: &mut Findings) -> Option<Host> {
    let lower = text.to_lowercase();
    if lower.parse::<IpAddr>().is_ok() {
        findings.error(field, format!("{text:?} is an IP address, expected a DNS name"));
        return None;
    }
    if let Some(rest) = lower.strip_prefix("*.") {
        return findings.subdomain(field, rest).then(|| Host::Wildcard(rest.to_owned()));
    }
    if lower.contains('*') {
        findings.error(field, format!("{text:?} may have '*' only as its whole first label"));
        return None;
    }
    findings.subdomain(field, &lower).then_some(Host::Exact(lower))
}

fn tls(index: usize, wire: &wire::IngressTLS, meta: &Metadata, findings: &mut Findings) -> IngressTls {
    let at = format!("spec.tls[{index}]");
    let hosts = wire.hosts.iter().flatten().enumerate();
    let hosts =
        hosts.filter_map(|(number, text)| host_name(&format!("{at}.hosts[{number}]"), text, findings)).collect();
    let secret = wire.secret_name.as_deref().filter(|name| !name.is_empty());
    if let Some(name) = secret {
        findings.subdomain(format_args!("{at}.secretName"), name);
    }
    IngressTls { hosts, secret: secret.map(|name| ObjectName::new(&meta.name.namespace, name)) }
}

fn status(object: &wire::Ingress, findings: &mut Findings) -> Vec<IpAddr> {
    let balancer = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let entries = balancer.iter().flat_map(|balancer| balancer.ingress.iter().flatten()).enumerate();
    let texts = entries.filter_map(|(index, entry)| Some((index, entry.ip.as_deref().filter(|ip| !ip.is_empty())?)));
    texts.filter_map(|(index, ip)| findings.ip(format_args!("status.loadBalancer.ingress[{index}].ip"), ip)).collect()
}

pub(super) fn class(object: &wire::IngressClass, findings: &mut Findings) -> Option<Object> {
    let meta = metadata(Kind::IngressClass, &object.metadata, findings);
    let controller = object.spec.as_ref().and_then(|spec| spec.controller.clone()).unwrap_or_default();
    let qualified = controller.contains('/') && controller.len() <= 250;
    if !qualified || !names::is_subdomain(controller.split('/').next().unwrap_or_default()) {
        findings.error("spec.controller", format!("{controller:?} must be a DNS name and a path, such as a.example/b"));
    }
    let is_default = meta.annotations.get(DEFAULT_CLASS).is_some_and(|value| value == "true");
    let class = IngressClass { name: meta.name.name.to_string(), controller, is_default };
    (!findings.has_errors()).then(|| Object::IngressClass(class.into()))
}
