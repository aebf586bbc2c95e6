//! The heartbeat on the wire: at most 1,147 bytes, and authenticated as a whole when the speakers share a key.
//!
//! `"RSSP"`, version, phase, boot (8 bytes), sequence (8 bytes), heals (4 bytes), digest of the index (8 bytes), length
//! of the name, name, number of hardware addresses, these (6 bytes each),
//! digest of the sender's standing (8 bytes), and what it says to this receiver: the receiver's boot and the last sequence
//! heard of it (8 bytes each), the receiver's state to the sender, the digest of the receiver's standing that the sender
//! backs (8 bytes), the number of addresses that it does not back, these, each after its family; then 32 bytes of
//! HMAC-SHA256 over all before them if there is a key. Numbers are in network byte order.

use std::{fmt, net::IpAddr};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{
    document::{ip, read_chunk, read_ip},
    peer::PeerState,
};

const MAGIC: [u8; 4] = *b"RSSP";
pub(super) const VERSION: u8 = 5;
const TAG_LENGTH: usize = 32;

/// The longest node name: that of a DNS name.
pub const MAX_NAME: usize = 253;
/// The most hardware addresses that a node tells of.
pub(super) const MAX_STATIONS: usize = 64;
/// The most addresses that a heartbeat says are not backed; with more, none of the standing is.
pub(super) const MAX_REFUSED: usize = 24;
/// The longest datagram, a part of a document; a receiver needs no larger buffer.
pub const MAX_DATAGRAM: usize = 1232;

/// The key that all speakers of a cluster share, and others that are believed beside it while it is replaced. None is ever
/// shown.
#[derive(Clone)]
pub struct Key {
    signs: Hmac<Sha256>,
    believed: Vec<Hmac<Sha256>>,
}

impl Key {
    /// A key of any length; 32 random bytes are the right one.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self { signs: keyed(bytes), believed: Vec::new() }
    }

    /// Believes what is signed by another key as well.
    #[must_use]
    pub fn believing(mut self, bytes: &[u8]) -> Self {
        self.believed.push(keyed(bytes));
        self
    }

    fn vouches(&self, signed: &[u8], tag: &[u8]) -> bool {
        let mut keys = [&self.signs].into_iter().chain(&self.believed);
        keys.any(|key| key.clone().chain_update(signed).verify_slice(tag).is_ok())
    }

    pub(super) fn tag(&self, bytes: &[u8]) -> [u8; TAG_LENGTH] {
        self.signs.clone().chain_update(bytes).finalize().into_bytes().into()
    }
}

/// A shared secret of any length is taken: what is longer than a block is hashed first (RFC 2104).
fn keyed(bytes: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(bytes).expect("HMAC takes keys of every length")
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
    /// It stops as soon as others have taken over what it still answers for.
    Leaving,
}

/// What a heartbeat says to the one who receives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    /// The run of the receiver that is meant; for another, none of this holds.
    pub(super) boot: u64,
    /// The last heartbeat of it that was heard.
    pub(super) heard: u64,
    /// What the receiver is to the sender.
    pub(super) state: PeerState,
    /// The standing of the receiver that is backed, but for what is refused; 0 for none.
    pub(super) backed: u64,
    pub(super) refused: Vec<IpAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) phase: Phase,
    pub(super) boot: u64,
    pub(super) sequence: u64,
    /// How often the sender heard a peer again that it had thought dead.
    pub(super) heals: u32,
    /// Of the sender's index of what it hands on.
    pub(super) digest: u64,
    pub(super) name: &'a str,
    /// The hardware addresses with which the sender announces.
    pub(super) stations: &'a [[u8; 6]],
    /// Digest of the sender's standing; 0 for none.
    pub(super) standing: u64,
    pub(super) word: Word,
}

impl<'a> Message<'a> {
    pub(super) fn encode(&self, key: Option<&Key>) -> Vec<u8> {
        let phase = match self.phase {
            Phase::Joining => 0,
            Phase::Alive => 1,
            Phase::Left => 2,
            Phase::Resuming => 3,
            Phase::Leaving => 4,
        };
        // Names are checked where they enter, by the speaker's command line; a longer one would never be taken.
        let name = self.name.as_bytes();
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        let (boot, sequence) = (self.boot.to_be_bytes(), self.sequence.to_be_bytes());
        let (heals, digest) = (self.heals.to_be_bytes(), self.digest.to_be_bytes());
        let head = [&MAGIC[..], &[VERSION, phase], &boot, &sequence, &heals, &digest].concat();
        let stations = self.stations.get(..MAX_STATIONS).unwrap_or(self.stations);
        let count = u8::try_from(stations.len()).unwrap_or(u8::MAX);
        let standing = self.standing.to_be_bytes();
        let mut bytes = [&head[..], &[length], name, &[count], stations.as_flattened(), &standing].concat();
        self.word.write(&mut bytes);
        sealed(bytes, key)
    }

