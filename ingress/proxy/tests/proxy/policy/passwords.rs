//! Basic authentication: `auth-type`, `auth-secret`, `auth-secret-type`, `auth-realm`.

use roadstead_model::Snapshot;

use crate::{
    client::{exchange, get, status},
    endpoint::TestEndpoint,
    objects::{annotate, empty, ingress, opaque_secret, service},
    proxy::Proxy,
};

/// `secret` by each form that nginx takes.
const FILE: &str = "alice:$apr1$saltsalt$LrttParrLPdxvgutaSXWJ0\nbob:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n\
    carol:$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1\n";

/// base64 of `alice:secret`, and so on.
const ALICE: &str = "Basic YWxpY2U6c2VjcmV0";
const BOB: &str = "Basic Ym9iOnNlY3JldA==";
const CAROL: &str = "Basic Y2Fyb2w6c2VjcmV0";
const ALICE_WRONG: &str = "Basic YWxpY2U6U2VjcmV0";

fn as_user(authorization: &str) -> String {
    get("a.example", "/").replace("Connection", &format!("Authorization: {authorization}\r\nConnection"))
}

async fn guarded(annotations: &[(&str, &str)]) -> (TestEndpoint, Snapshot) {
    let web = TestEndpoint::start("web").await;
    let mut snapshot = empty();
    service(&mut snapshot, "web", &[web.address]);
    ingress(&mut snapshot, "web", &[("a.example", "/", "web")], &[]);
    ingress(&mut snapshot, "open", &[("b.example", "/", "web")], &[]);
    annotate(&mut snapshot, "web", annotations);
    (web, snapshot)
}

#[tokio::test]
async fn users_of_the_secret_come_in_and_their_passwords_go_no_further() {
    let asked = [("auth-type", "basic"), ("auth-secret", "users"), ("auth-realm", "The Office")];
    let (_web, mut snapshot) = guarded(&asked).await;
    opaque_secret(&mut snapshot, "users", &[("auth", FILE)]);
    let proxy = Proxy::start(snapshot);
    for (authorization, expected) in [
        (ALICE, 200),
        (ALICE, 200),
        (BOB, 200),
        (CAROL, 200),
        ("basic YWxpY2U6c2VjcmV0", 200),
        (ALICE_WRONG, 401),
        ("Basic ZGF2ZTpzZWNyZXQ=", 401),
        ("Basic ***", 401),
        ("Bearer token", 401),
    ] {
        let answer = exchange(proxy.http, as_user(authorization)).await;
        assert_eq!(status(&answer), expected, "{authorization}: {answer}");
        let challenged = answer.contains("\r\nwww-authenticate: Basic realm=\"The Office\"\r\n");
        assert_eq!(challenged, expected == 401, "{authorization}: {answer}");
        assert!(!answer.contains("authorization:"), "{authorization}: {answer}");
    }
    assert_eq!(status(&exchange(proxy.http, get("a.example", "/")).await), 401);
    let other = get("b.example", "/").replace("Connection", "Authorization: Bearer token\r\nConnection");
    let answer = exchange(proxy.http, other).await;
    assert!(answer.contains("authorization: Bearer token\n"), "other Ingresses' endpoints see their own: {answer}");
}

#[tokio::test]
async fn a_changed_secret_holds_at_once_and_touches_no_route() {
    let (_web, mut snapshot) = guarded(&[("auth-type", "basic"), ("auth-secret", "users")]).await;
    opaque_secret(&mut snapshot, "users", &[("auth", FILE)]);
    let mut proxy = Proxy::start(snapshot.clone());
    let generation = proxy.metric("roadstead_ingress_config_generation");
    assert_eq!(status(&exchange(proxy.http, as_user(ALICE)).await), 200);
    opaque_secret(&mut snapshot, "users", &[("auth", "alice:{PLAIN}Secret\n")]);
    proxy.apply(&snapshot);
    assert_eq!(status(&exchange(proxy.http, as_user(ALICE)).await), 401);
    assert_eq!(status(&exchange(proxy.http, as_user(ALICE_WRONG)).await), 200);
    // A Secret that lost its key keeps its last users; one that is gone lets nobody in.
    opaque_secret(&mut snapshot, "users", &[("other", "x")]);
    proxy.apply(&snapshot);
    assert_eq!(status(&exchange(proxy.http, as_user(ALICE_WRONG)).await), 200);
    assert_eq!(proxy.metric("roadstead_ingress_config_problems{severity=\"error\"}").as_deref(), Some("1"));
    snapshot.secrets.clear();
    proxy.apply(&snapshot);
    assert_eq!(status(&exchange(proxy.http, as_user(ALICE_WRONG)).await), 503);
    assert_eq!(status(&exchange(proxy.http, get("b.example", "/")).await), 200);
    assert_eq!(proxy.metric("roadstead_ingress_config_generation"), generation);
}

