//! curl through the proxy: over HTTP/1.1 and HTTP/2, in the clear and over TLS with the certificate verified, redirected, with
//! uploads that wait for 100, and many requests on one HTTP/2 connection.

use std::{
    fs,
    process::{Command, Stdio},
};

use rcgen::generate_simple_self_signed;
use tempfile::TempDir;

use super::{
    daemon::Proxy,
    manifests::{annotated, secret, service},
    pod::{Pod, Seen, host_address},
};

struct Curl {
    proxy: Proxy,
    folder: TempDir,
    _pod: Pod,
}

/// What curl says of one transfer.
struct Transfer {
    status: String,
    version: String,
    body: Vec<u8>,
}

/// `tls.example` has a certificate and redirects to it, every other host is served in the clear.
fn start() -> Option<Curl> {
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: there is no curl here");
        return None;
    }
    let pod = Pod::start(host_address()?, "web");
    let pair = generate_simple_self_signed(vec!["tls.example".to_owned()]).unwrap();
    let (paths, any_length) = ([("Prefix", "/", "web")], [("nginx.ingress.kubernetes.io/proxy-body-size", "0")]);
    let text = [
        service("web", &[&pod]),
        annotated("plain", "", &paths, &any_length),
        annotated("tls", "tls.example", &paths, &any_length),
        "  tls: [{ hosts: [tls.example], secretName: pair }]\n".to_owned(),
        secret("pair", &pair.cert.pem(), &pair.signing_key.serialize_pem()),
    ]
    .concat();
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("ca.pem"), pair.cert.pem()).unwrap();
    Some(Curl { proxy: Proxy::start(&[("all.yaml", &text)]), folder, _pod: pod })
}

impl Curl {
    /// curl that takes every host for the proxy, by its usual ports.
    fn command(&self) -> Command {
        let mut command = Command::new("curl");
        command.args(["--disable", "--silent", "--show-error", "--max-time", "30", "--noproxy", "*"]);
        command.arg("--cacert").arg(self.folder.path().join("ca.pem"));
        for (port, address) in [(80, self.proxy.http), (443, self.proxy.https)] {
            command.args(["--connect-to", &format!(":{port}:{address}")]);
        }
        command
    }

    fn transfer(&self, arguments: &[&str]) -> Transfer {
        let told = self.folder.path().join("body");
        let mut command = self.command();
        command.arg("--output").arg(&told).args(["--write-out", "%{http_code} %{http_version}"]);
        let output = command.args(arguments).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let (status, version) = said.split_once(' ').unwrap();
        Transfer { status: status.to_owned(), version: version.to_owned(), body: fs::read(told).unwrap() }
    }
}

#[test]
fn curl_is_served_over_every_version() {
    let Some(curl) = start() else { return };
    for (arguments, version, scheme) in [
        (&["--http1.0", "http://a.example/x?y=z"][..], "1", "http"),
        (&["--http1.1", "http://a.example/x?y=z"], "1.1", "http"),
        (&["--http2-prior-knowledge", "http://a.example/x?y=z"], "2", "http"),
        // A wish to upgrade to HTTP/2 in the clear is not granted; the request is answered all the same.
        (&["--http2", "http://a.example/x?y=z"], "1.1", "http"),
        (&["--http1.1", "https://tls.example/x?y=z"], "1.1", "https"),
        (&["--http2", "https://tls.example/x?y=z"], "2", "https"),
        (&["--http2", "--tlsv1.3", "https://tls.example/x?y=z"], "2", "https"),
        (&["--http2", "--tls-max", "1.2", "https://tls.example/x?y=z"], "2", "https"),
        (&["--location", "http://tls.example/x?y=z"], "2", "https"),
    ] {
        let transfer = curl.transfer(arguments);
        assert_eq!((&*transfer.status, &*transfer.version), ("200", version), "{arguments:?}");
        let seen = Seen::parse(&transfer.body).unwrap();
        assert_eq!((&*seen.method, &*seen.target, &*seen.version), ("GET", "/x?y=z", "HTTP/1.1"), "{arguments:?}");
        assert_eq!(seen.field("x-forwarded-proto").as_deref(), Some(scheme), "{arguments:?}");
        assert!(seen.field("user-agent").is_some_and(|agent| agent.starts_with("curl/")), "{arguments:?}");
    }
    // HEAD has no body and the length that GET would have; a redirect is told, not followed.
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let head = curl.transfer(&[version, "--head", "http://a.example/?bytes=7"]);
        let text = String::from_utf8(head.body).unwrap().to_ascii_lowercase();
        assert!(head.status == "200" && text.contains("content-length: 7\r\n"), "{version}: {text}");
    }
    assert_eq!(curl.transfer(&["http://tls.example/"]).status, "308");
}

/// 20 MB each way. curl asks for 100 Continue before it sends so much, and for chunks where it does not know the length.
#[test]
fn curl_uploads_and_downloads_over_every_version() {
    let Some(curl) = start() else { return };
    const LENGTH: usize = 20_000_000;
    let file = curl.folder.path().join("upload");
    fs::write(&file, vec![b'x'; LENGTH]).unwrap();
    let data = format!("@{}", file.display());
    let file = file.to_str().unwrap();
    let options = ["--http1.1", "--http2-prior-knowledge", "--http2"];
    for (version, host) in options.into_iter().zip(["http://a.example", "http://a.example", "https://tls.example"]) {
        let url = format!("{host}/up");
        for (what, arguments) in [
            ("PUT", vec![version, "--upload-file", file, &url]),
            ("POST", vec![version, "--data-binary", &data, &url]),
            ("in chunks", vec![version, "--header", "Transfer-Encoding: chunked", "--data-binary", &data, &url]),
        ] {
            if what == "in chunks" && version != "--http1.1" {
                continue;
            }
            let transfer = curl.transfer(&arguments);
            let seen = Seen::parse(&transfer.body);
            let length = seen.map_or(0, |seen| seen.length);
            assert_eq!((&*transfer.status, length), ("200", LENGTH), "{what} {version} {host}");
        }
        let down = curl.transfer(&[version, &format!("{host}/?bytes={LENGTH}")]);
        assert_eq!((&*down.status, down.body.len()), ("200", LENGTH), "{version} {host}");
    }
}

/// A hundred requests at once on one connection.
#[test]
fn curl_multiplexes_over_http_2() {
    let Some(curl) = start() else { return };
    let mut command = curl.command();
    command.args(["--http2", "--parallel", "--parallel-max", "100", "--write-out", "\n%{http_code} %{num_connects}\n"]);
    command.arg("https://tls.example/[1-100]?bytes=10000");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.matches("\n200 ").count(), 100, "each is answered");
    let connections = said.matches("\n200 1").count();
    println!("100 requests over {connections} connections");
    assert!(connections < 10, "{connections}");
}
