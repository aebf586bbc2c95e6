//! From the host of an authentication service to its addresses, by the system's resolver.
//!
//! Answers are kept for a while, and for longer where the resolver gives none anew: its trouble should not lock everybody out.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{net::lookup_host, time::timeout};

/// ingress-nginx's resolver asks again after so long.
const VALID: Duration = Duration::from_secs(30);
/// How long an answer serves while there is no newer one.
const STALE: Duration = Duration::from_secs(600);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Names that are kept: a URL may take its host from the request.
const MAX_NAMES: usize = 1024;

/// Names that were looked up.
#[derive(Default)]
pub(super) struct Hosts {
    known: Mutex<HashMap<String, (Instant, Vec<IpAddr>)>>,
}

impl Hosts {
    /// The addresses of a host, which may be an address itself.
    pub(super) async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = literal.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let addresses = match self.known(host, VALID) {
            Some(addresses) => addresses,
            None => self.look_up(host).await?,
        };
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }

    fn known(&self, host: &str, for_as_long: Duration) -> Option<Vec<IpAddr>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(host).filter(|(since, _)| since.elapsed() < for_as_long).map(|(_, addresses)| addresses.clone())
    }

    async fn look_up(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let found = match timeout(LOOKUP_TIMEOUT, lookup_host((host, 0))).await {
            Ok(found) => found.map(|addresses| addresses.map(|address| address.ip()).collect::<Vec<_>>()),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer from the resolver in time")),
        };
        match found {
            Ok(addresses) if !addresses.is_empty() => {
                self.keep(host, &addresses);
                Ok(addresses)
            }
            Ok(_) => self.known(host, STALE).ok_or_else(|| io::Error::other("the name has no address")),
            Err(error) => self.known(host, STALE).ok_or(error),
        }
    }

    fn keep(&self, host: &str, addresses: &[IpAddr]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_NAMES {
            known.retain(|_, (since, _)| since.elapsed() < VALID);
        }
        if known.len() < MAX_NAMES {
            known.insert(host.to_owned(), (Instant::now(), addresses.to_vec()));
        }
    }
}
