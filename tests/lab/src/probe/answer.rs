//! What an attempt came to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Error, Result};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One attempt of a probe.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// Whether there was an answer. An HTTP answer of any status is one.
    pub ok: bool,
    /// What failed: the name of the system's error such as `ECONNREFUSED`, or `timeout`, `closed`, `tls: …`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long it took, in microseconds.
    pub elapsed_us: u64,
    /// When it ended, in microseconds since 1970.
    pub at_us: u64,
    /// What `getpeername` says once connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<SocketAddr>,
    /// The own address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// What `recvfrom` says about a datagram.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SocketAddr>,
    /// The status of an HTTP answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The headers of an HTTP answer; of several with one name the last.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// What the server said: JSON where it is some, else text.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub answer: Value,
}

impl Answer {
    /// The name of the echo server that answered.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.answer.get("name")?.as_str()
    }

    /// The address that the echo server saw as its client.
    #[must_use]
    pub fn seen_as(&self) -> Option<SocketAddr> {
        self.answer.get("peer")?.as_str()?.parse().ok()
    }

    /// How long it took.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.elapsed_us)
    }

    /// When it ended.
    #[must_use]
    pub fn at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.at_us)
    }

    /// Who answered, or why nobody did, in a word.
    #[must_use]
    pub fn outcome(&self) -> String {
        if let Some(error) = &self.error {
            return error.clone();
        }
        match (self.name(), self.status) {
            (Some(name), _) => name.to_owned(),
            (None, Some(status)) => status.to_string(),
            (None, None) => "an answer without a name".to_owned(),
        }
    }

    /// Makes the attempt; what it finds out before it fails is kept.
    pub(super) fn of(attempt: impl FnOnce(&mut Self) -> Result<()>) -> Self {
        let (mut answer, started) = (Self::default(), Instant::now());
        let outcome = attempt(&mut answer);
        answer.elapsed_us = micros(started.elapsed());
        answer.at_us = micros(UNIX_EPOCH.elapsed().unwrap_or_default());
        answer.ok = outcome.is_ok();
        answer.error = outcome.err().map(|error| kind(&error));
        answer
    }

    /// Takes what the server said.
    pub(super) fn take(&mut self, said: &[u8]) {
        let text = String::from_utf8_lossy(said);
        self.answer = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned()));
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The error in a word where the system gave it one.
pub(super) fn kind(error: &Error) -> String {
    let Some(io) = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>()) else {
        return format!("{error:#}");
    };
    match (io.raw_os_error(), io.kind()) {
        // A read timeout of a socket is reported as "try again".
        (_, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => "timeout".to_owned(),
        (Some(number), _) => format!("{:?}", Errno::from_raw(number)),
        (None, std::io::ErrorKind::UnexpectedEof) => "closed".to_owned(),
        _ => format!("{error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::anyhow;

    use super::*;

    #[test]
    fn errors_have_the_names_that_the_system_gives_them() {
        let cases = [
            (io::Error::from_raw_os_error(libc::ECONNREFUSED).into(), "ECONNREFUSED"),
            (io::Error::from_raw_os_error(libc::EAGAIN).into(), "timeout"),
            (io::Error::from(io::ErrorKind::TimedOut).into(), "timeout"),
            (io::Error::from(io::ErrorKind::UnexpectedEof).into(), "closed"),
            (Error::from(io::Error::from_raw_os_error(libc::EHOSTUNREACH)).context("connect"), "EHOSTUNREACH"),
            (anyhow!("no such host"), "no such host"),
        ];
        for (error, expected) in cases {
            assert_eq!(kind(&error), expected);
        }
    }

    #[test]
    fn an_answer_survives_its_line() {
        let mut answer = Answer::of(|answer| {
            answer.take(br#"{"name": "web-1", "peer": "192.168.77.100:4242"}"#);
            Ok(())
        });
        answer.status = Some(200);
        let read: Answer = serde_json::from_str(&serde_json::to_string(&answer).unwrap()).unwrap();
        assert!(read.ok && read.name() == Some("web-1") && read.status == Some(200));
        assert_eq!(read.seen_as(), "192.168.77.100:4242".parse().ok());
        assert_eq!(read.outcome(), "web-1");
        let failed = Answer::of(|_| Err(io::Error::from_raw_os_error(libc::ECONNRESET).into()));
        assert_eq!(failed.outcome(), "ECONNRESET");
    }
}
