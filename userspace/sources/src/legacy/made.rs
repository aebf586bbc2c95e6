//! The objects that old configuration stands for, as trees, by the rules of MetalLB's generator.

use roadstead_model::{ObjectName, Severity};
use serde_yaml::{Mapping, Value};

use crate::convert::{Shape, unknown};

/// Where MetalLB lives where nothing says otherwise.
pub(super) const NAMESPACE: &str = "metallb-system";
/// Longest name that the generator makes.
const LONGEST: usize = 63;

/// One object.
pub(super) struct Made {
    pub(super) kind: &'static str,
    pub(super) name: ObjectName,
    pub(super) value: Value,
    /// The path of the entry that it was made of; empty for a whole object.
    at: String,
}

/// Something to be told about a field.
pub(super) struct Saying {
    pub(super) severity: Severity,
    pub(super) at: String,
    pub(super) reason: String,
}

impl Made {
    /// The old field that a field of the object was made of.
    pub(super) fn source_of(&self, field: &str) -> String {
        if self.at.is_empty() {
            return field.to_owned();
        }
        let field = field.strip_prefix("spec.").or(field.strip_prefix("metadata.")).unwrap_or(field);
        let field = field.replace("autoAssign", "auto-assign").replace("avoidBuggyIPs", "avoid-buggy-ips");
        if field.is_empty() { self.at.clone() } else { format!("{}.{field}", self.at) }
    }
}

const NO_BGP: &str = "BGP is not supported, so this has no effect here";

/// Old names of fields beside the new ones.
type Names = [(&'static str, &'static str)];

const PEER: &Names = &[
    ("my-asn", "myASN"),
    ("peer-asn", "peerASN"),
    ("peer-address", "peerAddress"),
    ("source-address", "sourceAddress"),
    ("peer-port", "peerPort"),
    ("hold-time", "holdTime"),
    ("keepalive-time", "keepaliveTime"),
    ("router-id", "routerID"),
    ("node-selectors", "nodeSelectors"),
    ("password", "password"),
    ("bfd-profile", "bfdProfile"),
    ("ebgp-multihop", "ebgpMultiHop"),
];
const SELECTOR: &Names = &[("match-labels", "matchLabels"), ("match-expressions", "matchExpressions")];
const ADVERTISEMENT: &Names = &[
    ("aggregation-length", "aggregationLength"),
    ("aggregation-length-v6", "aggregationLengthV6"),
    ("localpref", "localPref"),
    ("communities", "communities"),
];
const BFD_PROFILE: &Names = &[
    ("name", ""),
    ("receive-interval", "receiveInterval"),
    ("transmit-interval", "transmitInterval"),
    ("detect-multiplier", "detectMultiplier"),
    ("echo-interval", "echoInterval"),
    ("echo-mode", "echoMode"),
    ("passive-mode", "passiveMode"),
    ("minimum-ttl", "minimumTtl"),
];
const POOL: &Names = &[
    ("name", ""),
    ("protocol", ""),
    ("addresses", "addresses"),
    ("auto-assign", "autoAssign"),
    ("avoid-buggy-ips", "avoidBuggyIPs"),
    ("bgp-advertisements", ""),
];

/// The objects of a ConfigMap's text, in the generator's order.
pub(super) fn from_config(tree: &Value, namespace: &str, sayings: &mut Vec<Saying>) -> Vec<Made> {
    let mut maker = Maker { namespace, sayings, made: Vec::new() };
    let sections = ["peers", "address-pools", "bgp-communities", "bfd-profiles"];
    for (key, _) in tree.as_mapping().into_iter().flatten() {
        let key = key.as_str().unwrap_or_default();
        if !sections.contains(&key) {
            maker.say(Severity::Warning, key.to_owned(), unknown(key, sections.into_iter()));
        }
    }
    for (index, at, peer) in maker.entries(tree, "peers") {
        maker.peer(index, &at, peer);
    }
    let pools = maker.entries(tree, "address-pools");
    let named: Vec<_> = pools.iter().filter_map(|(_, at, pool)| Some((maker.pool(at, pool)?, at, pool))).collect();
    for (name, at, pool) in &named {
        maker.bgp_advertisements(name, at, pool);
    }
    for (name, at, pool) in &named {
        maker.protocol(name, at, pool);
    }
    for (_, at, profile) in maker.entries(tree, "bfd-profiles") {
        maker.bfd_profile(&at, profile);
    }
    maker.communities(tree);
    maker.made
}

