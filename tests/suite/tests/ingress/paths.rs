//! The path table of Ingress v1, whole (the Kubernetes documentation, "Ingress", section "Examples"), and what of it is
//! ours to decide: `ImplementationSpecific`, and how a path is read before it is matched.

use super::{
    client::{ask, get},
    daemon::Proxy,
    manifests::{ingress, service},
    pod::{Pod, host_address},
};

/// Kind and paths of a rule, requests, and the path that takes them, if one does.
type Row = (&'static str, &'static [&'static str], &'static [&'static str], Option<&'static str>);

const ROWS: [Row; 18] = [
    ("Prefix", &["/"], &["/", "/any", "/a/b/", "/a?b=c"], Some("/")),
    ("Exact", &["/foo"], &["/foo", "/foo?x"], Some("/foo")),
    ("Exact", &["/foo"], &["/bar"], None),
    ("Exact", &["/foo"], &["/foo/"], None),
    ("Exact", &["/foo/"], &["/foo"], None),
    ("Prefix", &["/foo"], &["/foo", "/foo/"], Some("/foo")),
    ("Prefix", &["/foo/"], &["/foo", "/foo/"], Some("/foo/")),
    ("Prefix", &["/aaa/bb"], &["/aaa/bbb"], None),
    ("Prefix", &["/aaa/bbb"], &["/aaa/bbb"], Some("/aaa/bbb")),
    ("Prefix", &["/aaa/bbb/"], &["/aaa/bbb"], Some("/aaa/bbb/")),
    ("Prefix", &["/aaa/bbb"], &["/aaa/bbb/"], Some("/aaa/bbb")),
    ("Prefix", &["/aaa/bbb"], &["/aaa/bbb/ccc"], Some("/aaa/bbb")),
    ("Prefix", &["/aaa/bbb"], &["/aaa/bbbxyz"], None),
    ("Prefix", &["/", "/aaa"], &["/aaa/ccc"], Some("/aaa")),
    ("Prefix", &["/", "/aaa", "/aaa/bbb"], &["/aaa/bbb"], Some("/aaa/bbb")),
    ("Prefix", &["/", "/aaa", "/aaa/bbb"], &["/ccc"], Some("/")),
    ("Prefix", &["/aaa"], &["/ccc"], None),
    ("Mixed", &["/foo"], &["/foo"], Some("Exact /foo")),
];

/// Every path leads to a Service that is named after its place in the rule; the rows have a host each.
#[test]
fn the_path_table_of_ingress_v1_holds() {
    let Some(ip) = host_address() else { return };
    let pods: Vec<Pod> = (0..3).map(|place| Pod::start(ip, &place.to_string())).collect();
    let mut text: String = (0..3).map(|place| service(&format!("place-{place}"), &[&pods[place]])).collect();
    for (row, (kind, paths, ..)) in ROWS.iter().enumerate() {
        let names: Vec<String> = (0..3).map(|place| format!("place-{place}")).collect();
        let paths: Vec<_> = match *kind {
            "Mixed" => vec![("Prefix", paths[0], &*names[0]), ("Exact", paths[0], &*names[1])],
            kind => paths.iter().zip(&names).map(|(path, name)| (kind, *path, &**name)).collect(),
        };
        text.push_str(&ingress(&format!("row-{row}"), &format!("row-{row}.example"), &paths));
    }
    let proxy = Proxy::start(&[("all.yaml", &text)]);
    for (row, (kind, paths, requests, expected)) in ROWS.iter().enumerate() {
        for target in *requests {
            let answer = ask(proxy.http, get(&format!("row-{row}.example"), target));
            let case = format!("{kind} {paths:?}: {target}");
            let Some(expected) = expected else {
                assert_eq!(answer.status, 404, "{case}");
                continue;
            };
            let place = if *kind == "Mixed" { 1 } else { paths.iter().position(|path| path == expected).unwrap() };
            assert_eq!(answer.status, 200, "{case}");
            assert_eq!((answer.seen().pod, &*answer.seen().target), (place.to_string(), *target), "{case}");
        }
    }
    println!("{} rows of the path table hold", ROWS.len());
}

/// One host has them all. Longest path first, on a tie Exact before Prefix before the string; paths are read as nginx
/// reads them, and go on as the client wrote them (reference 2.1, 2.2(3)).
#[test]
fn paths_are_read_normalised_and_sent_on_as_written() {
    let Some(ip) = host_address() else { return };
    let paths = [
        ("Prefix", "/", "root"),
        ("ImplementationSpecific", "/raw", "raw"),
        ("ImplementationSpecific", "/raw/long", "raw-long"),
        ("Prefix", "/raw/long", "prefix"),
        ("Exact", "/exact/x", "exact"),
        ("Prefix", "/sp ace", "space"),
        ("Prefix", "/api", "api"),
    ];
    let pods: Vec<Pod> = paths.iter().map(|(_, _, name)| Pod::start(ip, name)).collect();
    let mut text: String = paths.iter().zip(&pods).map(|((_, _, name), pod)| service(name, &[pod])).collect();
    text.push_str(&ingress("all", "a.example", &paths));
    let proxy = Proxy::start(&[("all.yaml", &text)]);
    for (target, expected) in [
        ("/", "root"),
        ("/raw", "raw"),
        ("/rawer", "raw"),
        ("/raw/longer", "raw-long"),
        ("/raw/long", "prefix"),
        ("/raw/long/x", "prefix"),
        ("/Raw", "root"),
        ("/exact/x", "exact"),
        ("/exact/x/", "root"),
        ("/sp%20ace/x", "space"),
        ("/api", "api"),
        ("/%61pi", "api"),
        ("/a%70%69/v1", "api"),
        ("//api//v1", "api"),
        ("/x/../api", "api"),
        ("/x/%2e%2E/api", "api"),
        ("/./api/.", "api"),
        ("/api%2fv1", "api"),
        ("/api/..", "root"),
        ("/api/%252e%252e", "api"),
        ("/apis", "root"),
        ("/?x=/api", "root"),
    ] {
        let answer = ask(proxy.http, get("a.example", target));
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        assert_eq!((&*answer.seen().pod, &*answer.seen().target), (expected, target));
    }
    for target in ["/..", "/api/../..", "/%", "/%4", "/%zz", "/a%00b", "/%2e%2e"] {
        assert_eq!(ask(proxy.http, get("a.example", target)).status, 400, "{target}");
    }
}
