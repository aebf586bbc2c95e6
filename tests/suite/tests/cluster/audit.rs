//! The installer's roles against what was asked: by the API server's audit log nobody was refused, and every verb of every
//! rule was needed for every resource and name.

use std::collections::BTreeSet;

use serde_json::Value;

use super::fixture::{Cluster, text};
use super::install::SYSTEM;

/// One thing that a rule allows, or that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    account: String,
    group: String,
    /// With its subresource: `services/status`.
    resource: String,
    verb: String,
    /// The only name that a rule allows; empty for all.
    name: String,
}

/// Nobody was refused anything so far.
#[track_caller]
pub(crate) fn assert_nobody_refused(cluster: &Cluster) {
    let events = cluster.control.audit().unwrap();
    let refused: BTreeSet<String> = decided(&events, "forbid").map(shown).collect();
    assert!(refused.is_empty(), "refused: {refused:#?}");
}

/// Everything that the installer's roles allow was asked for.
#[track_caller]
pub(crate) fn assert_all_rights_used(cluster: &Cluster) {
    let events = cluster.control.audit().unwrap();
    // An API server that has just started refuses everything until it knows the roles; what it granted later was right.
    let granted: BTreeSet<String> = decided(&events, "allow").map(shown).collect();
    // Who knocks to learn that it is there takes a refusal for a yes, and does not ask again; no role of ours is about that.
    let is_knock = |one: &String| one.ends_with(" get /readyz");
    let refused: BTreeSet<String> =
        decided(&events, "forbid").map(shown).filter(|one| !granted.contains(one) && !is_knock(one)).collect();
    assert!(refused.is_empty(), "refused for ever: {refused:#?}");
    let asked: BTreeSet<Right> = decided(&events, "allow").filter_map(asked).collect();
    let superfluous: Vec<Right> =
        allowed(cluster).into_iter().filter(|right| !asked.iter().any(|asked| right.covers(asked))).collect();
    assert!(superfluous.is_empty(), "allowed, but never asked for: {superfluous:#?}\nasked for: {asked:#?}");
}

fn decided<'a>(events: &'a [Value], decision: &'a str) -> impl Iterator<Item = &'a Value> {
    events.iter().filter(move |event| text(event, "/annotations/authorization.k8s.io~1decision") == decision)
}

/// Who asked for what: of a path without its parameters.
fn shown(event: &Value) -> String {
    let path = text(event, "/requestURI").split('?').next().unwrap_or_default();
    format!("{} {} {path}", text(event, "/user/username"), text(event, "/verb"))
}

impl Right {
    fn covers(&self, asked: &Self) -> bool {
        let named = self.name.is_empty() || self.name == asked.name;
        named && Self { name: String::new(), ..self.clone() } == Self { name: String::new(), ..asked.clone() }
    }
}

/// What an event of the log asked for, if it was about an object.
fn asked(event: &Value) -> Option<Right> {
    let account = text(event, "/user/username").strip_prefix(&format!("system:serviceaccount:{SYSTEM}:"))?;
    let reference = event.get("objectRef")?;
    let resource = match text(reference, "/subresource") {
        "" => text(reference, "/resource").to_owned(),
        below => format!("{}/{below}", text(reference, "/resource")),
    };
    Some(Right {
        account: account.to_owned(),
        group: text(reference, "/apiGroup").to_owned(),
        resource,
        verb: text(event, "/verb").to_owned(),
        name: text(reference, "/name").to_owned(),
    })
}

/// Everything that the roles of the installer allow, one by one.
fn allowed(cluster: &Cluster) -> Vec<Right> {
    let api = "/apis/rbac.authorization.k8s.io/v1";
    let mut rights = Vec::new();
    for (bindings, roles) in [
        (format!("{api}/clusterrolebindings"), format!("{api}/clusterroles")),
        (format!("{api}/namespaces/{SYSTEM}/rolebindings"), format!("{api}/namespaces/{SYSTEM}/roles")),
    ] {
        for binding in cluster.list(&bindings) {
            let subjects = list(&binding, "subjects");
            let ours = subjects.iter().filter(|subject| text(subject, "/namespace") == SYSTEM);
            let accounts: Vec<&str> = ours.map(|subject| text(subject, "/name")).collect();
            if accounts.is_empty() {
                continue;
            }
            let role = cluster.control.get(&format!("{roles}/{}", text(&binding, "/roleRef/name"))).unwrap();
            for rule in list(&role, "rules") {
                accounts.iter().for_each(|account| rights.extend(of_rule(account, &rule)));
            }
        }
    }
    assert!(rights.len() > 20, "the installer's roles were not found: {rights:?}");
    rights
}

fn of_rule(account: &str, rule: &Value) -> Vec<Right> {
    let words = |field: &str| -> Vec<String> {
        list(rule, field).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let names = words("resourceNames");
    let names = if names.is_empty() { vec![String::new()] } else { names };
    let mut rights = Vec::new();
    for group in words("apiGroups") {
        for resource in words("resources") {
            for verb in words("verbs") {
                rights.extend(names.iter().map(|name| Right {
                    account: account.to_owned(),
                    group: group.clone(),
                    resource: resource.clone(),
                    verb: verb.clone(),
                    name: name.clone(),
                }));
            }
        }
    }
    rights
}

fn list(object: &Value, field: &str) -> Vec<Value> {
    object.get(field).and_then(Value::as_array).cloned().unwrap_or_default()
}

#[test]
fn a_rule_is_all_its_combinations() {
    let rule = serde_json::json!({"apiGroups": [""], "resources": ["a", "b"], "verbs": ["get", "list"], "resourceNames": ["x"]});
    let rights = of_rule("agent", &rule);
    assert_eq!(rights.len(), 4);
    let event = serde_json::json!({
        "user": {"username": "system:serviceaccount:roadstead-system:agent"},
        "verb": "get",
        "objectRef": {"resource": "a", "name": "x"},
    });
    let asked = asked(&event).unwrap();
    assert_eq!(rights.iter().filter(|right| right.covers(&asked)).count(), 1);
    assert!(!rights.iter().any(|right| right.covers(&Right { name: "y".to_owned(), ..asked.clone() })));
}
