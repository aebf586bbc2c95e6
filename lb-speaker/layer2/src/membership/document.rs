//! What a node tells at length, named by a digest in its heartbeats and handed on in parts.
//!
//! There are the node's standing and what `exchange` hands on: an index, and buckets of the replicated map and of the node's
//! view. A part is the kind's mark (`"RSSS"`, `"RSSI"`, `"RSSA"`, `"RSSV"`), version, digest (8 bytes), index and number of
//! parts (2 bytes each), the sender's name after its length, at most [`PART`] bytes of the document, and the tag of a
//! heartbeat. The digest is the beginning of the SHA-256 of mark and document.
//! An old part that somebody sends again does no harm: a document counts only under the digest of the sender's latest
//! heartbeat.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::message::{Key, MAX_NAME, MessageError, VERSION, opened, sealed};

/// Bytes of the document in a part: with the rest it fits every MTU that IPv6 allows.
const PART: usize = 900;
/// A longer standing is not handed on; other documents are shorter, as thousands of Services are many buckets.
const MAX_PARTS: usize = 1024;
const MAX_BUCKET_PARTS: usize = 256;
/// Parts sent for one question.
pub(super) const PARTS_A_QUESTION: usize = 16;

/// What a document tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Standing,
    /// The digests of all buckets.
    Index,
    /// A bucket of the map of assigned addresses.
    Assigned,
    /// A bucket of the view of the files.
    Viewed,
}

impl Kind {
    fn mark(self) -> [u8; 4] {
        match self {
            Self::Standing => *b"RSSS",
            Self::Index => *b"RSSI",
            Self::Assigned => *b"RSSA",
            Self::Viewed => *b"RSSV",
        }
    }

    /// Names the document: of two kinds, the same bytes have two names.
    fn digest(self, bytes: &[u8]) -> u64 {
        digest(&[&self.mark(), bytes].concat())
    }

    fn most_parts(self) -> usize {
        if self == Self::Standing { MAX_PARTS } else { MAX_BUCKET_PARTS }
    }

    /// The kind of a datagram that is a part.
    pub(super) fn of(datagram: &[u8]) -> Option<Self> {
        let all = [Self::Standing, Self::Index, Self::Assigned, Self::Viewed];
        all.into_iter().find(|kind| datagram.starts_with(&kind.mark()))
    }
}

/// A document's bytes and their digest.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    kind: Kind,
    bytes: Vec<u8>,
    /// 0 for no document.
    pub(crate) digest: u64,
}

impl Encoded {
    pub(super) fn none(kind: Kind) -> Self {
        Self { kind, bytes: Vec::new(), digest: 0 }
    }

    pub(crate) fn new(kind: Kind, bytes: Vec<u8>) -> Self {
        let digest = kind.digest(&bytes);
        Self { kind, bytes, digest }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The datagrams that answer the question for the part `first` and those behind it.
    pub(super) fn parts(&self, first: usize, name: &str, key: Option<&Key>) -> Vec<Vec<u8>> {
        let total = self.bytes.len().div_ceil(PART).max(1);
        if self.digest == 0 || total > self.kind.most_parts() {
            return Vec::new();
        }
        let part = |index: usize| {
            let start = index * PART;
            let body = self.bytes.get(start..self.bytes.len().min(start + PART))?;
            let (index, total) = (u16::try_from(index).ok()?, u16::try_from(total).ok()?);
            let (mark, digest) = (self.kind.mark(), self.digest.to_be_bytes());
            let (index, total) = (index.to_be_bytes(), total.to_be_bytes());
            let length = u8::try_from(name.len()).ok()?;
            let head = [&mark[..], &[VERSION], &digest, &index, &total, &[length], name.as_bytes(), body].concat();
            Some(sealed(head, key))
        };
        (first..total).take(PARTS_A_QUESTION).filter_map(part).collect()
    }
}

/// One datagram of a document.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) kind: Kind,
    pub(super) digest: u64,
    index: u16,
    total: u16,
    pub(super) name: &'a str,
    body: &'a [u8],
}

impl<'a> Part<'a> {
    pub(super) fn decode(bytes: &'a [u8], key: Option<&Key>) -> Result<Self, MessageError> {
        let signed = opened(bytes, key)?;
        let malformed = MessageError::Malformed;
        let kind = Kind::of(signed).ok_or(malformed)?;
        let rest = signed.strip_prefix(&kind.mark()).ok_or(malformed)?;
        let (version, rest) = rest.split_first().ok_or(malformed)?;
        if *version != VERSION {
            return Err(MessageError::Version(*version));
        }
        let (digest, rest) = rest.split_first_chunk().ok_or(malformed)?;
        let (index, rest) = rest.split_first_chunk().ok_or(malformed)?;
        let (total, rest) = rest.split_first_chunk().ok_or(malformed)?;
        let (length, rest) = rest.split_first().ok_or(malformed)?;
        let (name, body) = rest.split_at_checked(usize::from(*length)).ok_or(malformed)?;
        let name = std::str::from_utf8(name).map_err(|_| malformed)?;
        let (index, total) = (u16::from_be_bytes(*index), u16::from_be_bytes(*total));
        if name.is_empty() || name.len() > MAX_NAME || index >= total || usize::from(total) > kind.most_parts() {
            return Err(malformed);
        }
        Ok(Self { kind, digest: u64::from_be_bytes(*digest), index, total, name, body })
    }
}

