//! What ingress-nginx does beside the specification, for class `nginx` alone (reference 2.2): the same manifests are served with
//! its quirks where `--ingress-class nginx` takes over, and by the letter of Ingress v1 elsewhere.

use super::{
    client::{ask, get},
    daemon::Proxy,
    manifests::{annotated, ingress, service},
    pod::{Pod, host_address},
};

const NAMES: [&str; 6] = ["root", "regex", "bar", "exact", "slash", "word"];

/// The manifests for one class; both daemons get the same but for its name.
fn text(class: &str, pods: &[Pod]) -> String {
    let regex = [("nginx.ingress.kubernetes.io/use-regex", "true")];
    let rewrite = [("nginx.ingress.kubernetes.io/rewrite-target", "/new/$2")];
    let ingresses = [
        // Quirk 1: one Ingress of the host asks for expressions, the others do not.
        annotated("asks", "regex.example", &[("ImplementationSpecific", "/foo/bar/[A-Z0-9]{3}", "regex")], &regex),
        ingress("others", "regex.example", &[("Prefix", "/foo/bar/bar", "bar"), ("Exact", "/exact", "exact")]),
        annotated("rewrites", "rewrite.example", &[("ImplementationSpecific", "/old(/|$)(.*)", "regex")], &rewrite),
        ingress("beside", "rewrite.example", &[("Exact", "/exact", "exact")]),
        // Quirk 2: a path with a slash at its end, asked for without.
        ingress("slash", "slash.example", &[("Prefix", "/dir/", "slash"), ("Exact", "/file/", "exact")]),
        ingress("plain", "plain.example", &[("Prefix", "/", "root"), ("Prefix", "/word", "word")]),
    ];
    let services: String = NAMES.iter().zip(pods).map(|(name, pod)| service(name, &[pod])).collect();
    let classed = ingresses.concat().replace("spec:\n", &format!("spec:\n  ingressClassName: {class}\n"));
    [services, classed].concat()
}

/// Who answers with which target, or a status with its place.
fn answers(proxy: &Proxy, host: &str, target: &str) -> String {
    let answer = ask(proxy.http, get(host, target));
    match answer.status {
        200 => format!("{} {}", answer.seen().pod, answer.seen().target),
        status => format!("{status} {}", answer.field("location").unwrap_or_default()).trim_end().to_owned(),
    }
}

#[test]
fn quirks_hold_for_class_nginx_alone() {
    let Some(ip) = host_address() else { return };
    let pods: Vec<Pod> = NAMES.iter().map(|name| Pod::start(ip, name)).collect();
    let nginx = Proxy::with(&["--ingress-class", "nginx"], &[("all.yaml", &text("nginx", &pods))]);
    let other = Proxy::with(&["--ingress-class", "other"], &[("all.yaml", &text("other", &pods))]);
    for (host, target, quirky, strict) in [
        // Every path of the host is an expression that begins a path in any case, the longest first.
        ("regex.example", "/foo/bar/bar", "regex /foo/bar/bar", "bar /foo/bar/bar"),
        ("regex.example", "/foo/bar/A1Z", "regex /foo/bar/A1Z", "regex /foo/bar/A1Z"),
        ("regex.example", "/foo/bar/A1Zmore", "regex /foo/bar/A1Zmore", "regex /foo/bar/A1Zmore"),
        ("regex.example", "/exact", "exact /exact", "exact /exact"),
        ("regex.example", "/exactly", "exact /exactly", "404"),
        ("regex.example", "/EXACT/x", "exact /EXACT/x", "404"),
        ("regex.example", "/x/exact", "404", "404"),
        ("rewrite.example", "/old/a/b?c", "regex /new/a/b?c", "regex /new/a/b?c"),
        ("rewrite.example", "/old", "regex /new/", "regex /new/"),
        ("rewrite.example", "/older", "404", "404"),
        ("rewrite.example", "/exactly", "exact /exactly", "404"),
        // A path with a slash at its end is redirected to, not served.
        ("slash.example", "/dir", "301 http://slash.example/dir/", "slash /dir"),
        ("slash.example", "/dir?x=y", "301 http://slash.example/dir/?x=y", "slash /dir?x=y"),
        ("slash.example", "/dir/x", "slash /dir/x", "slash /dir/x"),
        ("slash.example", "/file", "301 http://slash.example/file/", "404"),
        ("slash.example", "/file/", "exact /file/", "exact /file/"),
        // Where no Ingress of the host asks for expressions, nothing changes.
        ("plain.example", "/wordy", "root /wordy", "root /wordy"),
        ("plain.example", "/WORD", "root /WORD", "root /WORD"),
        ("plain.example", "/a/..//word/%2e", "word /a/..//word/%2e", "word /a/..//word/%2e"),
    ] {
        assert_eq!(answers(&nginx, host, target), quirky, "class nginx: {host} {target}");
        assert_eq!(answers(&other, host, target), strict, "another class: {host} {target}");
    }
    println!("19 rows hold for class nginx and for another one");
}
