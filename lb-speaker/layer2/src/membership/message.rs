//! The heartbeat on the wire: at most 707 bytes, and authenticated as a whole when the speakers share a key.
//!
//! `"RSSP"`, version, phase, boot (8 bytes), sequence (8 bytes), heals (4 bytes), digest of the table (8 bytes), the part
//! of a table that is asked for (2 bytes), length of the name, name, number of hardware addresses, these (6 bytes each),
//! then 32 bytes of HMAC-SHA256 over all before them if there is a key. Numbers are in network byte order.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const MAGIC: [u8; 4] = *b"RSSP";
pub(super) const VERSION: u8 = 3;
const TAG_LENGTH: usize = 32;

/// The longest node name: that of a DNS name.
pub const MAX_NAME: usize = 253;
/// The most hardware addresses that a node tells of.
pub(super) const MAX_STATIONS: usize = 64;
/// The longest datagram, a part of a table; a receiver needs no larger buffer.
pub const MAX_DATAGRAM: usize = 1232;

/// The key that all speakers of a cluster share. It is never shown.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl Key {
    /// A key of any length; 32 random bytes are the right one.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        // A shared secret of any length is taken: what is longer than a block is hashed first (RFC 2104).
        Self(Hmac::new_from_slice(bytes).expect("HMAC takes keys of every length"))
    }

    pub(super) fn tag(&self, bytes: &[u8]) -> [u8; TAG_LENGTH] {
        self.0.clone().chain_update(bytes).finalize().into_bytes().into()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Too short, too long, or not ours.
    #[error("the datagram is no speaker's message")]
    Malformed,
    /// From a newer speaker.
    #[error("the message has version {0}")]
    Version(u8),
    /// No tag, another key, or changed on the way; also a tag where no key is configured.
    #[error("the message is not authentic")]
    NotAuthentic,
}

/// What the sender says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Joining,
    Alive,
    Left,
    /// As `Joining`, while the node's kernel still answers for what an earlier run announced.
    Resuming,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) phase: Phase,
    pub(super) boot: u64,
    pub(super) sequence: u64,
    /// How often the sender heard a peer again that it had thought dead.
    pub(super) heals: u32,
    /// Of the sender's table of addresses; 0 while it has none.
    pub(super) digest: u64,
    /// The part of the receiver's table that the sender would have, counted from 1; 0 for none.
    pub(super) asks: u16,
    pub(super) name: &'a str,
    /// The hardware addresses with which the sender announces.
    pub(super) stations: &'a [[u8; 6]],
}

impl<'a> Message<'a> {
    pub(super) fn encode(&self, key: Option<&Key>) -> Vec<u8> {
        let phase = match self.phase {
            Phase::Joining => 0,
            Phase::Alive => 1,
            Phase::Left => 2,
            Phase::Resuming => 3,
        };
        // Names are checked where they enter, by the speaker's command line; a longer one would never be taken.
        let name = self.name.as_bytes();
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        let (boot, sequence) = (self.boot.to_be_bytes(), self.sequence.to_be_bytes());
        let (heals, digest, asks) = (self.heals.to_be_bytes(), self.digest.to_be_bytes(), self.asks.to_be_bytes());
        let head = [&MAGIC[..], &[VERSION, phase], &boot, &sequence, &heals, &digest, &asks].concat();
        let stations = self.stations.get(..MAX_STATIONS).unwrap_or(self.stations);
        let count = u8::try_from(stations.len()).unwrap_or(u8::MAX);
        let mut bytes = [&head[..], &[length], name, &[count], stations.as_flattened()].concat();
        if let Some(key) = key {
            let tag = key.tag(&bytes);
            bytes.extend(tag);
        }
        bytes
    }