/// A document on its way in.
#[derive(Clone, Debug, Default)]
pub(super) struct Assembly {
    digest: u64,
    parts: BTreeMap<u16, Vec<u8>>,
}

impl Assembly {
    /// The first part that is missing, counted from 1.
    pub(super) fn asks(&self) -> u16 {
        (0..u16::MAX).find(|index| !self.parts.contains_key(index)).unwrap_or(u16::MAX - 1) + 1
    }

    /// The same of the document with this digest.
    pub(super) fn asks_of(&self, digest: u64) -> u16 {
        if digest == self.digest { self.asks() } else { 1 }
    }

    /// Takes a part in; the bytes once they are whole and have the digest that they should.
    pub(super) fn take(&mut self, part: &Part<'_>) -> Option<Vec<u8>> {
        if part.digest != self.digest {
            *self = Self { digest: part.digest, parts: BTreeMap::new() };
        }
        self.parts.insert(part.index, part.body.to_vec());
        if self.parts.len() < usize::from(part.total) {
            return None;
        }
        let bytes: Vec<u8> = std::mem::take(&mut self.parts).into_values().flatten().collect();
        (part.kind.digest(&bytes) == part.digest).then_some(bytes)
    }
}

/// The beginning of the SHA-256, never 0.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(bytes));
    u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1)
}

/// Adds a text of at most 255 bytes after its length.
pub(crate) fn text(bytes: &mut Vec<u8>, text: &str) {
    // Kubernetes names have at most 253 bytes; of a longer one the reader makes nothing.
    bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    bytes.extend(text.as_bytes());
}

/// Adds an address after its family, 4 or 6.
pub(crate) fn ip(bytes: &mut Vec<u8>, ip: std::net::IpAddr) {
    match ip {
        std::net::IpAddr::V4(ip) => bytes.extend([&[4][..], &ip.octets()].concat()),
        std::net::IpAddr::V6(ip) => bytes.extend([&[6][..], &ip.octets()].concat()),
    }
}

pub(crate) fn read_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let (length, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(*length))?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

pub(crate) fn read_ip(bytes: &mut &[u8]) -> Option<std::net::IpAddr> {
    match read_chunk::<1>(bytes)? {
        [4] => Some(read_chunk::<4>(bytes)?.into()),
        [6] => Some(read_chunk::<16>(bytes)?.into()),
        _ => None,
    }
}

pub(crate) fn read_chunk<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (chunk, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(length: usize) -> Vec<u8> {
        (0..length).map(|byte| (byte % 251) as u8).collect()
    }

    #[test]
    fn a_document_in_parts_is_read_back_in_any_order_and_after_losses() {
        for (length, key) in [(0, None), (1, None), (40_000, Some(Key::new(b"k")))] {
            let encoded = Encoded::new(Kind::Assigned, document(length));
            let (mut assembly, mut got, mut asked) = (Assembly::default(), None, 0);
            while got.is_none() {
                asked += 1;
                assert!(asked < 20, "{length}");
                let mut parts = encoded.parts(usize::from(assembly.asks()) - 1, "a", key.as_ref());
                assert!(parts.iter().all(|part| part.len() <= super::super::MAX_DATAGRAM));
                parts.reverse();
                if asked == 2 {
                    parts.truncate(3);
                }
                got = parts.iter().find_map(|part| assembly.take(&Part::decode(part, key.as_ref()).unwrap()));
            }
            assert_eq!(got, Some(document(length)));
        }
    }

    #[test]
    fn a_part_that_is_not_right_is_refused() {
        let key = Key::new(b"k");
        let parts = Encoded::new(Kind::Standing, document(20)).parts(0, "a", Some(&key));
        for position in 0..parts[0].len() {
            let mut changed = parts[0].clone();
            changed[position] ^= 1;
            assert_eq!(Part::decode(&changed, Some(&key)), Err(MessageError::NotAuthentic), "{position}");
        }
        let plain = Encoded::new(Kind::Standing, document(20)).parts(0, "a", None);
        for position in 0..plain[0].len() {
            let mut changed = plain[0].clone();
            changed[position] ^= 1;
            let taken = Part::decode(&changed, None).ok().and_then(|part| Assembly::default().take(&part));
            // The sender's name is not under the digest; whether it is known is checked elsewhere.
            assert!(taken.is_none() || position == 18, "{position}");
            let _no_panic = Part::decode(&plain[0][..position], None);
        }
    }
}
