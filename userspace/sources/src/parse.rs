//! One file's text to objects and problems; nothing here knows other files.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    path::Path,
    sync::Arc,
};

use roadstead_model::{ObjectName, ObjectRef, Place, Problem, Severity};
use serde_yaml::Value;

use crate::{
    convert,
    document::{Complaint, Document, Format, Origin, split},
    exclusion,
    findings::{Finding, Findings},
    legacy, limits,
    object::{Key, Kind, Object, Parsed},
};

/// Kinds of MetalLB that a later part brings.
const LATER: [&str; 4] = ["BGPPeer", "BGPAdvertisement", "BFDProfile", "Community"];

/// What a file gave.
#[derive(Clone, Debug, Default)]
pub(crate) struct ParsedFile {
    pub(crate) objects: Vec<Parsed>,
    pub(crate) problems: Vec<Problem>,
    /// Objects that the file names but that are not good in this version.
    pub(crate) broken: Vec<Key>,
    /// A part of the file could not be read far enough to say what it names.
    pub(crate) unreadable: bool,
    /// Documents without a problem, and which of the objects are theirs: the same text gives the same objects again.
    clean: Vec<(Arc<Document>, Range<usize>)>,
}

/// A file's content, split into what is known already and what is to be parsed.
#[derive(Default)]
pub(crate) struct Plan {
    pieces: Vec<Piece>,
    /// Where the content is not even split, why.
    refusal: Option<Problem>,
}

enum Piece {
    /// A document of the file's last version, with its objects.
    Known(Arc<Document>, Vec<Parsed>),
    Fresh(Arc<Document>),
}

/// Splits a file's content and looks up its documents in what the file held before.
pub(crate) fn plan(file: &Arc<Path>, content: &[u8], last: Option<&ParsedFile>) -> Plan {
    let refuse = |line: usize, reason: &str| {
        let place = Some(Place { file: file.to_path_buf(), line });
        Plan { refusal: Some(problem(Severity::Error, place, None, None, reason)), ..Plan::default() }
    };
    let text = match std::str::from_utf8(content) {
        Ok(text) => text,
        Err(error) => {
            let good = content.get(..error.valid_up_to()).unwrap_or_default();
            return refuse(1 + good.iter().filter(|byte| **byte == b'\n').count(), "is not UTF-8");
        }
    };
    let json = file.extension().is_some_and(|extension| extension == "json");
    let format = if json { Format::Json } else { Format::Yaml };
    let documents = split(file, format, text, limits::DOCUMENTS);
    if documents.len() > limits::DOCUMENTS {
        return refuse(1, &format!("holds more than {} documents", limits::DOCUMENTS));
    }
    let known: HashMap<_, _> = last
        .into_iter()
        .flat_map(ParsedFile::clean)
        .map(|(document, objects)| (document.text(), (document, objects)))
        .collect();
    let piece = |document: Document| match known.get(document.text()) {
        Some((same, objects)) if same.stands_where(&document) => Piece::Known(Arc::clone(same), objects.to_vec()),
        Some((_, objects)) => {
            let document = Arc::new(document);
            let moved = |parsed: &Parsed| Parsed {
                origin: Origin { document: Arc::clone(&document), item: parsed.origin.item },
                ..parsed.clone()
            };
            Piece::Known(Arc::clone(&document), objects.iter().map(moved).collect())
        }
        None => Piece::Fresh(Arc::new(document)),
    };
    Plan { pieces: documents.into_iter().map(piece).collect(), refusal: None }
}

impl Plan {
    /// The documents that are to be parsed.
    pub(crate) fn fresh(&self) -> impl Iterator<Item = &Arc<Document>> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Known(..) => None,
            Piece::Fresh(document) => Some(document),
        })
    }

    /// The file as a whole, with what became of the documents that were to be parsed, in their order.
    pub(crate) fn finish(self, parsed: &mut impl Iterator<Item = ParsedFile>) -> ParsedFile {
        let mut file = ParsedFile { unreadable: self.refusal.is_some(), ..ParsedFile::default() };
        file.problems.extend(self.refusal);
        for piece in self.pieces {
            match piece {
                Piece::Known(document, objects) => file.add_clean(document, objects),
                Piece::Fresh(document) => {
                    let Some(parsed) = parsed.next() else { break };
                    file.add(document, parsed);
                }
            }
        }
        file
    }
}

