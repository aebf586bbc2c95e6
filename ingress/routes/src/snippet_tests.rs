//! What snippets do to a request, and which ones are refused.

use super::*;
use crate::{Controller, Scheme, fixture};

fn run(text: &str, target: &str) -> Effects {
    let mut told = Vec::new();
    let program =
        Program::parse(text, &mut |reason| told.push(reason)).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert!(told.is_empty(), "{told:?}");
    let mut effects = Effects::default();
    let facts = fixture::Asked { scheme: Scheme::Https, host: "a.example", target };
    program.run(&facts, "192.0.2.7".parse().unwrap(), &mut effects);
    effects
}

fn answer(text: &str, target: &str) -> String {
    match run(text, target).answer {
        None => "none".to_owned(),
        Some(SnippetAnswer::Status(status, text)) => {
            format!("{status} {}", String::from_utf8(text.unwrap_or_default()).unwrap()).trim_end().to_owned()
        }
        Some(SnippetAnswer::Redirect(to)) => format!("{} {}", to.status, to.location),
    }
}

#[test]
fn conditions_and_returns() {
    for (text, target, expected) in [
        ("return 403;", "/", "403"),
        ("return 200 'ok $host';", "/", "200 ok a.example"),
        ("return 301 https://b.example$request_uri;", "/x?y", "301 https://b.example/x?y"),
        ("return https://b.example/;", "/", "302 https://b.example/"),
        ("if ($arg_x) { return 403; }", "/?x=1", "403"),
        ("if ($arg_x) { return 403; }", "/?x=0", "none"),
        ("if ($arg_x = 'a b') { return 403; } return 404;", "/", "404"),
        ("if ($arg_x != yes) { return 403; }", "/?x=yes", "none"),
        ("if ($uri ~ ^/(a|b)/(.*)$) { return 302 https://$1.example/$2; }", "/b/c", "302 https://b.example/c"),
        ("if ($uri !~* \"^/A\") { return 403; }", "/a", "none"),
        ("set $go no; if ($arg_x = 1) { set $go yes; } if ($go = yes) { return 418; }", "/?x=1", "418"),
        ("set $go no; if ($arg_x = 1) { set $go yes; } if ($go = yes) { return 418; }", "/?x=2", "none"),
        ("break; return 403;", "/", "none"),
        ("rewrite ^/old/(.*)$ https://b.example/$1 permanent;", "/old/x%20y?z", "301 https://b.example/x%20y?z"),
        ("rewrite ^/old /new? redirect;", "/old?z", "302 /new"),
    ] {
        assert_eq!(answer(text, target), expected, "{text} {target}");
    }
}

#[test]
fn fields_paths_and_clients() {
    let effects = run(
        "more_set_headers 'X-A: $host' \"X-B: 2\"; add_header X-C 3; add_header X-D 4 always; more_clear_headers X-E X-F*;
         proxy_hide_header X-G; proxy_set_header X-H $arg_h; more_set_input_headers 'X-I: 5'; more_clear_input_headers X-J;
         rewrite ^/a/(.*) /b/$1 break; allow 192.0.2.0/24; deny all;",
        "/a/c?h=6",
    );
    let value = |text: &str| text.as_bytes().to_vec();
    let changes = [
        ("x-a", Change::Set(value("a.example"))),
        ("x-b", Change::Set(value("2"))),
        ("x-c", Change::Add(value("3"))),
        ("x-d", Change::AddAlways(value("4"))),
        ("x-e", Change::Clear),
        ("x-f", Change::ClearAll),
        ("x-g", Change::Clear),
    ];
    assert_eq!(effects.changes, changes.map(|(name, change)| (name.into(), change)));
    let upstream = [("x-h", value("6")), ("x-i", value("5")), ("x-j", value(""))];
    assert_eq!(effects.upstream, upstream.map(|(name, value)| (name.into(), value)));
    assert_eq!(effects.target.as_deref(), Some("/b/c?h=6"));
    assert_eq!(effects.admitted, Some(true));
    assert_eq!(run("allow 10.0.0.0/8; deny all;", "/").admitted, Some(false));
    assert_eq!(run("deny 10.0.0.0/8;", "/").admitted, None);
}

#[test]
fn what_is_not_known_refuses_the_snippet_by_name() {
    for (text, reason) in [
        ("proxy_pass http://elsewhere/;", "proxy_pass is not among"),
        ("auth_basic off;", "auth_basic is not among"),
        ("satisfy any;", "satisfy is not among"),
        ("location /x { return 200; }", "location is a block"),
        ("content_by_lua_block { ngx.say(1); }", "content_by_lua_block is a block"),
        ("rewrite ^ /x last;", "rewrite is not among"),
        ("rewrite ^ /x;", "rewrite is not among"),
        ("rewrite (?=a) /x break;", "look-around"),
        ("if (-f $request_filename) { return 403; }", "if has a condition"),
        ("if ($nothing) { return 403; }", "knows no variable $nothing"),
        ("set $host evil;", "sets $host, which is not the snippet's own"),
        ("return 99;", "return has no status"),
        ("more_set_headers -s 404 'A: b';", "more_set_headers has an option"),
        ("add_header 'A B' c;", "add_header has"),
        ("deny somebody;", "deny names no network"),
        ("include /etc/passwd;", "include is not among"),
        ("return 403", "without its semicolon"),
        ("more_set_headers 'A: b\nC: d';", "control character"),
    ] {
        let error = Program::parse(text, &mut drop).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn what_tunes_nginx_and_frames_messages_is_told_and_left_out() {
    let mut told = Vec::new();
    let text = "proxy_read_timeout 10; proxy_set_header Upgrade $http_upgrade; client_max_body_size 1g; gzip on;";
    let program = Program::parse(text, &mut |reason| told.push(reason)).unwrap();
    assert_eq!(program, Program::default());
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[1].contains("upgrade has no effect"), "{told:?}");
}

#[test]
fn snippets_may_be_forbidden_and_a_refused_one_closes() {
    for (annotation, option, closes) in [
        ("return 200;", None, false),
        ("return 200;", Some("true"), false),
        ("return 200;", Some("false"), true),
        ("proxy_pass x;", None, true),
    ] {
        let mut snapshot = roadstead_model::Snapshot::default();
        if let Some(option) = option {
            fixture::options(&mut snapshot, &[("allow-snippet-annotations", option)]);
        }
        let mut ingress = fixture::ingress("default/web");
        ingress.class = Some("nginx".to_owned());
        ingress.rules.push(fixture::rule(Some("a.example"), &["P / web"]));
        fixture::annotate(&mut ingress, &[("configuration-snippet", annotation)]);
        fixture::add(&mut snapshot, ingress);
        let classes = crate::ClassChoice { names: vec!["nginx".to_owned()] };
        let compiled = crate::compile(&snapshot, &Controller { classes, ..Controller::default() });
        assert_eq!(compiled.table.routes()[0].settings.snippets.close(), closes, "{annotation} {option:?}");
        assert_eq!(compiled.problems.len(), usize::from(closes), "{:?}", compiled.problems);
    }
}