    pub(super) fn decode(bytes: &'a [u8], key: Option<&Key>) -> Result<Self, MessageError> {
        let signed = opened(bytes, key)?;
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
        let (length, rest) = rest.split_first().ok_or(malformed)?;
        let (name, rest) = rest.split_at_checked(usize::from(*length)).ok_or(malformed)?;
        let (count, rest) = rest.split_first().ok_or(malformed)?;
        let (stations, rest) = rest.split_at_checked(usize::from(*count) * 6).ok_or(malformed)?;
        let mut rest = rest;
        let standing = u64::from_be_bytes(read_chunk(&mut rest).ok_or(malformed)?);
        let word = Word::read(&mut rest).ok_or(malformed)?;
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
            4 => Phase::Leaving,
            _ => return Err(malformed),
        };
        let name = std::str::from_utf8(name).map_err(|_| malformed)?;
        let (boot, sequence) = (u64::from_be_bytes(*boot), u64::from_be_bytes(*sequence));
        let (heals, digest) = (u32::from_be_bytes(*heals), u64::from_be_bytes(*digest));
        let (stations, _) = stations.as_chunks();
        Ok(Self { phase, boot, sequence, heals, digest, name, stations, standing, word })
    }
}

impl Word {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend([self.boot.to_be_bytes(), self.heard.to_be_bytes()].as_flattened());
        bytes.push(self.state.code());
        let backed = if self.refused.len() <= MAX_REFUSED { self.backed } else { 0 };
        bytes.extend(backed.to_be_bytes());
        let refused = self.refused.get(..MAX_REFUSED).unwrap_or(&self.refused);
        bytes.push(u8::try_from(refused.len()).unwrap_or(u8::MAX));
        refused.iter().for_each(|address| ip(bytes, *address));
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (boot, heard) = (u64::from_be_bytes(read_chunk(bytes)?), u64::from_be_bytes(read_chunk(bytes)?));
        let [state] = read_chunk(bytes)?;
        let state = PeerState::from_code(state)?;
        let backed = u64::from_be_bytes(read_chunk(bytes)?);
        let [count] = read_chunk(bytes)?;
        let refused = (0..count).map(|_| read_ip(bytes)).collect::<Option<Vec<IpAddr>>>()?;
        Some(Self { boot, heard, state, backed, refused })
    }
}

/// The question for a document, from its part `first` on: `"RSSQ"`, version, digest (8 bytes), the part (2 bytes), the
/// asker's name, and the tag. Sent again by a stranger it costs its answer, to the peer and no one else.
pub(super) struct Question<'a> {
    pub(super) digest: u64,
    pub(super) first: u16,
    pub(super) name: &'a str,
}

impl<'a> Question<'a> {
    const MAGIC: [u8; 4] = *b"RSSQ";

    pub(super) fn is(datagram: &[u8]) -> bool {
        datagram.starts_with(&Self::MAGIC)
    }

    pub(super) fn encode(&self, key: Option<&Key>) -> Vec<u8> {
        let (digest, first) = (self.digest.to_be_bytes(), self.first.to_be_bytes());
        let bytes = [&Self::MAGIC[..], &[VERSION], &digest, &first, self.name.as_bytes()].concat();
        sealed(bytes, key)
    }

    pub(super) fn decode(bytes: &'a [u8], key: Option<&Key>) -> Result<Self, MessageError> {
        let signed = opened(bytes, key)?;
        let malformed = MessageError::Malformed;
        let mut rest = signed.strip_prefix(&Self::MAGIC).ok_or(malformed)?;
        let [version] = read_chunk(&mut rest).ok_or(malformed)?;
        if version != VERSION {
            return Err(MessageError::Version(version));
        }
        let digest = u64::from_be_bytes(read_chunk(&mut rest).ok_or(malformed)?);
        let first = u16::from_be_bytes(read_chunk(&mut rest).ok_or(malformed)?);
        let name = std::str::from_utf8(rest).map_err(|_| malformed)?;
        if name.is_empty() || name.len() > MAX_NAME { Err(malformed) } else { Ok(Self { digest, first, name }) }
    }
}