/// Parses one document.
pub(crate) fn parse_document(document: &Arc<Document>) -> ParsedFile {
    let mut parsed = ParsedFile::default();
    parsed.document(document);
    parsed
}

/// Reads an object of a server: what kind it is follows from where it was asked for.
pub(crate) fn parse_object(kind: Kind, tree: &Value, document: &Arc<Document>) -> ParsedFile {
    let mut parsed = ParsedFile::default();
    let origin = Origin { document: Arc::clone(document), item: None };
    let metadata = tree.get("metadata");
    let name = metadata.and_then(|metadata| text(metadata, "name")).unwrap_or_default();
    let namespace = metadata.and_then(|metadata| text(metadata, "namespace"));
    parsed.known(Key { kind, name: convert::name(kind, namespace, name) }, tree, &origin);
    parsed
}

/// Reads a file's content on this thread.
fn parse(file: &Arc<Path>, content: &[u8]) -> ParsedFile {
    let plan = plan(file, content, None);
    let parsed: Vec<_> = plan.fresh().map(parse_document).collect();
    plan.finish(&mut parsed.into_iter())
}

impl ParsedFile {
    /// Whether both hold the same objects, and the same is wrong with them.
    pub(crate) fn says_the_same_as(&self, other: &Self) -> bool {
        let same = |(one, other): (&Parsed, &Parsed)| one.key == other.key && one.object == other.object;
        self.problems == other.problems
            && self.broken == other.broken
            && self.unreadable == other.unreadable
            && self.objects.len() == other.objects.len()
            && self.objects.iter().zip(&other.objects).all(same)
    }

    fn clean(&self) -> impl Iterator<Item = (&Arc<Document>, &[Parsed])> {
        self.clean.iter().filter_map(|(document, range)| Some((document, self.objects.get(range.clone())?)))
    }

    fn add_clean(&mut self, document: Arc<Document>, objects: Vec<Parsed>) {
        let start = self.objects.len();
        self.objects.extend(objects);
        self.clean.push((document, start..self.objects.len()));
    }

    fn add(&mut self, document: Arc<Document>, parsed: Self) {
        if parsed.problems.is_empty() && parsed.broken.is_empty() && !parsed.unreadable {
            return self.add_clean(document, parsed.objects);
        }
        self.take(parsed);
    }

    /// Keeps what the file no longer gives in a good version in its last good one.
    pub(crate) fn keep(&mut self, last: &Self) {
        if self.broken.is_empty() && !self.unreadable {
            return;
        }
        let known: HashSet<_> = self.objects.iter().map(|object| &object.key).collect();
        let lost = |old: &&Parsed| !known.contains(&old.key) && (self.unreadable || self.broken.contains(&old.key));
        let kept: Vec<_> = last.objects.iter().filter(lost).cloned().collect();
        self.objects.extend(kept);
    }

    fn document(&mut self, document: &Arc<Document>) {
        let origin = Origin { document: Arc::clone(document), item: None };
        match origin.document.tree() {
            Ok(Value::Null) => {}
            Ok(tree) => self.root(&tree, &origin),
            Err(complaint) => {
                self.unreadable = true;
                self.complain(&origin, None, &complaint);
            }
        }
    }

