//! Wire objects to checked ones, a file a group of kinds; what an API server would refuse is refused here.
//!
//! Source of the rules: pkg/apis/*/validation of Kubernetes, and the webhooks of MetalLB.

mod cluster;
mod endpoints;
mod ingress;
mod load_balancer;
mod metallb;
mod service;
mod shape;

use k8s_openapi::{
    api::{core::v1 as core, discovery::v1 as discovery, networking::v1 as networking},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use roadstead_model::{LabelSelector, Labels, Metadata, ObjectName, Requirement};
use serde::Deserialize;
use serde_yaml::Value;

pub(crate) use shape::{Shape, unknown};

use crate::{
    document::{Complaint, Origin},
    findings::Findings,
    names,
    object::{Kind, Object},
};

/// Converts the tree of one object. The outer error is a wrong type, the inner `None` follows noted errors.
pub(crate) fn convert(
    kind: Kind,
    tree: &Value,
    origin: &Origin,
    findings: &mut Findings,
) -> Result<Option<Object>, Complaint> {
    Ok(match kind {
        Kind::Service => service::service(&read::<core::Service>(tree, origin)?, findings),
        Kind::EndpointSlice => endpoints::slice(&read::<discovery::EndpointSlice>(tree, origin)?, findings),
        Kind::Endpoints => endpoints::endpoints(&read::<core::Endpoints>(tree, origin)?, findings),
        Kind::Pod => cluster::pod(&read::<core::Pod>(tree, origin)?, findings),
        Kind::Node => cluster::node(&read::<core::Node>(tree, origin)?, findings),
        Kind::Namespace => cluster::namespace(&read::<core::Namespace>(tree, origin)?, findings),
        Kind::Secret => cluster::secret(&read_secret(tree, origin)?, findings),
        Kind::ConfigMap => cluster::config_map(&read::<core::ConfigMap>(tree, origin)?, findings),
        Kind::Ingress => ingress::ingress(&read::<networking::Ingress>(tree, origin)?, findings),
        Kind::IngressClass => ingress::class(&read::<networking::IngressClass>(tree, origin)?, findings),
        Kind::IpAddressPool => {
            metallb::POOL.check(tree, findings);
            metallb::pool(&read::<metallb::IpAddressPool>(tree, origin)?, findings)
        }
        Kind::L2Advertisement => {
            metallb::L2_ADVERTISEMENT.check(tree, findings);
            metallb::l2_advertisement(&read::<metallb::L2Advertisement>(tree, origin)?, findings)
        }
        // These are read as other objects (`legacy`, `exclusion`).
        Kind::AddressPool | Kind::L2Exclusion => None,
    })
}

/// The tree tells no positions, so a wrong type is looked up in the text once more.
fn read<T: for<'de> Deserialize<'de>>(tree: &Value, origin: &Origin) -> Result<T, Complaint> {
    T::deserialize(tree).map_err(|error| {
        origin.complaint::<T>(tree).unwrap_or_else(|| Complaint {
            line: origin.place("").map_or(1, |place| place.line),
            field: None,
            reason: error.to_string(),
        })
    })
}

/// Base64 may be wrapped over lines, as by `base64 file` into a block scalar; the decoder here takes no white space.
fn read_secret(tree: &Value, origin: &Origin) -> Result<core::Secret, Complaint> {
    let mut tree = tree.clone();
    if let Some(Value::Mapping(data)) = tree.get_mut("data") {
        for (_, value) in data.iter_mut() {
            if let Value::String(text) = value {
                text.retain(|char| !char.is_ascii_whitespace());
            }
        }
    }
    read(&tree, origin)
}

/// Name, labels and annotations; the caller has checked that there is a name.
fn metadata(kind: Kind, meta: &ObjectMeta, findings: &mut Findings) -> Metadata {
    let labels: Labels = meta.labels.clone().unwrap_or_default();
    let annotations: Labels = meta.annotations.clone().unwrap_or_default();
    findings.labels("metadata.labels", &labels);
    for key in annotations.keys() {
        // Annotations' keys may be upper case before the slash, unlike those of labels.
        let lower = key.to_ascii_lowercase();
        if !names::is_qualified(&lower) {
            findings.error(format_args!("metadata.annotations[{key}]"), format!("{key:?} {}", names::QUALIFIED));
        }
    }
    let name = name(kind, meta.namespace.as_deref(), meta.name.as_deref().unwrap_or_default());
    if kind == Kind::Service || kind == Kind::Namespace {
        findings.label("metadata.name", &name.name);
    } else {
        findings.subdomain("metadata.name", &name.name);
    }
    if !kind.is_cluster_wide() {
        findings.label("metadata.namespace", &name.namespace);
    }
    let created = meta.creation_timestamp.as_ref().map(|time| time.0.as_second());
    Metadata { name, labels, annotations, created }
}

/// The name as the model holds it.
pub(crate) fn name(kind: Kind, namespace: Option<&str>, name: &str) -> ObjectName {
    if kind.is_cluster_wide() {
        return ObjectName::new("", name);
    }
    ObjectName::new(namespace.filter(|text| !text.is_empty()).unwrap_or("default"), name)
}

/// A `metav1.LabelSelector`, whose wire form MetalLB's objects share.
fn selector(
    field: &str,
    wire: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector,
    findings: &mut Findings,
) -> LabelSelector {
    let match_labels = wire.match_labels.clone().unwrap_or_default();
    findings.labels(format_args!("{field}.matchLabels"), &match_labels);
    let mut match_expressions = Vec::new();
    for (index, expression) in wire.match_expressions.iter().flatten().enumerate() {
        let at = format!("{field}.matchExpressions[{index}]");
        let (key, values) = (expression.key.clone(), expression.values.clone().unwrap_or_default());
        findings.form(format_args!("{at}.key"), &key, names::is_qualified, names::QUALIFIED);
        let wants_values = matches!(expression.operator.as_str(), "In" | "NotIn");
        if wants_values == values.is_empty() {
            let reason = if wants_values { "must name at least one value" } else { "must be empty" };
            findings.error(format_args!("{at}.values"), format!("{reason} for operator {}", expression.operator));
        }
        match expression.operator.as_str() {
            "In" => match_expressions.push(Requirement::In(key, values)),
            "NotIn" => match_expressions.push(Requirement::NotIn(key, values)),
            "Exists" => match_expressions.push(Requirement::Exists(key)),
            "DoesNotExist" => match_expressions.push(Requirement::DoesNotExist(key)),
            other => findings.error(
                format_args!("{at}.operator"),
                format!("{other:?} is not known, expected In, NotIn, Exists or DoesNotExist"),
            ),
        }
    }
    LabelSelector { match_labels, match_expressions }
}
