//! The tables of the Ingress specification, row by row, and the rules for hosts.

use roadstead_model::Snapshot;

use super::*;
use crate::{Controller, compile, fixture, redirect};

fn table(hosts: &[(Option<&str>, &[&str])]) -> Arc<Table> {
    let mut snapshot = Snapshot::default();
    let mut ingress = fixture::ingress("default/web");
    ingress.rules = hosts.iter().map(|(host, paths)| fixture::rule(*host, paths)).collect();
    fixture::add(&mut snapshot, ingress);
    compile(&snapshot, &Controller::default()).table
}

/// The Service that takes the request, or why none does.
pub(crate) fn answer(table: &Table, scheme: Scheme, host: &str, path: &str) -> String {
    match route(table, scheme, host, path) {
        Outcome::Proxy { route, backend } => {
            match redirect(table, route, scheme, &fixture::Asked { scheme, host, target: path }) {
                Some(to) => format!("{} {}", to.status, to.location),
                None => table.backend(backend).unwrap().service.name.to_string(),
            }
        }
        Outcome::Redirect { redirect, .. } => format!("{} {}", redirect.status, redirect.location),
        Outcome::Unavailable { .. } => "503".to_owned(),
        Outcome::NotFound => "404".to_owned(),
        Outcome::BadPath(_) => "400".to_owned(),
    }
}

fn check_path(paths: &[&str], request: &str, expected: &str) {
    let table = table(&[(Some("foo.example"), paths)]);
    assert_eq!(answer(&table, Scheme::Http, "foo.example", request), expected, "{paths:?} {request}");
}

#[test]
fn the_path_table_of_the_specification_holds() {
    for (paths, request, expected) in [
        (&["P / root"][..], "/any/path", "root"),
        (&["E /foo foo"], "/foo", "foo"),
        (&["E /foo foo"], "/bar", "404"),
        (&["E /foo foo"], "/foo/", "404"),
        (&["E /foo/ foo"], "/foo", "404"),
        (&["P /foo foo"], "/foo", "foo"),
        (&["P /foo foo"], "/foo/", "foo"),
        (&["P /foo/ foo"], "/foo", "foo"),
        (&["P /foo/ foo"], "/foo/", "foo"),
        (&["P /aaa/bb b"], "/aaa/bbb", "404"),
        (&["P /aaa/bbb b"], "/aaa/bbb", "b"),
        (&["P /aaa/bbb/ b"], "/aaa/bbb", "b"),
        (&["P /aaa/bbb b"], "/aaa/bbb/", "b"),
        (&["P /aaa/bbb b"], "/aaa/bbb/ccc", "b"),
        (&["P /aaa/bbb b"], "/aaa/bbbxyz", "404"),
        (&["P / root", "P /aaa aaa"], "/aaa/ccc", "aaa"),
        (&["P / root", "P /aaa aaa", "P /aaa/bbb b"], "/aaa/bbb", "b"),
        (&["P / root", "P /aaa aaa", "P /aaa/bbb b"], "/ccc", "root"),
        (&["P /aaa aaa"], "/ccc", "404"),
        (&["P /foo prefix", "E /foo exact"], "/foo", "exact"),
    ] {
        check_path(paths, request, expected);
    }
}

#[test]
fn paths_are_case_sensitive_and_compared_after_normalising() {
    check_path(&["E /foo foo"], "/FOO", "404");
    check_path(&["P /foo foo"], "/x/../foo//bar?q=/..", "foo");
    check_path(&["P /foo foo"], "/%66oo", "foo");
    check_path(&["P /foo foo"], "/foo/%2e%2e/bar", "404");
    check_path(&["P /foo foo"], "/..", "400");
    check_path(&["P /foo foo"], "/foo?x", "foo");
}

#[test]
fn raw_prefixes_take_what_prefixes_of_elements_do_not() {
    check_path(&["I /foo raw"], "/foobar", "raw");
    check_path(&["I /foo raw", "P /foo prefix"], "/foo", "prefix");
    check_path(&["I /foo raw", "P /foo prefix"], "/foobar", "raw");
    check_path(&["I /foo/ba raw", "P /foo prefix"], "/foo/bar", "raw");
    check_path(&["I /f short", "I /foo long"], "/food", "long");
    check_path(&["I  root"], "/anything", "root");
}

#[test]
fn a_prefix_with_and_without_slash_may_lead_to_two_services() {
    let both = ["P /foo bare", "P /foo/ slashed"];
    check_path(&both, "/foo", "bare");
    check_path(&both, "/foo/", "slashed");
    check_path(&both, "/foo/bar", "slashed");
}

#[test]
fn hosts_are_chosen_before_paths() {
    let table = table(&[
        (Some("bar.foo.example"), &["P /only exact"]),
        (Some("*.foo.example"), &["P / wildcard"]),
        (None, &["P / any"]),
    ]);
    for (host, path, expected) in [
        ("bar.foo.example", "/only", "exact"),
        ("bar.foo.example", "/else", "404"),
        ("BAR.foo.example.:8080", "/only", "exact"),
        ("baz.foo.example", "/only", "wildcard"),
        ("a.b.foo.example", "/", "any"),
        ("foo.example", "/", "any"),
        (".foo.example", "/", "any"),
        ("", "/", "any"),
        ("192.0.2.1", "/", "any"),
    ] {
        assert_eq!(answer(&table, Scheme::Http, host, path), expected, "{host}{path}");
    }
}

#[test]
fn default_backends_take_what_is_left() {
    let mut snapshot = Snapshot::default();
    let mut ruled = fixture::ingress("default/ruled");
    ruled.rules.push(fixture::rule(Some("foo.example"), &["P /foo foo"]));
    ruled.default_backend = Some(fixture::backend("of-the-host"));
    fixture::add(&mut snapshot, ruled);
    let mut other = fixture::ingress("default/other");
    other.rules.push(fixture::rule(Some("bar.example"), &["P /bar bar"]));
    fixture::add(&mut snapshot, other);
    let without = compile(&snapshot, &Controller::default()).table;
    let mut catch_all = fixture::ingress("default/catch-all");
    catch_all.default_backend = Some(fixture::backend("of-all"));
    fixture::add(&mut snapshot, catch_all);
    let with = compile(&snapshot, &Controller::default()).table;
    for (host, path, expected, expected_without) in [
        ("foo.example", "/foo", "foo", "foo"),
        ("foo.example", "/else", "of-the-host", "of-the-host"),
        ("bar.example", "/else", "404", "404"),
        ("unknown.example", "/", "of-all", "404"),
    ] {
        assert_eq!(answer(&with, Scheme::Http, host, path), expected, "{host}{path}");
        assert_eq!(answer(&without, Scheme::Http, host, path), expected_without, "{host}{path} without");
    }
}