    /// An object, or a list of them.
    fn root(&mut self, tree: &Value, origin: &Origin) {
        let kind = text(tree, "kind").unwrap_or_default();
        // Other APIs have kinds that end so and are no lists of ours.
        let ours = |kind: &&str| {
            let group_of = |version| group(text(tree, "apiVersion").unwrap_or(version)) == group(version);
            kind.is_empty() || Kind::named(kind).is_some_and(|(_, version)| group_of(version))
        };
        let Some(item_kind) = kind.strip_suffix("List").filter(ours) else { return self.object(tree, origin, None) };
        match tree.get("items") {
            Some(Value::Sequence(items)) => {
                // `kind: List` holds objects of any kind; `kind: ServiceList` leaves out what they are.
                let implied = text(tree, "apiVersion").filter(|_| !item_kind.is_empty());
                let implied = implied.map(|version| (item_kind, version));
                for (index, item) in items.iter().enumerate() {
                    self.object(item, &Origin { item: Some(index), ..origin.clone() }, implied);
                }
            }
            Some(Value::Null) | None => {}
            Some(_) => {
                self.unreadable = true;
                let place = origin.place("items");
                self.problems.push(problem(Severity::Error, place, None, Some("items"), "is no list"));
            }
        }
    }

    fn object(&mut self, tree: &Value, origin: &Origin, implied: Option<(&str, &str)>) {
        let kind = text(tree, "kind").or(implied.map(|(kind, _)| kind));
        let version = text(tree, "apiVersion").or(implied.map(|(_, version)| version));
        let (Some(kind), Some(version)) = (kind, version) else {
            self.unreadable = true;
            let missing = if kind.is_none() { "kind" } else { "apiVersion" };
            let reason = if tree.is_mapping() { "is missing" } else { "this is no Kubernetes object" };
            let field = tree.is_mapping().then_some(missing);
            self.problems.push(problem(Severity::Error, origin.place(""), None, field, reason));
            return;
        };
        let Some((known, expected)) = Kind::named(kind) else { return self.unknown(kind, version, tree, origin) };
        let metadata = tree.get("metadata");
        let name = metadata.and_then(|metadata| text(metadata, "name")).unwrap_or_default();
        let namespace = metadata.and_then(|metadata| text(metadata, "namespace"));
        let key = Key { kind: known, name: convert::name(known, namespace, name) };
        if version != expected {
            // The same kind of another group (Knative's Service, Gateway's ...) is none of ours; another version is.
            if group(version) == group(expected) || is_old_ingress(known, version) {
                let reason = format!("{version} is not read, only {expected} is");
                let place = origin.place("apiVersion");
                self.problems.push(problem(Severity::Warning, place, Some(&key), Some("apiVersion"), &reason));
            }
            return;
        }
        if name.is_empty() {
            self.unreadable = true;
            let reason = format!("is missing, so this {kind} cannot be told from others");
            let place = origin.place("metadata.name");
            self.problems.push(problem(Severity::Error, place, None, Some("metadata.name"), &reason));
            return;
        }
        self.known(key, tree, origin);
    }

    fn known(&mut self, key: Key, tree: &Value, origin: &Origin) {
        if key.kind == Kind::AddressPool {
            return self.take(legacy::address_pool(&key, tree, origin));
        }
        let mut findings = Findings::default();
        let converted = convert::convert(key.kind, tree, origin, &mut findings);
        for finding in &findings.0 {
            self.problems.push(found(&key, origin, finding));
        }
        match converted {
            Ok(Some(object)) => {
                if let Object::ConfigMap(config) = &object {
                    self.take(legacy::config_map(&key, config, origin));
                    self.take(exclusion::config_map(&key, config, origin));
                }
                self.objects.push(Parsed { key, origin: origin.clone(), object });
            }
            Ok(None) => self.broken.push(key),
            Err(complaint) => {
                self.complain(origin, Some(&key), &complaint);
                self.broken.push(key);
            }
        }
    }

    /// Adds what stands in one object besides the object itself.
    fn take(&mut self, inner: Self) {
        self.objects.extend(inner.objects);
        self.problems.extend(inner.problems);
        self.broken.extend(inner.broken);
        self.unreadable |= inner.unreadable;
    }

