//! Snippets over the wire: the safe subset works, the rest closes its Ingress and is counted.

use super::{Scene, ask, field, warnings};
use crate::client::status;

#[tokio::test]
async fn the_safe_subset_works() {
    let mut scene = Scene::new().await;
    let snippet = r#"
        # Who may come, where to, and with which fields.
        if ($http_x_block = "yes") { return 403; }
        if ($arg_go ~ ^(b|c)$) { return 302 https://$1.example$uri; }
        set $team "blue $host";
        more_set_headers "X-Team: $team" "Server: hidden";
        add_header X-Once 1;
        more_clear_headers "X-Internal-*";
        proxy_set_header X-To-Endpoint $request_method;
        rewrite ^/old/(.*)$ /new/$1 break;
        deny 10.0.0.0/8;
    "#;
    scene.add("nginx", "web", "a.example", &["/"], &[("configuration-snippet", snippet)]);
    let proxy = scene.start();
    let answer = ask(&proxy, "a.example", "/old/x?y=1").await;
    assert_eq!(field(&answer, "x-team"), Some("blue a.example"));
    assert_eq!(field(&answer, "server"), Some("hidden"));
    assert_eq!(field(&answer, "x-once"), Some("1"));
    for line in ["GET /new/x?y=1\n", "x-to-endpoint: GET\n"] {
        assert!(answer.contains(line), "{line:?} in {answer}");
    }
    let answer = ask(&proxy, "a.example", "/p?go=b").await;
    assert_eq!((status(&answer), field(&answer, "location")), (302, Some("https://b.example/p")));
    let blocked = "GET / HTTP/1.1\r\nHost: a.example\r\nX-Block: yes\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&crate::client::exchange(proxy.http, blocked).await), 403);
    assert_eq!(warnings(&proxy).as_deref(), Some("0"));
}

#[tokio::test]
async fn clients_are_kept_out() {
    for (snippet, expected) in [("deny 127.0.0.0/8;", 403), ("allow 127.0.0.1; deny all;", 200), ("deny all;", 403)] {
        let mut scene = Scene::new().await;
        scene.add("nginx", "web", "a.example", &["/"], &[("configuration-snippet", snippet)]);
        assert_eq!(status(&ask(&scene.start(), "a.example", "/").await), expected, "{snippet}");
    }
}

#[tokio::test]
async fn a_server_snippet_is_for_its_host() {
    for (class, expected) in [("nginx", 418), ("roadstead", 200)] {
        let mut scene = Scene::new().await;
        scene.add(class, "a", "a.example", &["/a"], &[("server-snippet", "return 418;")]);
        scene.add(class, "b", "a.example", &["/b"], &[]);
        scene.add(class, "c", "c.example", &["/"], &[]);
        let proxy = scene.start();
        assert_eq!(status(&ask(&proxy, "a.example", "/a").await), 418, "{class}");
        assert_eq!(status(&ask(&proxy, "a.example", "/b").await), expected, "{class}");
        assert_eq!(status(&ask(&proxy, "c.example", "/").await), 200, "{class}");
    }
}

#[tokio::test]
async fn a_refused_snippet_closes_its_ingress_alone() {
    for key in ["configuration-snippet", "server-snippet"] {
        for snippet in
            ["proxy_pass http://elsewhere;", "auth_basic off;", "return", "if ($x) {", "content_by_lua_block { x }"]
        {
            let mut scene = Scene::new().await;
            scene.add("nginx", "web", "a.example", &["/"], &[(key, snippet)]);
            scene.add("nginx", "other", "b.example", &["/"], &[]);
            let proxy = scene.start();
            assert_eq!(status(&ask(&proxy, "a.example", "/").await), 503, "{key} {snippet}");
            assert_eq!(status(&ask(&proxy, "b.example", "/").await), 200, "{key} {snippet}");
            assert_eq!(warnings(&proxy).as_deref(), Some("1"), "{key} {snippet}");
        }
    }
}
