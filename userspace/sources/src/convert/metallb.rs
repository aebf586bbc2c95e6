//! MetalLB's address pools and layer-2 advertisements (metallb.io/v1beta1).
//!
//! Source: <https://metallb.io/apis/>; k8s-openapi holds no custom resources, so their wire types stand here.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use roadstead_model::{self as model, NodeChoice, NodePreference, ServiceAllocation};
use serde::Deserialize;

use super::{Shape, metadata, selector};
use crate::{
    findings::Findings,
    object::{Kind, Object},
};

use Shape::{Any, Each, Fields};

/// The fields of an IPAddressPool.
pub(super) const POOL: Shape = Fields(&[
    ("apiVersion", Any),
    ("kind", Any),
    ("metadata", Any),
    (
        "spec",
        Fields(&[
            ("addresses", Any),
            ("autoAssign", Any),
            ("avoidBuggyIPs", Any),
            (
                "serviceAllocation",
                Fields(&[
                    ("priority", Any),
                    ("namespaces", Any),
                    ("namespaceSelectors", Each(&SELECTOR)),
                    ("serviceSelectors", Each(&SELECTOR)),
                ]),
            ),
        ]),
    ),
    ("status", Any),
]);

/// The fields of an L2Advertisement, those of MetalLB's main branch included.
pub(super) const L2_ADVERTISEMENT: Shape = Fields(&[
    ("apiVersion", Any),
    ("kind", Any),
    ("metadata", Any),
    (
        "spec",
        Fields(&[
            ("ipAddressPools", Any),
            ("ipAddressPoolSelectors", Each(&SELECTOR)),
            ("nodeSelectors", Each(&SELECTOR)),
            ("preferredNodeSelectors", Each(&Fields(&[("weight", Any), ("preference", SELECTOR)]))),
            ("serviceSelectors", Each(&SELECTOR)),
            ("interfaces", Any),
        ]),
    ),
    ("status", Any),
]);

const SELECTOR: Shape = Fields(&[
    ("matchLabels", Any),
    ("matchExpressions", Each(&Fields(&[("key", Any), ("operator", Any), ("values", Any)]))),
]);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IpAddressPool {
    metadata: ObjectMeta,
    spec: PoolSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PoolSpec {
    addresses: Vec<String>,
    auto_assign: Option<bool>,
    #[serde(rename = "avoidBuggyIPs")]
    avoid_buggy_ips: Option<bool>,
    service_allocation: Option<AllocationSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AllocationSpec {
    priority: Option<i64>,
    namespaces: Option<Vec<String>>,
    namespace_selectors: Option<Vec<LabelSelector>>,
    service_selectors: Option<Vec<LabelSelector>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct L2Advertisement {
    metadata: ObjectMeta,
    spec: Option<L2Spec>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct L2Spec {
    ip_address_pools: Option<Vec<String>>,
    ip_address_pool_selectors: Option<Vec<LabelSelector>>,
    node_selectors: Option<Vec<LabelSelector>>,
    preferred_node_selectors: Option<Vec<Preference>>,
    service_selectors: Option<Vec<LabelSelector>>,
    interfaces: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Preference {
    weight: i64,
    preference: LabelSelector,
}

pub(super) fn pool(wire: &IpAddressPool, findings: &mut Findings) -> Option<Object> {
    let meta = metadata(Kind::IpAddressPool, &wire.metadata, findings);
    if wire.spec.addresses.is_empty() {
        findings.error("spec.addresses", "must hold at least one range");
    }
    let mut addresses: Vec<model::AddressRange> = Vec::new();
    for (index, text) in wire.spec.addresses.iter().enumerate() {
        let field = format!("spec.addresses[{index}]");
        match text.parse::<model::AddressRange>() {
            Ok(range) => {
                if let Some(other) = addresses.iter().find(|other| overlap(other, &range)) {
                    findings.error(field, format!("{text} overlaps {other} of the same pool"));
                }
                addresses.push(range);
            }
            Err(error) => findings.error(field, error.to_string()),
        }
    }
    let allocation = wire.spec.service_allocation.as_ref().and_then(|wire| allocation(wire, findings));
    let pool = model::IpAddressPool {
        meta,
        addresses,
        auto_assign: wire.spec.auto_assign.unwrap_or(true),
        avoid_buggy_ips: wire.spec.avoid_buggy_ips.unwrap_or(false),
        allocation,
    };
    (!findings.has_errors()).then(|| Object::Pool(pool.into()))
}

fn overlap(one: &model::AddressRange, other: &model::AddressRange) -> bool {
    one.contains(other.first()) || other.contains(one.first())
}

fn allocation(wire: &AllocationSpec, findings: &mut Findings) -> Option<ServiceAllocation> {
    let at = "spec.serviceAllocation";
    let Ok(priority) = u32::try_from(wire.priority.unwrap_or(0)) else {
        findings.error(format_args!("{at}.priority"), "must be 0 to 4294967295");
        return None;
    };
    Some(ServiceAllocation {
        priority,
        namespaces: wire.namespaces.clone().unwrap_or_default(),
        namespace_selectors: selectors(
            &format!("{at}.namespaceSelectors"),
            wire.namespace_selectors.as_ref(),
            findings,
        ),
        service_selectors: selectors(&format!("{at}.serviceSelectors"), wire.service_selectors.as_ref(), findings),
    })
}

fn selectors(at: &str, wire: Option<&Vec<LabelSelector>>, findings: &mut Findings) -> Vec<model::LabelSelector> {
    let wire = wire.into_iter().flatten().enumerate();
    wire.map(|(index, wire)| selector(&format!("{at}[{index}]"), wire, findings)).collect()
}

pub(super) fn l2_advertisement(wire: &L2Advertisement, findings: &mut Findings) -> Option<Object> {
    let meta = metadata(Kind::L2Advertisement, &wire.metadata, findings);
    let empty = L2Spec::default();
    let spec = wire.spec.as_ref().unwrap_or(&empty);
    let advertisement = model::L2Advertisement {
        meta,
        pools: spec.ip_address_pools.clone().unwrap_or_default(),
        pool_selectors: selectors("spec.ipAddressPoolSelectors", spec.ip_address_pool_selectors.as_ref(), findings),
        nodes: NodeChoice(selectors("spec.nodeSelectors", spec.node_selectors.as_ref(), findings)),
        preferences: preferences(spec.preferred_node_selectors.as_deref().unwrap_or_default(), findings),
        service_selectors: selectors("spec.serviceSelectors", spec.service_selectors.as_ref(), findings),
        interfaces: spec.interfaces.clone().unwrap_or_default(),
    };
    (!findings.has_errors()).then(|| Object::L2Advertisement(advertisement.into()))
}

fn preferences(wire: &[Preference], findings: &mut Findings) -> Vec<NodePreference> {
    let mut preferences = Vec::new();
    for (index, wire) in wire.iter().enumerate() {
        let at = format!("spec.preferredNodeSelectors[{index}]");
        let selector = selector(&format!("{at}.preference"), &wire.preference, findings);
        match u8::try_from(wire.weight) {
            Ok(weight @ 1..=100) => preferences.push(NodePreference { weight, selector }),
            _ => findings.error(format_args!("{at}.weight"), "must be 1 to 100"),
        }
    }
    preferences
}
