//! Whether a container is ready: probes from the node's network, counted as the kubelet counts them.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use tokio::time::Instant;

use super::spec::Probe;
use crate::place::Place;

/// The count of one probe.
#[derive(Debug)]
pub(super) struct Readiness {
    probe: Probe,
    ready: bool,
    /// How many outcomes in a row spoke against the present state.
    against: u64,
    next: Instant,
}

impl Readiness {
    pub(super) fn new(probe: Probe, started: Instant) -> Self {
        let next = started + probe.initial_delay;
        Self { probe, ready: false, against: 0, next }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// The probe to make now, if it is time for one.
    pub(super) fn due(&mut self, now: Instant) -> Option<Probe> {
        if now < self.next {
            return None;
        }
        self.next = now + self.probe.period;
        Some(self.probe.clone())
    }

    /// Takes an outcome in; tells whether it changed the state.
    pub(super) fn take(&mut self, succeeded: bool) -> bool {
        if succeeded == self.ready {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let needed = if succeeded { self.probe.success_threshold } else { self.probe.failure_threshold };
        let changes = self.against >= needed;
        if changes {
            (self.ready, self.against) = (succeeded, 0);
        }
        changes
    }
}

/// Makes a probe from the node's network.
pub(super) fn ask(host: &Place, ip: IpAddr, probe: &Probe) -> bool {
    let address = SocketAddr::new(ip, probe.port);
    let asked = host.run(|| match &probe.path {
        None => TcpStream::connect_timeout(&address, probe.timeout).is_ok(),
        Some(path) => get(address, path, probe.timeout).is_ok_and(|status| (200..400).contains(&status)),
    });
    asked.unwrap_or(false)
}

/// The status of one HTTP/1.0 request.
fn get(address: SocketAddr, path: &str, timeout: Duration) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
    // "HTTP/1.0 200"
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    let status = std::str::from_utf8(&head).ok().and_then(|text| text.split(' ').nth(1)?.parse().ok());
    status.ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn thresholds_are_counted_in_a_row() {
        let second = Duration::from_secs(1);
        let probe = Probe {
            port: 1,
            path: None,
            initial_delay: second,
            period: second,
            timeout: second,
            failure_threshold: 2,
            success_threshold: 1,
        };
        let now = Instant::now();
        let mut readiness = Readiness::new(probe, now);
        assert!(readiness.due(now).is_none() && readiness.due(now + second).is_some());
        assert!(readiness.due(now + second).is_none(), "once a period");
        let outcomes = [true, false, true, false, false, false, true];
        let states: Vec<bool> = outcomes
            .iter()
            .map(|outcome| {
                readiness.take(*outcome);
                readiness.is_ready()
            })
            .collect();
        assert_eq!(states, [true, true, true, true, false, false, true]);
    }
}
