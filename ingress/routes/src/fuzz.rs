//! Entries for fuzzing: what comes from annotations and meets requests.

use std::{collections::BTreeMap, sync::Arc};

use roadstead_model::{
    BackendPort, Host, Ingress, IngressBackend, IngressPath, IngressRule, IngressStatus, Metadata, ObjectName,
    PathType, Snapshot,
};

use crate::{
    Case, ClassChoice, Controller, Facts, Outcome, Pattern, Scheme, Template, Variable, compile, redirect, rewritten,
    route,
};

/// Answers every question with what would break a header or a path.
struct Hostile<'a>(&'a [u8]);

impl Facts for Hostile<'_> {
    fn value(&self, _: &Variable) -> std::borrow::Cow<'_, [u8]> {
        self.0.into()
    }
}

/// An Ingress of class `nginx` with one path, its annotations one a line as `key: value` without their prefix.
fn ingress(path: &str, annotations: &str) -> Ingress {
    let pairs = annotations.lines().filter_map(|line| line.split_once(": "));
    let annotations =
        pairs.map(|(key, value)| (format!("nginx.ingress.kubernetes.io/{key}"), value.to_owned())).collect();
    let name = ObjectName::new("default", "web");
    let port = BackendPort::Name("http".to_owned());
    let backend = IngressBackend::Service { service: name.clone(), port };
    let paths = vec![IngressPath { path: path.to_owned(), path_type: PathType::ImplementationSpecific, backend }];
    Ingress {
        meta: Metadata { name, labels: BTreeMap::new(), annotations, created: None },
        class: Some("nginx".to_owned()),
        default_backend: None,
        tls: Vec::new(),
        rules: vec![IngressRule { host: Some(Host::Exact("a.example".to_owned())), paths }],
        status: IngressStatus::default(),
    }
}

/// Compiles annotations, routes a request by them, and renders every answer that they ask for; returns what a client or an
/// endpoint would get to see, which must not hold a control character.
#[must_use]
pub fn fuzz_annotations(path: &str, annotations: &str, target: &str, value: &[u8]) -> Vec<String> {
    let mut snapshot = Snapshot::default();
    let object = ingress(path, annotations);
    snapshot.ingresses.insert(object.meta.name.clone(), Arc::new(object));
    let classes = ClassChoice { names: vec!["nginx".to_owned()] };
    let compiled = compile(&snapshot, &Controller { classes, ..Controller::default() });
    let facts = Hostile(value);
    match route(&compiled.table, Scheme::Http, "a.example", target) {
        Outcome::Proxy { route, .. } => {
            let away = redirect(&compiled.table, route, Scheme::Http, &facts).map(|to| to.location);
            away.into_iter().chain(rewritten(route, &facts)).collect()
        }
        Outcome::Redirect { redirect, .. } => vec![redirect.location],
        _ => Vec::new(),
    }
}

/// Compiles a pattern and a target, and rewrites a path by them.
#[must_use]
pub fn fuzz_rewrite(pattern: &str, target: &str, path: &[u8]) -> Option<Vec<u8>> {
    let pattern = Pattern::new(pattern, Case::Insensitive).ok()?;
    let template = Template::parse(target).ok()?;
    let begins = pattern.begins(path);
    let captures = pattern.captures(path);
    assert!(!begins || captures.is_some(), "what begins a path is found in it");
    Some(template.render(&Hostile(captures?.get(0)?.as_bytes())))
}

/// Parses whatever text comes, and renders it for a request that answers every question with what would break a header.
#[must_use]
pub fn fuzz_template(text: &str) -> Option<Vec<u8>> {
    let hostile = Hostile(b"\r\nSet-Cookie: a=b\0\x7f\xff");
    Template::parse(text).ok().map(|template| template.render(&hostile))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_holds_a_control_character() {
        let value = b"/a\r\nSet-Cookie: a=b\0";
        for annotations in [
            "rewrite-target: /x/$1?$arg_a",
            "rewrite-target: https://b.example/$1",
            "permanent-redirect: https://b.example/$http_x",
            "force-ssl-redirect: true",
        ] {
            for target in ["/", "/a%0d%0ab", "/x?y"] {
                let annotations = format!("use-regex: true\n{annotations}");
                let shown = fuzz_annotations("/(.*)", &annotations, target, value);
                assert!(!shown.is_empty(), "{annotations} {target}");
                assert!(shown.iter().all(|text| text.bytes().all(|byte| byte.is_ascii_graphic())), "{shown:?}");
            }
        }
        assert_eq!(fuzz_rewrite("/(a", "/$1", b"/a"), None);
        assert!(fuzz_rewrite("/(a)", "/$1", b"/a").is_some());
    }
}
