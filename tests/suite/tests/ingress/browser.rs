//! Headless Chromium loads a page through the proxy: redirected to TLS, then script, style, picture and data over HTTP/2, and a
//! WebSocket beside them. The page itself reports what it got and by which protocol.

use std::{
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use rcgen::{PublicKeyData as _, generate_simple_self_signed};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{
    daemon::{Proxy, wait_until},
    manifests::{ingress, secret, service},
    pod::{Page, Pod, host_address},
};

/// The names under which distributions install it.
const NAMES: [&str; 4] = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];

const SITE: [Page; 5] = [
    Page {
        path: "/",
        kind: "text/html",
        body: r#"<!doctype html><title>harbour</title><link rel=stylesheet href=/style.css><img src=/picture.svg>
<script type=module src=/script.js></script>"#,
    },
    Page { path: "/style.css", kind: "text/css", body: "body { color: rgb(1, 2, 3) }" },
    Page {
        path: "/picture.svg",
        kind: "image/svg+xml",
        body: r#"<svg xmlns="http://www.w3.org/2000/svg" width="17" height="9"/>"#,
    },
    Page { path: "/data.json", kind: "application/json", body: r#"{"ships": 3}"# },
    Page {
        path: "/script.js",
        kind: "text/javascript",
        body: r#"
const told = [];
const tell = (text) => told.push(text);
await new Promise((loaded) => document.readyState === 'complete' ? loaded() : addEventListener('load', loaded));
tell(`page by ${performance.getEntriesByType('navigation')[0].nextHopProtocol} from ${location.protocol}`);
tell(`style ${getComputedStyle(document.body).color}`);
tell(`picture ${document.querySelector('img').naturalWidth}x${document.querySelector('img').naturalHeight}`);
tell(`data ${(await (await fetch('/data.json')).json()).ships}`);
tell(`posted ${(await (await fetch('/api/echo', { method: 'POST', body: 'x'.repeat(300000) })).json()).length}`);
const all = await Promise.all([...Array(50).keys()].map(async (n) => (await fetch(`/api/${n}`)).status));
tell(`parallel ${all.filter((status) => status === 200).length}`);
const by = new Set(performance.getEntriesByType('resource').map((entry) => entry.nextHopProtocol));
tell(`resources by ${[...by].join(' and ')}`);
const socket = new WebSocket(`wss://${location.host}/ws`);
const echoed = await new Promise((resolve, reject) => {
  socket.onopen = () => socket.send('ahoy');
  socket.onmessage = (message) => resolve(message.data);
  socket.onerror = () => reject(new Error('socket'));
});
tell(`socket ${echoed}`);
await fetch('/report', { method: 'POST', body: told.join('\n') });
"#,
    },
];

#[test]
fn a_page_loads_over_tls_and_http_2_with_all_that_it_needs() {
    let there =
        |name: &&&str| Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    let Some(browser) = NAMES.iter().find(there) else {
        return eprintln!("skipped: there is no Chromium here");
    };
    let Some(ip) = host_address() else { return };
    let (pod, echo) = (Pod::site(ip, "web", &SITE), super::websocket::echo(ip));
    let pair = generate_simple_self_signed(vec!["harbour.example".to_owned()]).unwrap();
    let text = [
        service("web", &[&pod]),
        service("echo", &[echo]),
        ingress("web", "harbour.example", &[("Prefix", "/", "web"), ("Prefix", "/ws", "echo")]),
        "  tls: [{ hosts: [harbour.example], secretName: pair }]\n".to_owned(),
        secret("pair", &pair.cert.pem(), &pair.signing_key.serialize_pem()),
    ];
    let proxy = Proxy::start(&[("all.yaml", &text.concat())]);
    let folder = TempDir::new().unwrap();
    let key = base64(&Sha256::digest(pair.signing_key.subject_public_key_info()));
    let child = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .arg(format!("--user-data-dir={}", folder.path().display()))
        // The one certificate that is believed, by its key.
        .arg(format!("--ignore-certificate-errors-spki-list={key}"))
        .arg(format!(
            "--host-resolver-rules=MAP harbour.example:80 {}, MAP harbour.example:443 {}, MAP * ~NOTFOUND",
            proxy.http, proxy.https
        ))
        .arg("http://harbour.example/")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    let _browser = Browser(child.unwrap());
    wait_until("the page has reported", || pod.last_body("/report").is_some_and(|report| !report.is_empty()));
    let report = pod.last_body("/report").unwrap();
    println!("{report}");
    let expected = [
        "page by h2 from https:",
        "style rgb(1, 2, 3)",
        "picture 17x9",
        "data 3",
        "posted 300000",
        "parallel 50",
        "resources by h2",
        "socket ahoy",
    ];
    assert_eq!(report.lines().collect::<Vec<_>>(), expected);
}

/// Killed when it is dropped, with the processes that it has started.
struct Browser(Child);

impl Drop for Browser {
    fn drop(&mut self) {
        let _ended = killpg(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
        let _reaped = self.0.wait();
    }
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}
