//! What is wrong with an object, in the words and by the reason of an event.

use std::collections::{BTreeMap, BTreeSet};

use roadstead_model::{ObjectName, ObjectRef, Problem, Snapshot};
use roadstead_routes::{Compiled, Table};

/// Most complaints about one object; who has more is told so.
const MOST: usize = 10;
/// Longest message, in bytes: newer clients of the API take no more.
const LONGEST: usize = 1024;

/// Which step has found something wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Reading the object.
    Source,
    /// Annotations, options, rules and what Ingresses do to each other.
    Routes,
    /// Services and ports that rules lead to.
    Backends,
    /// The certificates of hosts.
    Certificates,
    /// What guards an Ingress or leads to its endpoints, beside its annotations: Secrets, Services that are asked.
    References,
}

/// Everything that was found while a snapshot was applied.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<(Step, Problem)>);

impl Findings {
    pub(crate) fn extend(&mut self, step: Step, problems: Vec<Problem>) {
        self.0.extend(problems.into_iter().map(|problem| (step, problem)));
    }

    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter().map(|(_, problem)| problem)
    }

    /// What owners are to be told: of Ingresses that are served here, and of what they name.
    pub(crate) fn complaints(&self, compiled: &Compiled, snapshot: &Snapshot) -> BTreeSet<Complaint> {
        let served: BTreeSet<&ObjectName> = compiled.table.ingresses().iter().collect();
        let mut by_object: BTreeMap<ObjectRef, BTreeSet<Complaint>> = BTreeMap::new();
        let mut add =
            |complaint: Complaint| _ = by_object.entry(complaint.about.clone()).or_default().insert(complaint);
        let mut broken = BTreeMap::new();
        // What the source says of an Ingress means that its last good version is served.
        let of_source = snapshot.problems.iter().map(|problem| (Step::Source, problem));
        for (step, problem) in self.0.iter().map(|(step, problem)| (*step, problem)).chain(of_source) {
            let Some(about) = &problem.object else { continue };
            match about.kind.as_str() {
                "Ingress" if served.contains(&about.name) => {
                    add(Complaint::new(about.clone(), reason(step, problem, compiled), &told(problem)));
                }
                "Ingress" => {}
                _ if step == Step::Source => {}
                "Secret" => {
                    add(Complaint::new(about.clone(), "InvalidSecret", &told(problem)));
                    broken.entry(&about.name).or_insert_with(Vec::new).push(&problem.reason);
                }
                "ConfigMap" => add(Complaint::new(about.clone(), "InvalidOption", &told(problem))),
                _ => {}
            }
        }
        for (secret, ingress) in users(&compiled.table, &broken) {
            for problem in broken.get(secret).into_iter().flatten() {
                let about = ObjectRef { kind: "Ingress".to_owned(), name: ingress.clone() };
                add(Complaint::new(about, "InvalidSecretRef", &format!("secret {secret}: {problem}")));
            }
        }
        by_object.into_iter().flat_map(|(about, complaints)| bounded(&about, complaints)).collect()
    }
}

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Complaint {
    pub(crate) about: ObjectRef,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Complaint {
    fn new(about: ObjectRef, reason: &'static str, message: &str) -> Self {
        let (message, _) = message.split_at(message.floor_char_boundary(LONGEST));
        Self { about, reason, message: message.to_owned() }
    }
}

/// The reason of an event about an Ingress. Those that the Gateway API has a word for have that word.
fn reason(step: Step, problem: &Problem, compiled: &Compiled) -> &'static str {
    let field = problem.field.as_deref().unwrap_or_default();
    let is_conflict =
        || problem.object.as_ref().is_some_and(|object| compiled.is_conflict(&object.name, field, &problem.reason));
    match step {
        Step::Source => "Rejected",
        Step::Backends => "BackendNotFound",
        // The Service that is asked who may come.
        Step::References if field.ends_with("/auth-url]") => "BackendNotFound",
        Step::Certificates => "InvalidCertificateRef",
        Step::References => "InvalidSecretRef",
        Step::Routes if is_conflict() => "Conflicted",
        Step::Routes if field.ends_with("-snippet]") => "SnippetRefused",
        Step::Routes if field.starts_with("metadata.annotations[") => "InvalidAnnotation",
        Step::Routes => "InvalidRule",
    }
}

fn told(problem: &Problem) -> String {
    match &problem.field {
        Some(field) => format!("{field}: {}", problem.reason),
        None => problem.reason.clone(),
    }
}

/// The Ingresses that name one of these Secrets for certificates or passwords.
fn users<'t>(
    table: &'t Table,
    broken: &BTreeMap<&ObjectName, Vec<&String>>,
) -> BTreeSet<(&'t ObjectName, &'t ObjectName)> {
    if broken.is_empty() {
        return BTreeSet::new();
    }
    let certificates = table.certificates().entries();
    let certificates = certificates.filter_map(|entry| Some((entry.secret.as_ref()?, &entry.ingress)));
    let passwords = table.authentication().secrets().map(|(ingress, secret)| (&secret.name, ingress));
    certificates.chain(passwords).filter(|(secret, _)| broken.contains_key(secret)).collect()
}

fn bounded(about: &ObjectRef, complaints: BTreeSet<Complaint>) -> Vec<Complaint> {
    let more = complaints.len().saturating_sub(MOST);
    let mut kept: Vec<Complaint> = complaints.into_iter().take(MOST).collect();
    if more > 0 {
        let message = format!("{more} more things are wrong with it; the log names them");
        kept.push(Complaint::new(about.clone(), "TooManyProblems", &message));
    }
    kept
}
