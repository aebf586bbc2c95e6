//! Where requests are sent, by annotation, option and class.

use roadstead_model::{IngressTls, ObjectName, Snapshot};

use crate::{Controller, Scheme, compile, fixture, route::tests::answer};

const HTTP: Scheme = Scheme::Http;
const HTTPS: Scheme = Scheme::Https;

/// An Ingress of a class that serves `hosts`, each by these paths, and has a TLS entry for `tls`.
fn add(
    snapshot: &mut Snapshot,
    (name, class): (&str, &str),
    hosts: &[&str],
    paths: &[&str],
    tls: &[&str],
    annotations: &[(&str, &str)],
) {
    let mut ingress = fixture::ingress(name);
    ingress.class = Some(class.to_owned());
    ingress.rules = hosts.iter().map(|host| fixture::rule(Some(host), paths)).collect();
    if !tls.is_empty() {
        let secret = Some(ObjectName::new("default", "pair"));
        ingress.tls.push(IngressTls { hosts: tls.iter().map(|host| fixture::host(host)).collect(), secret });
    }
    fixture::annotate(&mut ingress, annotations);
    fixture::add(snapshot, ingress);
}

fn controller() -> Controller {
    let names = ["nginx", "roadstead"].map(str::to_owned).to_vec();
    Controller { classes: crate::ClassChoice { names }, ..Controller::default() }
}

fn check(snapshot: &Snapshot, rows: &[(Scheme, &str, &str, &str)]) {
    let table = compile(snapshot, &controller()).table;
    for (scheme, host, path, expected) in rows {
        assert_eq!(answer(&table, *scheme, host, path), *expected, "{scheme:?} {host}{path}");
    }
}

/// One Ingress with TLS, of either class.
fn check_one(class: &str, paths: &[&str], annotations: &[(&str, &str)], rows: &[(Scheme, &str, &str, &str)]) {
    let mut snapshot = Snapshot::default();
    add(&mut snapshot, ("default/web", class), &["a.example"], paths, &["a.example"], annotations);
    check(&snapshot, rows);
}

#[test]
fn tls_hosts_are_sent_to_https_unless_told_otherwise() {
    let mut snapshot = Snapshot::default();
    let off = ("ssl-redirect", "false");
    let forced = ("force-ssl-redirect", "true");
    for (name, host, tls, annotations) in [
        ("default/a", "a.example", &["a.example"][..], &[][..]),
        ("default/b", "b.example", &["b.example"], &[off]),
        ("default/c", "c.example", &[], &[]),
        ("default/d", "d.example", &[], &[forced, off]),
    ] {
        add(&mut snapshot, (name, "roadstead"), &[host], &["P / web"], tls, annotations);
    }
    check(
        &snapshot,
        &[
            (HTTP, "A.example:80", "/x//y?q=1", "308 https://a.example/x//y?q=1"),
            (HTTP, "a.example", "/x/", "308 https://a.example/x/"),
            (HTTPS, "a.example", "/x", "web"),
            (HTTP, "a.example", "/.well-known/acme-challenge/token", "web"),
            (HTTP, "a.example", "/.well-known/acme-challenger", "308 https://a.example/.well-known/acme-challenger"),
            (HTTP, "b.example", "/", "web"),
            (HTTP, "c.example", "/", "web"),
            (HTTP, "d.example", "/", "308 https://d.example/"),
            (HTTPS, "d.example", "/", "web"),
        ],
    );
}

#[test]
fn class_nginx_drops_one_slash_and_leaves_only_rules_of_their_own_in_the_clear() {
    let acme = "E /.well-known/acme-challenge/token solver";
    check_one(
        "nginx",
        &["P / web", acme],
        &[],
        &[
            (HTTP, "a.example:80", "/x/", "308 https://a.example/x"),
            (HTTP, "a.example:80", "/x//", "308 https://a.example/x/"),
            (HTTP, "a.example", "/", "308 https://a.example"),
            (HTTP, "a.example", "/x/?q", "308 https://a.example/x/?q"),
            (HTTP, "a.example", "/.well-known/acme-challenge/token", "solver"),
            (
                HTTP,
                "a.example",
                "/.well-known/acme-challenge/other",
                "308 https://a.example/.well-known/acme-challenge/other",
            ),
        ],
    );
    let kept = [("preserve-trailing-slash", "true")];
    check_one("nginx", &["P / web"], &kept, &[(HTTP, "a.example", "/x/", "308 https://a.example/x/")]);
}

#[test]
fn moved_ingresses_send_everything_away_before_https() {
    let to = [("permanent-redirect", "https://b.example$request_uri")];
    check_one(
        "roadstead",
        &["P / web"],
        &to,
        &[
            (HTTP, "a.example", "/x?y=1", "301 https://b.example/x?y=1"),
            (HTTPS, "a.example", "/x?y=1", "301 https://b.example/x?y=1"),
        ],
    );
    let to = [("temporal-redirect", "http://b.example/?from=$escaped_request_uri"), ("temporal-redirect-code", "303")];
    check_one("nginx", &["P / web"], &to, &[(HTTP, "a.example", "/", "303 http://b.example/?from=%2F")]);
    let to = [("permanent-redirect", "https://b.example/$arg_next")];
    let row = (HTTPS, "a.example", "/?next=%0d%0aSet-Cookie:x", "301 https://b.example/%0d%0aSet-Cookie:x");
    check_one("nginx", &["P / web"], &to, &[row]);
}