    pub(super) fn decode(bytes: &'a [u8], key: Option<&Key>) -> Result<Self, MessageError> {
        let signed = match key {
            None => bytes,
            Some(key) => authentic(bytes, key)?,
        };
        let malformed = MessageError::Malformed;
        let (magic, rest) = signed.split_first_chunk::<4>().ok_or(malformed)?;
        if *magic != MAGIC {
            return Err(malformed);
        }
        let ([version, phase], rest) = rest.split_first_chunk::<2>().ok_or(malformed)?;
        if *version != VERSION {
            return Err(MessageError::Version(*version));
        }
        let (boot, rest) = rest.split_first_chunk().ok_or(malformed)?;
        let (sequence, rest) = rest.split_first_chunk().ok_or(malformed)?;
        let (heals, rest) = rest.split_first_chunk().ok_or(malformed)?;
        let (digest, rest) = rest.split_first_chunk().ok_or(malformed)?;
        let (asks, rest) = rest.split_first_chunk().ok_or(malformed)?;
        let (length, rest) = rest.split_first().ok_or(malformed)?;
        let (name, rest) = rest.split_at_checked(usize::from(*length)).ok_or(malformed)?;
        let (count, rest) = rest.split_first().ok_or(malformed)?;
        let (stations, rest) = rest.split_at_checked(usize::from(*count) * 6).ok_or(malformed)?;
        if key.is_none() && rest.len() == TAG_LENGTH {
            return Err(MessageError::NotAuthentic);
        }
        if !rest.is_empty() || name.is_empty() || name.len() > MAX_NAME {
            return Err(malformed);
        }
        let phase = match phase {
            0 => Phase::Joining,
            1 => Phase::Alive,
            2 => Phase::Left,
            3 => Phase::Resuming,
            _ => return Err(malformed),
        };
        let name = std::str::from_utf8(name).map_err(|_| malformed)?;
        let (boot, sequence) = (u64::from_be_bytes(*boot), u64::from_be_bytes(*sequence));
        let (heals, digest) = (u32::from_be_bytes(*heals), u64::from_be_bytes(*digest));
        let (asks, (stations, _)) = (u16::from_be_bytes(*asks), stations.as_chunks());
        Ok(Self { phase, boot, sequence, heals, digest, asks, name, stations })
    }
}

/// Checks the tag at the end, in constant time, and gives what it stands for.
pub(super) fn authentic<'a>(bytes: &'a [u8], key: &Key) -> Result<&'a [u8], MessageError> {
    let (signed, tag) = bytes.split_last_chunk::<TAG_LENGTH>().ok_or(MessageError::NotAuthentic)?;
    let expected = key.0.clone().chain_update(signed);
    expected.verify_slice(tag).map_err(|_| MessageError::NotAuthentic)?;
    Ok(signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: Message<'_> = Message {
        phase: Phase::Alive,
        boot: 0x0102,
        sequence: 3,
        heals: 4,
        digest: 5,
        asks: 6,
        name: "n1",
        stations: &[*b"\x02abcde"],
    };

    #[test]
    fn a_message_is_byte_exact_and_read_back() {
        let bytes = MESSAGE.encode(None);
        assert_eq!(
            bytes,
            *b"RSSP\x03\x01\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\0\x03\0\0\0\x04\0\0\0\0\0\0\0\x05\0\x06\x02n1\x01\x02abcde"
        );
        assert_eq!(Message::decode(&bytes, None), Ok(MESSAGE));
        let key = Key::new(b"secret");
        let signed = MESSAGE.encode(Some(&key));
        assert_eq!(signed.len(), bytes.len() + 32);
        assert_eq!(Message::decode(&signed, Some(&key)), Ok(MESSAGE));
        let longest = Message { name: &"n".repeat(MAX_NAME), stations: &[[2; 6]; 70], ..MESSAGE }.encode(Some(&key));
        assert_eq!(longest.len(), 707, "of more than 64 addresses the first 64 are told");
        assert!(longest.len() <= MAX_DATAGRAM);
        assert!(Message::decode(&longest, Some(&key)).is_ok());
    }

    #[test]
    fn every_changed_or_missing_byte_of_a_signed_message_is_noticed() {
        let key = Key::new(b"secret");
        let signed = MESSAGE.encode(Some(&key));
        for position in 0..signed.len() {
            let mut changed = signed.clone();
            changed[position] ^= 1;
            assert_eq!(Message::decode(&changed, Some(&key)), Err(MessageError::NotAuthentic), "{position}");
            assert_eq!(Message::decode(&signed[..position], Some(&key)), Err(MessageError::NotAuthentic), "{position}");
        }
        assert_eq!(Message::decode(&MESSAGE.encode(None), Some(&key)), Err(MessageError::NotAuthentic));
        assert_eq!(Message::decode(&signed, Some(&Key::new(b"other"))), Err(MessageError::NotAuthentic));
        assert_eq!(Message::decode(&signed, None), Err(MessageError::NotAuthentic));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let changed = |position: usize, value: u8| {
            let mut bytes = MESSAGE.encode(None);
            bytes[position] = value;
            bytes
        };
        let cases = [
            (Vec::new(), MessageError::Malformed),
            (changed(0, b'X'), MessageError::Malformed),
            (changed(4, 2), MessageError::Version(2)),
            (changed(5, 4), MessageError::Malformed),
            (changed(36, 3), MessageError::Malformed),
            (changed(36, 1), MessageError::Malformed),
            (changed(36, 0), MessageError::Malformed),
            (changed(37, 0xff), MessageError::Malformed),
            (changed(39, 0), MessageError::Malformed),
            (changed(39, 2), MessageError::Malformed),
        ];
        for (bytes, error) in cases {
            assert_eq!(Message::decode(&bytes, None), Err(error), "{bytes:02x?}");
        }
    }
}
