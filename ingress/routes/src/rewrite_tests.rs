//! Regular expressions as paths, and rewriting: ingress-nginx's quirks for its class, the specification for all others.

use roadstead_model::Snapshot;

use super::*;
use crate::{ClassChoice, Controller, Outcome, Scheme, compile, fixture, redirect, route};

fn controller() -> Controller {
    let names = ["nginx", "roadstead"].map(str::to_owned).to_vec();
    Controller { classes: ClassChoice { names }, ..Controller::default() }
}

/// An Ingress of host a.example.
fn add(snapshot: &mut Snapshot, (name, class): (&str, &str), paths: &[&str], annotations: &[(&str, &str)]) {
    let mut ingress = fixture::ingress(name);
    ingress.class = Some(class.to_owned());
    ingress.rules.push(fixture::rule(Some("a.example"), paths));
    fixture::annotate(&mut ingress, annotations);
    fixture::add(snapshot, ingress);
}

/// `service target`, or a redirect, or a status.
fn answer(snapshot: &Snapshot, target: &str) -> String {
    let table = compile(snapshot, &controller()).table;
    let scheme = Scheme::Https;
    let asked = fixture::Asked { scheme, host: "a.example", target };
    match route(&table, scheme, "a.example", target) {
        Outcome::Proxy { route, backend } => match redirect(&table, route, scheme, &asked) {
            Some(to) => format!("{} {}", to.status, to.location),
            None => {
                let service = &table.backend(backend).unwrap().service.name;
                format!("{service} {}", rewritten(route, &asked).unwrap_or_else(|| target.to_owned()))
            }
        },
        Outcome::Redirect { redirect, .. } => format!("{} {}", redirect.status, redirect.location),
        Outcome::NotFound => "404".to_owned(),
        other => format!("{other:?}"),
    }
}

fn check(snapshot: &Snapshot, rows: &[(&str, &str)]) {
    for (target, expected) in rows {
        assert_eq!(answer(snapshot, target), *expected, "{target}");
    }
}

fn problems(snapshot: &Snapshot) -> Vec<String> {
    compile(snapshot, &controller()).problems.iter().map(ToString::to_string).collect()
}

/// The Kubernetes blog of 2026-02-27, in a table.
#[test]
fn one_regex_makes_all_paths_of_an_nginx_host_regexes() {
    let mut snapshot = Snapshot::default();
    add(&mut snapshot, ("default/regex", "nginx"), &["I /foo/bar/[A-Z0-9]{3} regex"], &[("use-regex", "true")]);
    let paths = ["E /foo/bar/bar exact", "P /pre prefix", "E /Case case", "I /dot.s dots", "P / root"];
    add(&mut snapshot, ("default/plain", "nginx"), &paths, &[]);
    check(
        &snapshot,
        &[
            // Longer text goes first, even before what is exactly the path.
            ("/foo/bar/bar", "regex /foo/bar/bar"),
            ("/foo/bar/abcde", "regex /foo/bar/abcde"),
            ("/foo/bar/ba", "root /foo/bar/ba"),
            // Exact and Prefix are no more than the beginning of a path, in either case.
            ("/prefix", "prefix /prefix"),
            ("/PRE/x", "prefix /PRE/x"),
            ("/case/below", "case /case/below"),
            ("/dots", "root /dots"),
            ("/dotxs", "dots /dotxs"),
            ("/x%2Fy", "root /x%2Fy"),
        ],
    );
    assert_eq!(problems(&snapshot), Vec::<String>::new());
}

#[test]
fn a_rewrite_makes_a_host_one_of_regexes_too() {
    let mut snapshot = Snapshot::default();
    let rewrite = [("rewrite-target", "/$2")];
    add(&mut snapshot, ("default/rewrite", "nginx"), &["I /api(/|$)(.*) api"], &rewrite);
    add(&mut snapshot, ("default/plain", "nginx"), &["E /Web web"], &[]);
    check(
        &snapshot,
        &[
            ("/api/v1/x?q=1", "api /v1/x?q=1"),
            ("/API/v1", "api /v1"),
            ("/api", "api /"),
            ("/apix", "404"),
            ("/web/x", "web /web/x"),
            ("/api//a/../b%20c%3Fd%25", "api /b%20c%3Fd%25"),
            // A dot takes no line feed, in PCRE as here.
            ("/api/%0dSet-Cookie:x%0ay", "api /%0DSet-Cookie:x"),
            ("/api/%2e%2e/web", "web /api/%2e%2e/web"),
        ],
    );
}