/// The datagram with its tag at the end, where there is a key.
pub(super) fn sealed(mut bytes: Vec<u8>, key: Option<&Key>) -> Vec<u8> {
    if let Some(key) = key {
        let tag = key.tag(&bytes);
        bytes.extend(tag);
    }
    bytes
}

/// Checks the tag at the end, in constant time, and gives what it stands for; all of it where there is no key.
pub(super) fn opened<'a>(bytes: &'a [u8], key: Option<&Key>) -> Result<&'a [u8], MessageError> {
    let Some(key) = key else { return Ok(bytes) };
    let (signed, tag) = bytes.split_last_chunk::<TAG_LENGTH>().ok_or(MessageError::NotAuthentic)?;
    key.vouches(signed, tag).then_some(signed).ok_or(MessageError::NotAuthentic)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: Message<'_> = Message {
        standing: 7,
        word: Word { boot: 8, heard: 9, state: PeerState::Dead, backed: 10, refused: Vec::new() },
        phase: Phase::Alive,
        boot: 0x0102,
        sequence: 3,
        heals: 4,
        digest: 5,
        name: "n1",
        stations: &[*b"\x02abcde"],
    };

    #[test]
    fn a_message_is_byte_exact_and_read_back() {
        let bytes = MESSAGE.encode(None);
        assert_eq!(
            bytes,
            *b"RSSP\x05\x01\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\0\x03\0\0\0\x04\0\0\0\0\0\0\0\x05\x02n1\x01\x02abcde\
               \0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x09\x05\0\0\0\0\0\0\0\x0a\0"
        );
        assert_eq!(Message::decode(&bytes, None), Ok(MESSAGE));
        let key = Key::new(b"secret");
        let signed = MESSAGE.encode(Some(&key));
        assert_eq!(signed.len(), bytes.len() + 32);
        assert_eq!(Message::decode(&signed, Some(&key)), Ok(MESSAGE));
        let refused = vec![IpAddr::from([0x20; 16]); 30];
        let word = Word { refused, ..MESSAGE.word };
        let longest = Message { name: &"n".repeat(MAX_NAME), stations: &[[2; 6]; 70], word, ..MESSAGE };
        let longest = longest.encode(Some(&key));
        assert_eq!(longest.len(), 1147, "of more than 64 addresses the first 64 are told, of those not backed 24");
        assert_eq!(Message::decode(&longest, Some(&key)).unwrap().word.backed, 0, "then nothing is backed");
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
    fn a_key_is_replaced_in_three_steps_in_any_order_of_nodes() {
        let (old, new) = (b"old".as_slice(), b"new".as_slice());
        let steps = [Key::new(old), Key::new(old).believing(new), Key::new(new).believing(old), Key::new(new)];
        let hears = |from: &Key, to: &Key| Message::decode(&MESSAGE.encode(Some(from)), Some(to)) == Ok(MESSAGE);
        for pair in steps.windows(2) {
            assert!(hears(&pair[0], &pair[1]) && hears(&pair[1], &pair[0]));
        }
        assert!(!hears(&steps[2], &steps[0]) && !hears(&steps[0], &steps[3]), "a step was left out");
    }

    #[test]
    fn a_question_is_read_back_and_nothing_else() {
        for key in [None, Some(Key::new(b"secret"))] {
            let bytes = Question { digest: 1, first: 2, name: "n1" }.encode(key.as_ref());
            let read =
                Question::decode(&bytes, key.as_ref()).map(|read| (read.digest, read.first, read.name.to_owned()));
            assert_eq!(read, Ok((1, 2, "n1".to_owned())));
            assert!(Question::decode(&bytes[..15], key.as_ref()).is_err());
            assert!(Question::decode(&[], key.as_ref()).is_err());
        }
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
            (changed(4, 3), MessageError::Version(3)),
            (changed(5, 5), MessageError::Malformed),
            (changed(34, 3), MessageError::Malformed),
            (changed(34, 0), MessageError::Malformed),
            (changed(35, 0xff), MessageError::Malformed),
            (changed(37, 2), MessageError::Malformed),
            (changed(68, 9), MessageError::Malformed),
            (changed(77, 1), MessageError::Malformed),
        ];
        for (bytes, error) in cases {
            assert_eq!(Message::decode(&bytes, None), Err(error), "{bytes:02x?}");
        }
    }
}
