//! A megabyte there and back: through node ports with a near and a far backend, and through the proxy over TLS.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

use roadstead_lab::{Place, Probe, demo::Cluster};

use super::fixture::{LATE, PAIR, answers_are, assigned, at, edit, followed, https, lab, settle};

const SIZE: usize = 1 << 20;
/// Where the pods serve the body.
const PORT: u16 = 8090;

#[test]
fn a_megabyte_arrives_intact() {
    let Some(lab) = lab("transfer") else { return };
    let cluster = Cluster::start(&lab).unwrap();
    let (client, body) = (lab.client(), body());
    for pod in ["api-1", "web-2"] {
        serve(cluster.pod(pod).unwrap(), &body);
    }
    lab.apply(PAIR.0, PAIR.1).unwrap();
    let pair = assigned(&cluster, "pair");
    settle(&cluster, &[cluster.ingress, pair].concat());
    let node = lab.node("node-a").host();
    for to in [at(node, 30901), at(node, 30902), Cluster::at(pair, 9001), Cluster::at(pair, 9002)].concat() {
        assert!(answers_are(client, &Probe::tcp(to), &["api-1", "web-2"]), "{to}");
        assert!(echoed(client, to, body.as_bytes()) == body.as_bytes(), "{to} echoes something else");
    }
    // The same ports, now to a server of the body.
    let get = |to: SocketAddr| Probe::http(&format!("http://{to}/"));
    let all = [at(node, 30901), at(node, 30902)].concat();
    followed(
        "the ports lead to the body",
        || edit(&lab, PAIR.0, "port: 9000}", &format!("port: {PORT}}}")),
        || all.iter().all(|to| whole(client, &get(*to), &body)),
    );
    // The path of another Service, whose pods serve the body.
    followed(
        "the proxy leads to the body",
        || edit(&lab, "shop.yaml", "name: api\n                port:\n                  number: 80", PAIR_NEAR),
        || Cluster::at(cluster.ingress, 443).iter().all(|to| whole(client, &https(&cluster, "/api", *to), &body)),
    );
}

const PAIR_NEAR: &str = "name: pair\n                port:\n                  name: near";

/// Text, so that the probe hands it on as it is, and of no period that a segment could hide in.
pub(crate) fn body() -> String {
    let mut state = 0x5eed_u64;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap())
    };
    (0..SIZE).map(|_| letter()).collect()
}

/// Serves the body over HTTP to whoever asks, until the test's process ends.
fn serve(pod: &Place, body: &str) {
    let listener = pod.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))).unwrap().unwrap();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\nconnection: close\r\n\r\n{body}");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = BufReader::new(stream);
            // A client that goes away is its own business.
            let head = stream.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            if head.count() > 0 {
                let _gone = stream.get_mut().write_all(answer.as_bytes());
            }
        }
    });
}

fn whole(client: &Place, probe: &Probe, body: &str) -> bool {
    let answer = client.probe_once(probe).unwrap();
    answer.status == Some(200) && answer.answer.as_str() == Some(body)
}

/// Sends the bytes to an echo server and reads them back, both at once.
pub(crate) fn echoed(client: &Place, to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = client.run(|| TcpStream::connect(to)).unwrap().unwrap();
    stream.set_read_timeout(Some(LATE)).unwrap();
    let mut back = BufReader::new(stream.try_clone().unwrap());
    let mut greeting = String::new();
    back.read_line(&mut greeting).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            stream.write_all(bytes).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        });
        let mut echoed = Vec::with_capacity(bytes.len());
        back.read_to_end(&mut echoed).unwrap();
        echoed
    })
}