#[tokio::test]
async fn a_map_of_users_is_read_key_by_key() {
    let asked = [("auth-type", "basic"), ("auth-secret", "users"), ("auth-secret-type", "auth-map")];
    let (_web, mut snapshot) = guarded(&asked).await;
    opaque_secret(&mut snapshot, "users", &[("alice", "$apr1$saltsalt$LrttParrLPdxvgutaSXWJ0"), ("bob", "broken")]);
    let proxy = Proxy::start(snapshot);
    assert_eq!(status(&exchange(proxy.http, as_user(ALICE)).await), 200);
    assert_eq!(status(&exchange(proxy.http, as_user(BOB)).await), 401);
    assert_eq!(proxy.metric("roadstead_ingress_config_problems{severity=\"error\"}").as_deref(), Some("1"));
}

#[tokio::test]
async fn what_cannot_be_honoured_lets_nobody_in() {
    for (annotations, problems) in [
        (&[("auth-type", "basic"), ("auth-secret", "gone")][..], "error"),
        (&[("auth-type", "basic")], "warning"),
        (&[("auth-type", "digest"), ("auth-secret", "users")], "warning"),
        (&[("auth-type", "basic"), ("auth-secret", "other/users")], "warning"),
        (&[("auth-type", "basic"), ("auth-secret", "users"), ("auth-secret-type", "x")], "warning"),
        (&[("auth-type", "basic"), ("auth-secret", "wrongform")], "error"),
    ] {
        let (_web, mut snapshot) = guarded(annotations).await;
        opaque_secret(&mut snapshot, "users", &[("auth", FILE)]);
        opaque_secret(&mut snapshot, "wrongform", &[("alice", "{PLAIN}secret")]);
        let proxy = Proxy::start(snapshot);
        assert_eq!(status(&exchange(proxy.http, as_user(ALICE)).await), 503, "{annotations:?}");
        assert_eq!(status(&exchange(proxy.http, get("b.example", "/")).await), 200, "{annotations:?}");
        let told = proxy.metric(&format!("roadstead_ingress_config_problems{{severity=\"{problems}\"}}"));
        assert_ne!(told.as_deref(), Some("0"), "{annotations:?}");
    }
}

#[tokio::test]
async fn satisfy_any_takes_an_address_or_a_password() {
    let basic = [("auth-type", "basic"), ("auth-secret", "users")];
    for (more, with_password, without) in [
        (&[("satisfy", "any"), ("whitelist-source-range", "127.0.0.0/8")][..], 200, 200),
        (&[("satisfy", "any"), ("whitelist-source-range", "10.0.0.0/8")], 200, 401),
        (&[("satisfy", "all"), ("whitelist-source-range", "127.0.0.0/8")], 200, 401),
        (&[("whitelist-source-range", "10.0.0.0/8")], 403, 403),
        (&[("satisfy", "any"), ("whitelist-source-range", "nonsense")], 503, 503),
        (&[("satisfy", "any"), ("denylist-source-range", "10.0.0.0/8")], 200, 401),
        (&[("satisfy", "any"), ("denylist-source-range", "127.0.0.0/8")], 200, 401),
        (&[("satisfy", "sometimes")], 200, 401),
    ] {
        let (_web, mut snapshot) = guarded(&[&basic[..], more].concat()).await;
        opaque_secret(&mut snapshot, "users", &[("auth", FILE)]);
        let proxy = Proxy::start(snapshot);
        assert_eq!(status(&exchange(proxy.http, as_user(ALICE)).await), with_password, "{more:?}");
        assert_eq!(status(&exchange(proxy.http, get("a.example", "/")).await), without, "{more:?}");
    }
}

#[tokio::test]
async fn whoever_guesses_passwords_runs_into_the_limit() {
    let asked = [("auth-type", "basic"), ("auth-secret", "users"), ("limit-rpm", "1"), ("limit-burst-multiplier", "1")];
    let (_web, mut snapshot) = guarded(&asked).await;
    opaque_secret(&mut snapshot, "users", &[("auth", FILE)]);
    let proxy = Proxy::start(snapshot);
    for expected in [401, 401, 503, 503] {
        assert_eq!(status(&exchange(proxy.http, as_user(ALICE_WRONG)).await), expected);
    }
}
