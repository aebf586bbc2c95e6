//! The echo server and the probes on loopback, without root: what a probe prints is what the server saw.

// Helpers of tests may fail as tests do.
#![cfg(test)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use roadstead_lab::{Answer, HoldReport, LoadReport};

const PROGRAM: &str = env!("CARGO_BIN_EXE_roadstead-lab");
const BOTH: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// A running echo server and the ports that the system gave it.
struct Echo {
    child: Child,
    http: u16,
    tcp: u16,
    udp: u16,
}

impl Echo {
    fn start() -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["echo", "--name", "web-1", "--http", "0", "--tcp", "0", "--udp", "0"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = |name: &str| {
            let word = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            word.unwrap_or_else(|| panic!("no {name} in {line}")).parse().unwrap()
        };
        Self { child, http: port("http="), tcp: port("tcp="), udp: port("udp=") }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn probe(arguments: &[&str]) -> Vec<Answer> {
    let output = Command::new(PROGRAM).arg("probe").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_protocol_and_family_tells_name_peer_and_address() {
    let echo = Echo::start();
    for ip in BOTH {
        let at = |port| SocketAddr::new(ip, port);
        let (tcp, udp) = (at(echo.tcp).to_string(), at(echo.udp).to_string());
        let url = format!("http://{}/path?query", at(echo.http));
        let cases: [(&[&str], u16); 4] = [
            (&["tcp", &tcp, "--count", "2"], echo.tcp),
            (&["udp", &udp], echo.udp),
            (&["udp", &udp, "--unconnected"], echo.udp),
            (&["http", &url, "--header", "X-Trace: 7"], echo.http),
        ];
        for (arguments, port) in cases {
            let answers = probe(arguments);
            assert_eq!(answers.len(), if arguments.contains(&"2") { 2 } else { 1 }, "{arguments:?}");
            for answer in answers {
                assert!(answer.ok, "{arguments:?}: {answer:?}");
                assert_eq!(answer.name(), Some("web-1"), "{arguments:?}");
                assert_eq!(answer.answer["local"], at(port).to_string(), "{arguments:?}");
                assert_eq!(answer.seen_as().unwrap().ip(), ip, "{arguments:?}");
                assert_eq!(answer.peer.or(answer.source), Some(at(port)), "{arguments:?}");
            }
        }
    }
}

#[test]
fn the_http_answer_repeats_the_request() {
    let echo = Echo::start();
    let (url, at) = ("http://shop.example.com/a%20b?c=d", format!("127.0.0.1:{}", echo.http));
    let answer = probe(&["http", url, "--resolve-to", &at, "--header", "X-Trace: 7", "--method", "PUT"]).remove(0);
    assert_eq!(answer.status, Some(200));
    let told = &answer.answer;
    let expected = [("method", "PUT"), ("path", "/a%20b?c=d"), ("host", "shop.example.com"), ("version", "HTTP/1.1")];
    for (field, value) in expected {
        assert_eq!(told[field], value, "{field}");
    }
    assert_eq!(told["headers"]["x-trace"], "7");
}

#[test]
fn failures_are_answers_with_a_name() {
    // A port that was free a moment ago: the system does not give it out again at once.
    let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().to_string();
    let url = format!("http://{free}/");
    let silent = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let silent = silent.local_addr().map(|address| (silent, address.to_string())).unwrap();
    let cases: [(&[&str], &str); 4] = [
        (&["tcp", &free], "ECONNREFUSED"),
        (&["udp", &free], "ECONNREFUSED"),
        (&["http", &url], "ECONNREFUSED"),
        (&["udp", &silent.1, "--timeout", "20"], "timeout"),
    ];
    for (arguments, expected) in cases {
        let answer = probe(arguments).remove(0);
        assert!(!answer.ok, "{arguments:?}");
        assert_eq!(answer.error.as_deref(), Some(expected), "{arguments:?}");
    }
}

#[test]
fn probes_that_run_beside_a_test_report_at_its_end() {
    let echo = Echo::start();
    let address = format!("127.0.0.1:{}", echo.tcp);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.arg("probe").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (mut line, mut report) = (String::new(), String::new());
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "started\n");
        // Something goes on in between: what the probe runs beside.
        assert!(probe(&["tcp", &address, "--count", "20", "--pause", "5"]).iter().all(|answer| answer.ok));
        drop(child.stdin.take());
        output.read_to_string(&mut report).unwrap();
        child.wait().unwrap();
        report
    };
    let held: HoldReport = serde_json::from_str(&run(&["hold", &address, "--every", "1"])).unwrap();
    assert!(held.error.is_none() && held.exchanged > 0 && held.name.as_deref() == Some("web-1"), "{held:?}");
    let load: LoadReport = serde_json::from_str(&run(&["load", &address, "--rate", "500"])).unwrap();
    assert!(load.answered > 0 && load.failed == 0 && load.names.contains_key("web-1"), "{load:?}");
}