/// An AddressPool as IPAddressPool, and the L2Advertisement that its protocol stood for.
pub(super) fn from_address_pool(tree: &Value, name: &ObjectName, sayings: &mut Vec<Saying>) -> Vec<Made> {
    use Shape::{Any, Fields};
    const KNOWN: [&str; 5] = ["protocol", "addresses", "autoAssign", "avoidBuggyIPs", "bgpAdvertisements"];
    const OUTER: Shape =
        Fields(&[("apiVersion", Any), ("kind", Any), ("metadata", Any), ("spec", Any), ("status", Any)]);
    let mut findings = crate::findings::Findings::default();
    OUTER.check(tree, &mut findings);
    sayings.extend(findings.0.into_iter().map(|finding| Saying {
        severity: finding.severity,
        at: finding.field,
        reason: finding.reason,
    }));
    let mut maker = Maker { namespace: &name.namespace, sayings, made: Vec::new() };
    let mut spec = Mapping::new();
    for (key, value) in tree.get("spec").and_then(Value::as_mapping).into_iter().flatten() {
        match key.as_str().unwrap_or_default() {
            "protocol" => {}
            "bgpAdvertisements" => maker.say(Severity::Warning, "spec.bgpAdvertisements".to_owned(), NO_BGP.to_owned()),
            key if KNOWN.contains(&key) => drop(spec.insert(key.into(), value.clone())),
            key => maker.say(Severity::Warning, format!("spec.{key}"), unknown(key, KNOWN.into_iter())),
        }
    }
    let mut value = object("metallb.io/v1beta1", "IPAddressPool", name, spec);
    if let (Some(made), Some(old)) = (value.get_mut("metadata"), tree.get("metadata")) {
        made.clone_from(old);
    }
    maker.made.push(Made { kind: "IPAddressPool", name: name.clone(), value, at: String::new() });
    let protocol = tree.get("spec").and_then(|spec| spec.get("protocol"));
    maker.announce(protocol, "spec.protocol", name, &name.name);
    maker.made
}

struct Maker<'a> {
    namespace: &'a str,
    sayings: &'a mut Vec<Saying>,
    made: Vec<Made>,
}

