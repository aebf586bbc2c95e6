//! A planned move of an address: its owner's speaker ends, and later comes back. Connections go on, whichever node their
//! backend is on, and no new one fails.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use roadstead_lab::{Daemon, Lab, Node, Place, Program, demo::Cluster, wait_for, wait_until};

use super::fixture::{LATE, PAIR, READY, WEB, assigned, lab, owner};

/// New connections a second, of each family.
const RATE: u32 = 100;
/// How long traffic goes on after a move.
const AFTER: Duration = Duration::from_secs(1);

#[test]
fn connections_survive_planned_moves_of_their_address() {
    survive("moved", "userspace");
}

#[test]
fn they_survive_with_the_responder_in_the_kernel_too() {
    survive("moved-kernel", "ebpf");
}

fn survive(name: &str, responder: &str) {
    let Some(lab) = lab(name) else { return };
    let cluster = Cluster::start(&lab).unwrap();
    lab.apply(PAIR.0, PAIR.1).unwrap();
    let pair = assigned(&cluster, "pair");
    // Handles of this test's, in the place of the cluster's.
    lab.nodes().iter().for_each(|node| cluster.kill(node, Program::Speaker).unwrap());
    let speakers = lab.nodes().iter().map(|node| (node.name(), start(node, responder)));
    let mut speakers: BTreeMap<&str, Daemon> = speakers.collect();
    speakers.values().for_each(|speaker| speaker.wait_ready(READY).unwrap());
    let owned = || pair.map(|ip| owner(&lab, ip)).into_iter().collect::<Option<Vec<_>>>();
    let first = wait_for(LATE, "one node answers", owned).unwrap().swap_remove(0);
    let other = lab.nodes().iter().find(|node| node.name() != first).unwrap();
    settled(&lab, pair, &first);

    let (client, near, far) = (lab.client(), Cluster::at(pair, 9001), Cluster::at(pair, 9002));
    let to: Vec<SocketAddr> = near.into_iter().chain(far).collect();
    let transfers: Vec<_> = to.iter().map(|to| Transfer::start(client, *to)).collect();
    // Begun before the first move, and between the two: on either node flows that the other does not know.
    let mut holds: Vec<_> = to.iter().map(|to| client.hold(*to).unwrap()).collect();
    let loads = Cluster::at(cluster.web, 9000).map(|to| client.load(to, RATE).unwrap());
    go_on();

    let leaving = speakers.remove(first.as_str()).unwrap();
    assert!(leaving.terminate(READY).unwrap().success());
    settled(&lab, pair, other.name());
    go_on();
    holds.extend(to.iter().map(|to| client.hold(*to).unwrap()));
    go_on();
    let back = start(lab.node(&first), responder);
    back.wait_ready(READY).unwrap();
    settled(&lab, pair, &first);
    go_on();

    for load in loads {
        let report = load.finish().unwrap();
        assert!(report.failed == 0 && report.answered > 100, "{report:?}");
        assert!(WEB.iter().all(|name| report.names.contains_key(*name)), "{report:?}");
    }
    for hold in holds {
        let report = hold.finish().unwrap();
        assert!(report.error.is_none() && report.exchanged > 20, "{report:?}");
    }
    for (transfer, to) in transfers.into_iter().zip(&to) {
        let bytes = transfer.finish();
        assert!(bytes > 1 << 20, "{to}: {bytes} bytes");
    }
}

fn start(node: &Node, responder: &str) -> Daemon {
    let mut command = node.command(Program::Speaker).unwrap();
    command.args(["--responder", responder]);
    node.start_with(Program::Speaker, command).unwrap()
}

fn settled(lab: &Lab, addresses: [std::net::IpAddr; 2], node: &str) {
    let answers = || addresses.iter().all(|ip| owner(lab, *ip).as_deref() == Some(node));
    wait_until(LATE, &format!("{node} answers for all"), answers).unwrap();
}

/// Lets the traffic run for a while.
fn go_on() {
    let end = Instant::now() + AFTER;
    wait_until(LATE, "the traffic has gone on", || Instant::now() > end).unwrap();
}

/// A connection to an echo server on which data flows both ways all the time.
struct Transfer {
    needed: Arc<AtomicBool>,
    writer: JoinHandle<u64>,
    reader: JoinHandle<u64>,
}

impl Transfer {
    fn start(client: &Place, to: SocketAddr) -> Self {
        let stream = client.run(|| TcpStream::connect(to)).unwrap().unwrap();
        stream.set_read_timeout(Some(LATE)).unwrap();
        stream.set_write_timeout(Some(LATE)).unwrap();
        let mut back = BufReader::new(stream.try_clone().unwrap());
        let mut greeting = String::new();
        back.read_line(&mut greeting).unwrap();
        let needed = Arc::new(AtomicBool::new(true));
        let until = Arc::clone(&needed);
        let writer = thread::spawn(move || write(stream, &until));
        let reader = thread::spawn(move || read(back));
        Self { needed, writer, reader }
    }

    /// The bytes that came back, all that were sent.
    fn finish(self) -> u64 {
        self.needed.store(false, Ordering::Relaxed);
        let sent = self.writer.join().unwrap();
        let returned = self.reader.join().unwrap();
        assert_eq!(sent, returned);
        returned
    }
}

/// Blocks of bytes that follow from their places, at a pace that leaves the machine some time.
const BLOCK: usize = 4_096;

fn byte(place: u64) -> u8 {
    u8::try_from(place.wrapping_mul(2_654_435_761) >> 24 & 0xff).unwrap()
}

fn write(mut stream: TcpStream, needed: &AtomicBool) -> u64 {
    let (mut sent, mut next) = (0, Instant::now());
    while needed.load(Ordering::Relaxed) {
        let block: Vec<u8> = (sent..sent + BLOCK as u64).map(byte).collect();
        stream.write_all(&block).unwrap();
        sent += BLOCK as u64;
        next += Duration::from_millis(2);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    stream.shutdown(Shutdown::Write).unwrap();
    sent
}

fn read(mut back: BufReader<TcpStream>) -> u64 {
    let (mut returned, mut block) = (0, [0; BLOCK]);
    loop {
        let length = back.read(&mut block).unwrap();
        if length == 0 {
            return returned;
        }
        for got in &block[..length] {
            assert_eq!(*got, byte(returned), "byte {returned}");
            returned += 1;
        }
    }
}
