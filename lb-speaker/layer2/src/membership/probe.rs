//! Probes to a silent peer and their echoes: whether its machine lives although its speaker does not speak.
//!
//! A probe is 32 bytes: `"RSPB"`, version, three zero bytes, a nonce of 16 bytes, eight zero bytes. The peer's kernel program
//! sends it back with `"RSEC"` in front and, in the last eight bytes, how many milliseconds ago its speaker was last at
//! work. A speaker itself answers no probe: only what goes on answering clients without it may say so.
//!
//! The kernel has no key, so an echo proves only that whoever sent it saw the probe; it defers a takeover to the bound
//! of [`super::STALLED_DEAD_AFTER`], and does nothing else.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const PROBE: [u8; 4] = *b"RSPB";
const ECHO: [u8; 4] = *b"RSEC";
const VERSION: u8 = 1;
/// Length of a probe and of an echo.
pub const PROBE_LENGTH: usize = 32;
/// How many probes may be on their way to a peer.
const OUTSTANDING: usize = 4;

type Nonce = [u8; 16];

/// Makes nonces that nobody can guess who has not seen them.
pub(super) struct Nonces {
    secret: Hmac<Sha256>,
    count: u64,
}

impl Nonces {
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        Self { secret: Hmac::new_from_slice(secret).expect("HMAC takes keys of every length"), count: 0 }
    }

    fn next(&mut self) -> Nonce {
        self.count = self.count.wrapping_add(1);
        let tag: [u8; 32] = self.secret.clone().chain_update(self.count.to_be_bytes()).finalize().into_bytes().into();
        let (nonce, _) = tag.split_first_chunk().expect("a tag has 32 bytes");
        *nonce
    }
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Nonces(..)")
    }
}

/// The probes to one peer and what came back.
#[derive(Clone, Debug, Default)]
pub(super) struct Probing {
    sent: Vec<Nonce>,
    next: Option<Duration>,
    echoed: Option<Duration>,
}

impl Probing {
    /// The peer speaks: what was asked is void.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// The probe to send, if one is due for a peer that has been silent since `heard`.
    pub(super) fn due(&mut self, now: Duration, heard: Duration, nonces: &mut Nonces) -> Option<Vec<u8>> {
        if now < self.next(heard) {
            return None;
        }
        self.next = Some(now + super::INTERVAL);
        let nonce = nonces.next();
        if self.sent.len() >= OUTSTANDING {
            self.sent.remove(0);
        }
        self.sent.push(nonce);
        Some(encode(PROBE, &nonce, 0))
    }

    /// When the next probe is due.
    pub(super) fn next(&self, heard: Duration) -> Duration {
        self.next.unwrap_or(heard + super::PROBE_AFTER)
    }

    /// Takes an echo in; whether it answers a probe of ours, once.
    pub(super) fn take(&mut self, now: Duration, echo: &Echo) -> bool {
        let Some(position) = self.sent.iter().position(|nonce| *nonce == echo.nonce) else { return false };
        self.sent.remove(position);
        if echo.age < super::STALLED_DEAD_AFTER {
            self.echoed = Some(now);
        }
        true
    }

    /// This node stood still for so long, and could neither probe nor hear.
    pub(super) fn wait(&mut self, now: Duration, still: Duration) {
        self.echoed = self.echoed.map(|echoed| now.min(echoed + still));
    }

    /// Until when the last echo shows that the peer's kernel answers.
    pub(super) fn proves_until(&self) -> Option<Duration> {
        self.echoed.map(|echoed| echoed + super::DEAD_AFTER)
    }
}

/// What a peer's kernel sent back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Echo {
    nonce: Nonce,
    /// Since when the peer's speaker gave no sign of life to its kernel.
    age: Duration,
}

impl Echo {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; PROBE_LENGTH] = bytes.try_into().ok()?;
        let (head, rest) = bytes.split_first_chunk::<8>()?;
        let (nonce, age) = rest.split_first_chunk::<16>()?;
        let age = u64::from_be_bytes(age.try_into().ok()?);
        (*head == header(ECHO)).then(|| Self { nonce: *nonce, age: Duration::from_millis(age) })
    }
}

/// Whether the bytes are a probe, which only a kernel program may answer.
pub(super) fn is_probe(bytes: &[u8]) -> bool {
    bytes.len() == PROBE_LENGTH && bytes.starts_with(&PROBE)
}

/// Whether the bytes claim to be an echo.
pub(super) fn is_echo(bytes: &[u8]) -> bool {
    bytes.starts_with(&ECHO)
}

fn header(magic: [u8; 4]) -> [u8; 8] {
    let [a, b, c, d] = magic;
    [a, b, c, d, VERSION, 0, 0, 0]
}

fn encode(magic: [u8; 4], nonce: &Nonce, age: u64) -> Vec<u8> {
    [&header(magic)[..], nonce, &age.to_be_bytes()].concat()
}

/// What a kernel makes of a probe whose speaker was at work `age` ago; for simulations and tests.
#[must_use]
pub fn echo(probe: &[u8], age: Duration) -> Option<Vec<u8>> {
    let nonce = probe.get(8..24).filter(|_| is_probe(probe))?;
    Some(encode(ECHO, nonce.try_into().ok()?, u64::try_from(age.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_and_its_echo_are_byte_exact() {
        let nonce: Nonce = *b"0123456789abcdef";
        let probe = encode(PROBE, &nonce, 0);
        assert_eq!(probe, *b"RSPB\x01\0\0\x000123456789abcdef\0\0\0\0\0\0\0\0");
        assert!(is_probe(&probe) && Echo::decode(&probe).is_none());
        let echoed = echo(&probe, Duration::from_millis(0x0102)).unwrap();
        assert_eq!(echoed, *b"RSEC\x01\0\0\x000123456789abcdef\0\0\0\0\0\0\x01\x02");
        assert_eq!(Echo::decode(&echoed), Some(Echo { nonce, age: Duration::from_millis(0x0102) }));
        for length in 0..echoed.len() {
            assert_eq!(Echo::decode(&echoed[..length]), None);
        }
        assert_eq!(echo(&echoed, Duration::ZERO), None);
    }

    #[test]
    fn an_echo_counts_once_and_only_for_a_probe_that_was_sent() {
        let mut nonces = Nonces::new(&[7; 32]);
        let (mut probing, mut stranger) = (Probing::default(), Probing::default());
        let ms = Duration::from_millis;
        assert_eq!(probing.due(ms(79), ms(0), &mut nonces), None);
        let probe = probing.due(ms(80), ms(0), &mut nonces).unwrap();
        assert_eq!(probing.due(ms(119), ms(0), &mut nonces), None);
        let second = probing.due(ms(120), ms(0), &mut nonces).unwrap();
        assert_ne!(probe, second);
        let answer = Echo::decode(&echo(&probe, ms(85)).unwrap()).unwrap();
        assert!(!stranger.take(ms(121), &answer));
        assert!(probing.take(ms(121), &answer) && !probing.take(ms(122), &answer));
        assert_eq!(probing.proves_until(), Some(ms(281)));
        // A kernel whose speaker has been gone for long vouches for nothing.
        let old = Echo::decode(&echo(&second, ms(3000)).unwrap()).unwrap();
        assert!(probing.take(ms(200), &old));
        assert_eq!(probing.proves_until(), Some(ms(281)));
    }
}
