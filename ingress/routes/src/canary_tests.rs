//! Which requests a canary takes, and which canary a route gets.

use std::borrow::Cow;

use roadstead_model::Snapshot;

use super::*;
use crate::{ClassChoice, Controller, Outcome, Scheme, compile, fixture, route};

/// A request with these fields: `header name` or `cookie name`.
struct Fields<'a>(&'a [(&'a str, &'a str)]);

impl Facts for Fields<'_> {
    fn value(&self, variable: &Variable) -> Cow<'_, [u8]> {
        let key = match variable {
            Variable::Header(name) => format!("header {name}"),
            Variable::Cookie(name) => format!("cookie {name}"),
            other => panic!("{other:?} is not asked for"),
        };
        self.0.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| value).as_bytes().into()
    }
}

fn controller() -> Controller {
    let names = ["nginx", "roadstead"].map(str::to_owned).to_vec();
    Controller { classes: ClassChoice { names }, ..Controller::default() }
}

fn add(snapshot: &mut Snapshot, (name, class): (&str, &str), paths: &[&str], annotations: &[(&str, &str)]) {
    let mut ingress = fixture::ingress(name);
    ingress.class = Some(class.to_owned());
    ingress.rules.push(fixture::rule(Some("a.example"), paths));
    fixture::annotate(&mut ingress, annotations);
    fixture::add(snapshot, ingress);
}

/// The canary of `/` beside a main Ingress.
fn canary(annotations: &[(&str, &str)]) -> RouteCanary {
    let mut snapshot = Snapshot::default();
    add(&mut snapshot, ("default/main", "roadstead"), &["P / main"], &[]);
    let on = [&[("canary", "true")], annotations].concat();
    add(&mut snapshot, ("default/canary", "roadstead"), &["P / canary"], &on);
    let compiled = compile(&snapshot, &controller());
    assert_eq!(compiled.problems, [], "{annotations:?}");
    let Outcome::Proxy { route, .. } = route(&compiled.table, Scheme::Http, "a.example", "/") else {
        panic!("no route")
    };
    route.canary.clone().unwrap_or_else(|| panic!("no canary: {annotations:?}"))
}

#[test]
fn header_goes_before_cookie_and_cookie_before_weight() {
    let header = ("canary-by-header", "X_Canary");
    let cookie = ("canary-by-cookie", "beta");
    let value = ("canary-by-header-value", "me");
    let pattern = ("canary-by-header-pattern", "^(a|b)$");
    let all = ("canary-weight", "100");
    let (to, off) = (("header x-canary", "always"), ("header x-canary", "never"));
    let (beta, stable) = (("cookie beta", "always"), ("cookie beta", "never"));
    for (annotations, request, expected) in [
        (&[header][..], &[to][..], true),
        (&[header], &[off], false),
        (&[header], &[("header x-canary", "Always")], false),
        (&[header], &[], false),
        (&[header, cookie], &[off, beta], false),
        (&[header, cookie], &[to, stable], true),
        (&[header, cookie], &[("header x-canary", "else"), beta], true),
        (&[cookie], &[beta], true),
        (&[cookie, all], &[stable], false),
        (&[cookie, all], &[("cookie beta", "x")], true),
        (&[header, all], &[off], false),
        (&[header, value], &[("header x-canary", "me")], true),
        (&[header, value], &[to], false),
        (&[header, value, all], &[("header x-canary", "other")], true),
        (&[header, pattern], &[("header x-canary", "a")], true),
        (&[header, pattern], &[("header x-canary", "ab")], false),
        (&[header, pattern], &[], false),
        (&[all], &[], true),
        (&[], &[to, beta], false),
    ] {
        let taken = canary(annotations).takes(&Fields(request), |total| total - 1);
        assert_eq!(taken, expected, "{annotations:?} {request:?}");
    }
}

