//! Questions as datagrams: the question's number goes out, and comes back with the name of the echo server.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::{PAUSE, Shared};
use crate::place::Place;

/// The longest answer that is read.
const LONGEST: usize = 2048;

pub(super) struct Asker {
    socket: UdpSocket,
    to: SocketAddr,
}

pub(super) struct Hearer {
    socket: UdpSocket,
    /// Each name once.
    names: Mutex<HashMap<String, Arc<str>>>,
}

/// What is read of an echo server's answer.
#[derive(Deserialize)]
struct Echo<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    payload: Cow<'a, str>,
}

impl Asker {
    /// Not connected, so that an ICMP error between two answers is no matter.
    pub(super) fn open(place: &Place, to: SocketAddr) -> Result<Self> {
        let any: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = place.run(|| UdpSocket::bind((any, 0)))?.context("no socket")?;
        socket.set_read_timeout(Some(PAUSE))?;
        Ok(Self { socket, to })
    }

    pub(super) fn hearer(&self) -> Result<Hearer> {
        Ok(Hearer { socket: self.socket.try_clone()?, names: Mutex::default() })
    }

    pub(super) fn ask(&self, number: u64) {
        // What is not sent is not answered, and that is what counts.
        let _sent = self.socket.send_to(number.to_string().as_bytes(), self.to);
    }
}

impl Hearer {
    pub(super) fn hear(&self, shared: &Shared) {
        let mut buffer = [0; LONGEST];
        let Ok(length) = self.socket.recv(&mut buffer) else { return };
        let now = Instant::now();
        let Ok(echo) = serde_json::from_slice::<Echo<'_>>(buffer.get(..length).unwrap_or_default()) else { return };
        let Ok(number) = echo.payload.parse() else { return };
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let name = names.entry(echo.name.into_owned()).or_insert_with_key(|name| Arc::from(name.as_str()));
        shared.log().answer(number, name, now);
    }
}