impl Maker<'_> {
    fn say(&mut self, severity: Severity, at: String, reason: String) {
        self.sayings.push(Saying { severity, at, reason });
    }

    fn push(&mut self, version: &str, kind: &'static str, name: &str, at: &str, spec: Mapping) {
        let name = ObjectName::new(self.namespace, name);
        let value = object(version, kind, &name, spec);
        self.made.push(Made { kind, name, value, at: at.to_owned() });
    }

    fn count(&self, kind: &str) -> usize {
        self.made.iter().filter(|made| made.kind == kind).count()
    }

    /// The entries of a list that are mappings, with their number and path.
    fn entries<'t>(&mut self, tree: &'t Value, key: &str) -> Vec<(usize, String, &'t Mapping)> {
        let items = match tree.get(key) {
            Some(Value::Sequence(items)) => items.as_slice(),
            None | Some(Value::Null) => &[],
            Some(_) => {
                self.say(Severity::Error, key.to_owned(), "is no list".to_owned());
                &[]
            }
        };
        let mut entries = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let at = format!("{key}[{index}]");
            match item.as_mapping() {
                Some(mapping) => entries.push((index, at, mapping)),
                None => self.say(Severity::Error, at, "is no mapping".to_owned()),
            }
        }
        entries
    }

    /// The fields under their new names, those with an empty one left out; a field that is not known is told of.
    fn renamed(&mut self, at: &str, old: &Mapping, names: &Names) -> Mapping {
        let mut new = Mapping::new();
        for (key, value) in old {
            let key = key.as_str().unwrap_or_default();
            match names.iter().find(|(name, _)| *name == key) {
                Some((_, "")) => {}
                Some((_, name)) => drop(new.insert((*name).into(), value.clone())),
                None => {
                    let reason = unknown(key, names.iter().map(|(name, _)| *name));
                    self.say(Severity::Warning, format!("{at}.{key}"), reason);
                }
            }
        }
        new
    }

    fn peer(&mut self, index: usize, at: &str, peer: &Mapping) {
        let mut spec = self.renamed(at, peer, PEER);
        if !spec.contains_key("holdTime") {
            spec.insert("holdTime".into(), "1m30s".into());
        }
        if let Some(Value::Sequence(selectors)) = spec.get_mut("nodeSelectors") {
            for (index, selector) in selectors.iter_mut().enumerate() {
                let old = selector.as_mapping().cloned().unwrap_or_default();
                *selector = self.renamed(&format!("{at}.node-selectors[{index}]"), &old, SELECTOR).into();
            }
        }
        if let Some(Value::String(profile)) = spec.get_mut("bfdProfile")
            && let Some(name) = kubernetes_name(profile)
        {
            *profile = name;
        }
        self.push("metallb.io/v1beta2", "BGPPeer", &format!("peer{}", index + 1), at, spec);
        self.say(Severity::Warning, at.to_owned(), NO_BGP.to_owned());
    }

    /// Makes the pool; its new name.
    fn pool(&mut self, at: &str, pool: &Mapping) -> Option<String> {
        let name = self.name(at, pool)?;
        let mut spec = self.renamed(at, pool, POOL);
        if !spec.contains_key("addresses") {
            spec.insert("addresses".into(), Value::Sequence(Vec::new()));
        }
        self.push("metallb.io/v1beta1", "IPAddressPool", &name, at, spec);
        Some(name)
    }

    /// The entry's name as Kubernetes takes it.
    fn name(&mut self, at: &str, entry: &Mapping) -> Option<String> {
        let field = format!("{at}.name");
        let old = entry.get("name").and_then(Value::as_str).unwrap_or_default();
        let Some(name) = kubernetes_name(old) else {
            let reason = match old {
                "" => "is missing, so the entry cannot be told from others".to_owned(),
                _ => format!("{old:?} holds no letter that a name could begin with"),
            };
            self.say(Severity::Error, field, reason);
            return None;
        };
        if name != old {
            self.say(Severity::Warning, field, format!("{old:?} is no name of an object, so it is {name} from now on"));
        }
        Some(name)
    }

    fn bgp_advertisements(&mut self, pool: &str, at: &str, old: &Mapping) {
        let wrapped = Value::Mapping(old.clone());
        let entries = self.entries(&wrapped, "bgp-advertisements");
        let bgp = old.get("protocol").and_then(Value::as_str) == Some("bgp");
        let mut specs = Vec::new();
        for (_, inner, entry) in entries {
            let at = format!("{at}.{inner}");
            specs.push((self.renamed(&at, entry, ADVERTISEMENT), at));
        }
        if specs.is_empty() && bgp {
            specs.push((Mapping::new(), at.to_owned()));
        }
        for (mut spec, at) in specs {
            spec.insert("ipAddressPools".into(), Value::Sequence(vec![pool.into()]));
            let name = format!("bgpadvertisement{}", self.count("BGPAdvertisement") + 1);
            self.push("metallb.io/v1beta1", "BGPAdvertisement", &name, &at, spec);
        }
    }

    fn protocol(&mut self, pool: &str, at: &str, old: &Mapping) {
        let name = format!("l2advertisement{}", self.count("L2Advertisement") + 1);
        let name = ObjectName::new(self.namespace, &name);
        self.announce(old.get("protocol"), &format!("{at}.protocol"), &name, pool);
    }

    fn announce(&mut self, protocol: Option<&Value>, at: &str, name: &ObjectName, pool: &str) {
        match protocol.and_then(Value::as_str) {
            Some("layer2") => {
                let mut spec = Mapping::new();
                spec.insert("ipAddressPools".into(), Value::Sequence(vec![pool.into()]));
                let value = object("metallb.io/v1beta1", "L2Advertisement", name, spec);
                let at = at.strip_suffix("protocol").map_or(at, |at| at.trim_end_matches('.'));
                let at = if at == "spec" { String::new() } else { at.to_owned() };
                self.made.push(Made { kind: "L2Advertisement", name: name.clone(), value, at });
            }
            Some("bgp") => {
                let reason = "bgp is not supported: addresses of the pool are assigned, but announced by nobody";
                self.say(Severity::Warning, at.to_owned(), reason.to_owned());
            }
            other => {
                let found = other.map_or_else(|| "is missing".to_owned(), |other| format!("{other:?} is not known"));
                let reason = format!("{found}, expected layer2 or bgp; addresses of the pool are announced by nobody");
                self.say(Severity::Warning, at.to_owned(), reason);
            }
        }
    }

    fn bfd_profile(&mut self, at: &str, profile: &Mapping) {
        let Some(name) = self.name(at, profile) else { return };
        let spec = self.renamed(at, profile, BFD_PROFILE);
        self.push("metallb.io/v1beta1", "BFDProfile", &name, at, spec);
        self.say(Severity::Warning, at.to_owned(), NO_BGP.to_owned());
    }

    fn communities(&mut self, tree: &Value) {
        let at = "bgp-communities";
        let Some(old) = tree.get(at).and_then(Value::as_mapping).filter(|old| !old.is_empty()) else { return };
        let mut all: Vec<(&str, &Value)> =
            old.iter().filter_map(|(name, value)| Some((name.as_str()?, value))).collect();
        all.sort_by_key(|(name, _)| *name);
        let community = |(name, value): (&str, &Value)| {
            let mut alias = Mapping::new();
            alias.insert("name".into(), name.into());
            alias.insert("value".into(), value.clone());
            Value::Mapping(alias)
        };
        let mut spec = Mapping::new();
        spec.insert("communities".into(), Value::Sequence(all.into_iter().map(community).collect()));
        self.push("metallb.io/v1beta1", "Community", "communities", at, spec);
        self.say(Severity::Warning, at.to_owned(), NO_BGP.to_owned());
    }
}