#[test]
fn weights_are_shares_of_their_total() {
    for (annotations, expected) in [
        (&[("canary-weight", "0")][..], 0),
        (&[("canary-weight", "1")], 1),
        (&[("canary-weight", "30")], 30),
        (&[("canary-weight", "100")], 100),
        (&[("canary-weight", "30"), ("canary-weight-total", "1000")], 30),
    ] {
        let canary = canary(annotations);
        let taken = (0..canary.rules.total).filter(|number| canary.takes(&Fields(&[]), |_| *number)).count();
        assert_eq!(taken, expected, "{annotations:?}");
    }
}

fn problems(snapshot: &Snapshot) -> Vec<String> {
    compile(snapshot, &controller()).problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_canary_without_a_main_ingress_is_not_served() {
    let on = [("canary", "true"), ("canary-weight", "100")];
    let mut snapshot = Snapshot::default();
    add(&mut snapshot, ("default/canary", "nginx"), &["P / canary", "P /x canary"], &on);
    let table = compile(&snapshot, &controller()).table;
    assert_eq!(route(&table, Scheme::Http, "a.example", "/"), Outcome::NotFound);
    add(&mut snapshot, ("default/main", "nginx"), &["P / main", "E /x main"], &[]);
    let table = compile(&snapshot, &controller()).table;
    let canary_of = |path| match route(&table, Scheme::Http, "a.example", path) {
        Outcome::Proxy { route, .. } => route.canary.is_some(),
        other => panic!("{other:?}"),
    };
    assert_eq!((canary_of("/"), canary_of("/x")), (true, false), "type and path must be the same");
    let expected = "spec.rules[0].http.paths[1]: no Ingress that is no canary serves Prefix path \"/x\" of host a.example: not served";
    assert_eq!(problems(&snapshot), [format!("warning: Ingress default/canary: {expected}")]);
}

#[test]
fn a_rule_has_one_canary_and_the_loser_is_told() {
    let on = [("canary", "true")];
    let mut snapshot = Snapshot::default();
    add(&mut snapshot, ("default/a", "nginx"), &["P / main"], &[]);
    add(&mut snapshot, ("default/b", "nginx"), &["P / first"], &on);
    add(&mut snapshot, ("default/c", "nginx"), &["P / second"], &on);
    add(&mut snapshot, ("default/d", "nginx"), &["P /d d"], &[]);
    add(&mut snapshot, ("default/e", "nginx"), &["P /d d"], &on);
    assert_eq!(
        problems(&snapshot),
        [
            "warning: Ingress default/c: spec.rules[0].http.paths[0]: Prefix path \"/\" of host a.example has the canary of Ingress \
             default/b already, and a rule has one: not served",
            "warning: Ingress default/e: spec.rules[0].http.paths[0]: is the backend of the main Ingress default/d too: no canary",
        ]
    );
}

#[test]
fn only_class_nginx_takes_canaries_from_other_namespaces() {
    for (class, taken) in [("nginx", true), ("roadstead", false)] {
        let mut snapshot = Snapshot::default();
        add(&mut snapshot, ("default/main", class), &["P / main"], &[]);
        add(&mut snapshot, ("other/canary", class), &["P / canary"], &[("canary", "true")]);
        assert_eq!(problems(&snapshot).is_empty(), taken, "{class}");
    }
}

#[test]
fn an_unreadable_canary_takes_nothing() {
    let mut snapshot = Snapshot::default();
    add(&mut snapshot, ("default/a", "nginx"), &["P / canary"], &[("canary", "yes")]);
    add(&mut snapshot, ("default/b", "nginx"), &["P / main"], &[]);
    let table = compile(&snapshot, &controller()).table;
    let Outcome::Proxy { route, .. } = route(&table, Scheme::Http, "a.example", "/") else { panic!("no route") };
    assert_eq!((route.ingress.name.to_string(), route.canary.is_none()), ("b".to_owned(), true));
    assert_eq!(problems(&snapshot).len(), 1);
}