#[test]
fn other_classes_read_only_their_own_implementation_specific_paths_so() {
    let mut snapshot = Snapshot::default();
    let rewrite = [("rewrite-target", "/$2")];
    add(&mut snapshot, ("default/rewrite", "roadstead"), &["I /api(/|$)(.*) api", "P /lit.ral literal"], &rewrite);
    add(
        &mut snapshot,
        ("default/plain", "roadstead"),
        &["E /Web web", "P / root", "P /api/longer/than/that long"],
        &[],
    );
    check(
        &snapshot,
        &[
            ("/api/v1/x?q=1", "api /v1/x?q=1"),
            ("/API/v1", "root /API/v1"),
            ("/api/longer/than/that", "long /api/longer/than/that"),
            ("/web", "root /web"),
            ("/Web", "web /Web"),
            ("/lit.ral/x", "literal /"),
            ("/litXral", "root /litXral"),
        ],
    );
    let field = "Ingress default/rewrite: metadata.annotations[nginx.ingress.kubernetes.io/rewrite-target]";
    let lost =
        format!("warning: {field}: asks for $2 of spec.rules[0].http.paths[1].path, which has 0 groups: it is empty");
    assert_eq!(problems(&snapshot), [lost]);
}

#[test]
fn targets_are_rendered_as_nginx_does() {
    for (path, target, request, expected) in [
        ("I /(.*)", "/x/$1", "/a/b", "web /x/a/b"),
        ("I /(.*)", "/x/$1?old=1", "/a?new=2", "web /x/a?old=1&new=2"),
        ("I /(.*)", "/x/$1?", "/a?dropped", "web /x/a"),
        ("I /(.*)", "/x?path=$1&h=$host", "/a/b", "web /x?path=a/b&h=a.example"),
        ("I /(.*)", "$1", "/a/b", "web /a/b"),
        ("I /(.*)", "/a b/$1", "/c", "web /a%20b/c"),
        ("I /(.*)", "/x$uri", "/a%20b", "web /x/a%20b"),
        ("I /(.*)", "/$2", "/a", "web /"),
        ("P /foo", "/", "/foo/bar", "web /"),
        ("I /foo/(.*)", "https://b.example/$1", "/foo/x?y=1", "302 https://b.example/x?y=1"),
        ("I /foo/(.*)", "https://b.example/?p=$1", "/foo/x?y=1", "302 https://b.example/?p=x&y=1"),
        ("I /foo/(.*)", "http://b.example/$1?", "/foo/x%20z?y=1", "302 http://b.example/x%20z"),
    ] {
        for class in ["nginx", "roadstead"] {
            let mut snapshot = Snapshot::default();
            add(&mut snapshot, ("default/web", class), &[&format!("{path} web")], &[("rewrite-target", target)]);
            assert_eq!(answer(&snapshot, request), expected, "{class} {path} {target} {request}");
        }
    }
}

#[test]
fn what_is_no_regular_expression_is_not_served_and_harms_nobody() {
    let paths = ["I /good/(.*) good", "I /(?!bad).* bad", "I /(a)\\1 bad", "I /( bad"];
    for (class, name) in [("nginx", "default/a"), ("roadstead", "default/b")] {
        let mut snapshot = Snapshot::default();
        add(&mut snapshot, (name, class), &paths, &[("use-regex", "true")]);
        check(&snapshot, &[("/good/x", "good /good/x"), ("/x", "404")]);
        let found = problems(&snapshot).join("\n");
        for reason in [
            "paths[1].path: \"/(?!bad).*\" as a regular expression is not understood: look-around",
            "backreferences are not supported",
            "unclosed group",
        ] {
            assert!(found.contains(reason), "{reason}: {found}");
        }
    }
    let mut plain = Snapshot::default();
    add(&mut plain, ("default/c", "roadstead"), &["P /x web"], &[("use-regex", "true")]);
    assert!(problems(&plain).join("").contains("use-regex is for ImplementationSpecific paths"));
}