#[test]
fn the_root_of_a_host_is_sent_to_its_app_root() {
    let root = [("app-root", "/app/home")];
    for class in ["nginx", "roadstead"] {
        check_one(
            class,
            &["P /app web"],
            &root,
            &[
                (HTTP, "a.example:8080", "/", "302 http://a.example:8080/app/home"),
                (HTTPS, "a.example", "/?x", "302 https://a.example/app/home"),
                (HTTPS, "a.example", "/app/home", "web"),
            ],
        );
        let mut snapshot = Snapshot::default();
        add(&mut snapshot, ("default/owner", class), &["a.example"], &["P / owner"], &[], &[]);
        add(&mut snapshot, ("default/thief", class), &["a.example"], &["P /app web"], &[], &root);
        let expected = if class == "nginx" { "302 http://a.example/app/home" } else { "owner" };
        check(&snapshot, &[(HTTP, "a.example", "/", expected)]);
    }
}

#[test]
fn the_sibling_of_a_host_is_sent_to_it() {
    let www = [("from-to-www-redirect", "true")];
    for (class, kept) in [("nginx", ""), ("roadstead", "/")] {
        let mut snapshot = Snapshot::default();
        let hosts = ["a.example", "www.b.example"];
        add(&mut snapshot, ("default/web", class), &hosts, &["P / web"], &["a.example"], &www);
        add(&mut snapshot, ("default/wild", class), &["*.a.example"], &["P / wild"], &[], &[]);
        check(
            &snapshot,
            &[
                (HTTP, "www.a.example", "/x/?y=1", "308 http://a.example/x/?y=1"),
                (HTTPS, "WWW.a.example:8443", "/x/", &format!("308 https://a.example:8443/x{kept}")),
                (HTTP, "b.example", "/x", "308 http://www.b.example/x"),
                (HTTPS, "a.example", "/", "web"),
                (HTTP, "other.a.example", "/", "wild"),
            ],
        );
        let compiled = compile(&snapshot, &controller());
        let entry = compiled.table.certificates().lookup("www.a.example");
        assert_eq!(entry.and_then(|entry| entry.secret.clone()), Some(ObjectName::new("default", "pair")));
        assert_eq!(compiled.problems, []);
    }
}

#[test]
fn a_sibling_that_is_a_host_stays_one_and_that_is_reported() {
    let www = [("from-to-www-redirect", "true")];
    let mut snapshot = Snapshot::default();
    add(&mut snapshot, ("default/web", "roadstead"), &["a.example", "*.c.example"], &["P / web"], &[], &www);
    add(&mut snapshot, ("default/www", "roadstead"), &["www.a.example"], &["P / www"], &[], &[]);
    check(&snapshot, &[(HTTP, "www.a.example", "/", "www")]);
    let problems: Vec<_> = compile(&snapshot, &controller()).problems.iter().map(ToString::to_string).collect();
    let field = "Ingress default/web: metadata.annotations[nginx.ingress.kubernetes.io/from-to-www-redirect]";
    assert_eq!(
        problems,
        [
            format!("warning: {field}: has no effect: host www.a.example has rules of its own"),
            format!("warning: {field}: has no effect on the wildcard host *.c.example"),
        ]
    );
}

#[test]
fn class_nginx_alone_sends_to_the_path_with_a_slash() {
    let paths = ["P / root", "E /exact/ exact", "I /raw/ raw", "P /prefix/ prefix", "E /both both", "I /both/ slashed"];
    let off = [("ssl-redirect", "false")];
    check_one(
        "nginx",
        &paths,
        &off,
        &[
            (HTTP, "a.example:81", "/exact?q", "301 http://a.example:81/exact/?q"),
            (HTTP, "a.example", "/raw", "301 http://a.example/raw/"),
            (HTTP, "a.example", "/x/../raw", "301 http://a.example/raw/"),
            (HTTP, "a.example", "/prefix", "301 http://a.example/prefix/"),
            (HTTP, "a.example", "/both", "both"),
            (HTTP, "a.example", "/raw/x", "raw"),
            (HTTP, "a.example", "/rawx", "root"),
        ],
    );
    check_one(
        "roadstead",
        &paths,
        &off,
        &[
            (HTTP, "a.example", "/exact", "root"),
            (HTTP, "a.example", "/raw", "root"),
            (HTTP, "a.example", "/prefix", "prefix"),
        ],
    );
    let relative = [("relative-redirects", "true"), off[0]];
    check_one("nginx", &paths, &relative, &[(HTTP, "a.example", "/raw", "301 /raw/")]);
}

#[test]
fn options_hold_for_all_ingresses() {
    let options = [
        ("ssl-redirect", "true"),
        ("force-ssl-redirect", "true"),
        ("http-redirect-code", "301"),
        ("no-tls-redirect-locations", "/health, /ready"),
    ];
    let mut snapshot = Snapshot::default();
    fixture::options(&mut snapshot, &options);
    add(&mut snapshot, ("default/web", "nginx"), &["a.example"], &["P / web", "P /healthz ok"], &[], &[]);
    let off = [("force-ssl-redirect", "false")];
    add(&mut snapshot, ("default/off", "nginx"), &["b.example"], &["P / web"], &[], &off);
    check(
        &snapshot,
        &[
            (HTTP, "a.example", "/x", "301 https://a.example/x"),
            (HTTP, "a.example", "/healthz", "ok"),
            (HTTP, "b.example", "/x", "web"),
        ],
    );
    fixture::options(&mut snapshot, &[("http-redirect-code", "200")]);
    let problems = compile(&snapshot, &controller()).problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].to_string().contains("data[http-redirect-code]: must be 301, 302, 307 or 308"), "{problems:?}");
}
