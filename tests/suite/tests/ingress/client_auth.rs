//! Client certificates, asked for by a host: who comes in, and that neither another SNI nor another Host is a way around
//! (reference 2.5: 421 wherever either of the two asks for certificates and they disagree).

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, generate_simple_self_signed};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{
    client::{ask, ask_on, get, tls_with},
    daemon::Proxy,
    manifests::{annotated, ingress, secret, service},
    pod::{Pod, host_address},
};

const HOSTS: [&str; 3] = ["closed.example", "other-closed.example", "open.example"];

/// Somebody who vouches for clients.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

fn client(authority: &CertifiedIssuer<'static, KeyPair>) -> Identity {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["client.example".to_owned()]).unwrap().signed_by(&key, authority);
    (certificate.unwrap().der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

/// A client that believes this server, and shows this identity where it is asked.
fn config(server: &CertificateDer<'static>, identity: Option<&Identity>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(server.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    match identity {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).unwrap(),
        None => builder.with_no_client_auth(),
    }
}

#[test]
fn a_host_that_asks_for_certificates_has_no_way_around() {
    let Some(ip) = host_address() else { return };
    let pod = Pod::start(ip, "web");
    let server = generate_simple_self_signed(HOSTS.map(str::to_owned).to_vec()).unwrap();
    let (ours, theirs) = (authority(), authority());
    let paths = [("Prefix", "/", "web")];
    let asks = |secret| [("nginx.ingress.kubernetes.io/auth-tls-secret", secret)];
    let tls = |host: &str| format!("  tls: [{{ hosts: [{host}], secretName: server }}]\n");
    let vouching = |name: &str, pem: &str| {
        let pem = pem.trim_end().replace('\n', "\n    ");
        format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{ name: {name} }}\nstringData:\n  ca.crt: |\n    {pem}\n"
        )
    };
    let text = [
        service("web", &[&pod]),
        annotated("closed", HOSTS[0], &paths, &asks("default/ours")),
        tls(HOSTS[0]),
        annotated("other-closed", HOSTS[1], &paths, &asks("default/theirs")),
        tls(HOSTS[1]),
        ingress("open", HOSTS[2], &paths),
        tls(HOSTS[2]),
        secret("server", &server.cert.pem(), &server.signing_key.serialize_pem()),
        vouching("ours", &ours.pem()),
        vouching("theirs", &theirs.pem()),
    ];
    let proxy = Proxy::start(&[("all.yaml", &text.concat())]);
    let (friend, stranger) = (client(&ours), client(&theirs));
    let mut served = 0;
    for (what, named, identity, host, status) in [
        ("a friend", HOSTS[0], Some(&friend), HOSTS[0], 200),
        ("nobody", HOSTS[0], None, HOSTS[0], 400),
        ("a stranger", HOSTS[0], Some(&stranger), HOSTS[0], 400),
        ("the other host's friend", HOSTS[1], Some(&stranger), HOSTS[1], 200),
        ("nobody, by the name of the open host", HOSTS[2], None, HOSTS[0], 421),
        ("a friend, by the name of the open host", HOSTS[2], Some(&friend), HOSTS[0], 421),
        ("a friend, for the open host", HOSTS[0], Some(&friend), HOSTS[2], 421),
        ("the other host's friend, by its name", HOSTS[1], Some(&stranger), HOSTS[0], 421),
        ("nobody, with a port and in capitals", HOSTS[2], None, "CLOSED.example.:443", 421),
        ("nobody, for the open host", HOSTS[2], None, HOSTS[2], 200),
    ] {
        let stream = tls_with(proxy.https, named, config(server.cert.der(), identity)).unwrap();
        let answer = ask_on(stream, get(host, "/").as_bytes());
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        served += usize::from(status == 200);
    }
    assert_ne!(ask(proxy.http, get(HOSTS[0], "/")).status, 200, "in the clear there is no way either");
    assert_eq!(pod.requests(), served, "the pod has seen no other");
    println!("10 ways in, {served} open");
}