    fn unknown(&mut self, kind: &str, version: &str, tree: &Value, origin: &Origin) {
        if kind == "List" && origin.item.is_some() {
            self.unreadable = true;
            let reason = "a list inside a list is not read";
            self.problems.push(problem(Severity::Error, origin.place("kind"), None, Some("kind"), reason));
            return;
        }
        let reason = match group(version) {
            "metallb.io" if LATER.contains(&kind) => "is not supported yet",
            group if is_misspelt(group, version, kind) => "is no kind of this apiVersion, so the object is not read",
            _ => return,
        };
        let metadata = tree.get("metadata");
        let name = metadata.and_then(|metadata| text(metadata, "name")).unwrap_or_default();
        let namespace = metadata.and_then(|metadata| text(metadata, "namespace")).unwrap_or("default");
        self.problems.push(Problem {
            object: Some(ObjectRef { kind: kind.to_owned(), name: ObjectName::new(namespace, name) }),
            ..problem(Severity::Warning, origin.place("kind"), None, Some("kind"), reason)
        });
    }

    fn complain(&mut self, origin: &Origin, key: Option<&Key>, complaint: &Complaint) {
        let place = origin.document.place(complaint.line);
        let problem = problem(Severity::Error, place, key, complaint.field.as_deref(), &complaint.reason);
        self.problems.push(problem);
    }
}

/// A finding about an object, with its place.
pub(crate) fn found(key: &Key, origin: &Origin, finding: &Finding) -> Problem {
    problem(finding.severity, origin.place(&finding.field), Some(key), Some(&finding.field), &finding.reason)
}

fn problem(severity: Severity, place: Option<Place>, key: Option<&Key>, field: Option<&str>, reason: &str) -> Problem {
    Problem {
        severity,
        place,
        object: key.map(|key| ObjectRef { kind: key.kind.as_str().to_owned(), name: key.name.clone() }),
        field: field.map(str::to_owned),
        reason: reason.to_owned(),
    }
}

fn text<'a>(tree: &'a Value, key: &str) -> Option<&'a str> {
    tree.get(key).and_then(Value::as_str)
}

/// Kinds of the groups that are read from, but that say nothing to this data plane.
const FOREIGN: [(&str, &[&str]); 4] = [
    (
        "",
        &[
            "Binding",
            "ComponentStatus",
            "Config",
            "Event",
            "LimitRange",
            "List",
            "PersistentVolume",
            "PersistentVolumeClaim",
            "PodStatusResult",
            "PodTemplate",
            "RangeAllocation",
            "ReplicationController",
            "ResourceQuota",
            "ServiceAccount",
            "Status",
        ],
    ),
    ("networking.k8s.io", &["ClusterCIDR", "IPAddress", "NetworkPolicy", "ServiceCIDR"]),
    ("discovery.k8s.io", &[]),
    ("metallb.io", &["BGPSessionState", "ConfigurationState", "ServiceBGPStatus", "ServiceL2Status"]),
];

/// A kind that its group does not have, nor lists of it: a slip of the pen, most likely.
fn is_misspelt(group: &str, version: &str, kind: &str) -> bool {
    let single = kind.strip_suffix("List").unwrap_or(kind);
    let known = FOREIGN.iter().find(|(name, _)| *name == group && (!name.is_empty() || version == "v1"));
    known.is_some_and(|(_, kinds)| !kinds.contains(&kind) && !kinds.contains(&single))
}

/// The group of an apiVersion; empty for the core one.
fn group(version: &str) -> &str {
    version.split_once('/').map_or("", |(group, _)| group)
}

/// Ingress lived in other groups before Kubernetes 1.22; such manifests still are about.
fn is_old_ingress(kind: Kind, version: &str) -> bool {
    kind == Kind::Ingress && group(version) == "extensions"
}

/// Reads arbitrary bytes as a YAML and as a JSON manifest: the entry of the fuzz target.
#[doc(hidden)]
pub fn fuzz_manifest(bytes: &[u8]) {
    for name in ["fuzz.yaml", "fuzz.json"] {
        let file: Arc<Path> = Arc::from(Path::new(name));
        let parsed = parse(&file, bytes);
        for found in &parsed.problems {
            assert!(found.place.as_ref().is_some_and(|place| place.line > 0), "a problem has a line");
        }
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