fn object(version: &str, kind: &str, name: &ObjectName, spec: Mapping) -> Value {
    let mut metadata = Mapping::new();
    metadata.insert("name".into(), (*name.name).into());
    metadata.insert("namespace".into(), (*name.namespace).into());
    let mut object = Mapping::new();
    object.insert("apiVersion".into(), version.into());
    object.insert("kind".into(), kind.into());
    object.insert("metadata".into(), metadata.into());
    object.insert("spec".into(), spec.into());
    object.into()
}

/// The name itself where it is one of two characters or more, else cut, in lower case, with dashes for underscores, and from
/// its first letter on; `None` where there is none.
fn kubernetes_name(old: &str) -> Option<String> {
    let letter = |byte: u8| byte.is_ascii_lowercase();
    let inner = |byte: u8| letter(byte) || byte.is_ascii_digit() || byte == b'-';
    let (bytes, ends) = (old.as_bytes(), |byte: &u8| *byte != b'-');
    let good = bytes.len() >= 2
        && bytes.len() <= LONGEST
        && bytes.iter().all(|byte| inner(*byte))
        && bytes.first().is_some_and(|byte| letter(*byte))
        && bytes.last().is_some_and(ends);
    if good {
        return Some(old.to_owned());
    }
    let cut: String = old.chars().take(LONGEST).collect();
    let lower = cut.to_lowercase().replace('_', "-");
    let first = lower.find(|char: char| char.is_ascii_lowercase())?;
    lower.get(first..).map(str::to_owned)
}
