//! The table of assigned addresses as speakers compare it, by a digest in each heartbeat, and hand it on, in parts.
//!
//! The table's bytes are, for each Service in order of names: namespace and name, each after its length in one byte, the
//! number of addresses, and each address after its family (4 or 6). The digest is the beginning of their SHA-256. A part
//! is `"RSST"`, version, digest (8 bytes), index and number of parts (2 bytes each), the sender's name after its length,
//! at most [`PART`] bytes of the table, and the tag of a heartbeat. An old part that somebody sends again does no harm:
//! a table counts only under the digest of the sender's latest heartbeat.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use roadstead_model::ObjectName;
use sha2::{Digest as _, Sha256};

use super::message::{Key, MAX_NAME, MessageError, VERSION, authentic};

/// The addresses of each Service.
pub type Table = BTreeMap<ObjectName, Vec<IpAddr>>;

/// What a part begins with.
pub(super) const MAGIC: [u8; 4] = *b"RSST";
/// Bytes of the table in a part: with the rest it fits every MTU that IPv6 allows.
const PART: usize = 900;
/// A table beyond this, some 20 000 Services, is not handed on.
const MAX_PARTS: usize = 1024;
/// Parts sent for one question.
const PARTS_A_QUESTION: usize = 16;

/// A table's bytes and their digest.
#[derive(Clone, Debug, Default)]
pub(super) struct Encoded {
    bytes: Vec<u8>,
    /// 0 for no table.
    pub(super) digest: u64,
}

impl Encoded {
    pub(super) fn new(table: &Table) -> Self {
        let mut bytes = Vec::new();
        for (name, ips) in table {
            text(&mut bytes, &name.namespace);
            text(&mut bytes, &name.name);
            bytes.push(u8::try_from(ips.len()).unwrap_or(u8::MAX));
            for ip in ips {
                match ip {
                    IpAddr::V4(ip) => bytes.extend([&[4][..], &ip.octets()].concat()),
                    IpAddr::V6(ip) => bytes.extend([&[6][..], &ip.octets()].concat()),
                }
            }
        }
        let digest = digest(&bytes);
        Self { bytes, digest }
    }

    /// The datagrams that answer the question for the part `first` and those behind it.
    pub(super) fn parts(&self, first: usize, name: &str, key: Option<&Key>) -> Vec<Vec<u8>> {
        let total = self.bytes.len().div_ceil(PART).max(1);
        if self.digest == 0 || total > MAX_PARTS {
            return Vec::new();
        }
        let part = |index: usize| {
            let start = index * PART;
            let body = self.bytes.get(start..self.bytes.len().min(start + PART))?;
            let (index, total) = (u16::try_from(index).ok()?, u16::try_from(total).ok()?);
            let digest = self.digest.to_be_bytes();
            let (index, total) = (index.to_be_bytes(), total.to_be_bytes());
            let length = u8::try_from(name.len()).ok()?;
            let head = [&MAGIC[..], &[VERSION], &digest, &index, &total, &[length], name.as_bytes(), body].concat();
            let tag = key.map(|key| key.tag(&head));
            Some([&head[..], tag.as_ref().map_or(&[], |tag| &tag[..])].concat())
        };
        (first..total).take(PARTS_A_QUESTION).filter_map(part).collect()
    }
}

/// One datagram of a table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) digest: u64,
    index: u16,
    total: u16,
    pub(super) name: &'a str,
    body: &'a [u8],
}

impl<'a> Part<'a> {
    pub(super) fn decode(bytes: &'a [u8], key: Option<&Key>) -> Result<Self, MessageError> {
        let signed = match key {
            None => bytes,
            Some(key) => authentic(bytes, key)?,
        };
        let malformed = MessageError::Malformed;
        let rest = signed.strip_prefix(&MAGIC).ok_or(malformed)?;
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
        if name.is_empty() || name.len() > MAX_NAME || index >= total || usize::from(total) > MAX_PARTS {
            return Err(malformed);
        }
        Ok(Self { digest: u64::from_be_bytes(*digest), index, total, name, body })
    }
}

/// A table on its way in.
#[derive(Clone, Debug, Default)]
pub(super) struct Assembly {
    digest: u64,
    parts: BTreeMap<u16, Vec<u8>>,
}

impl Assembly {
    /// The first part that is missing, counted from 1, as a heartbeat asks for it.
    pub(super) fn asks(&self) -> u16 {
        (0..u16::MAX).find(|index| !self.parts.contains_key(index)).unwrap_or(u16::MAX - 1) + 1
    }

    /// Takes a part in; the table once it is whole and has the digest that it should.
    pub(super) fn take(&mut self, part: &Part<'_>) -> Option<Table> {
        if part.digest != self.digest {
            *self = Self { digest: part.digest, parts: BTreeMap::new() };
        }
        self.parts.insert(part.index, part.body.to_vec());
        if self.parts.len() < usize::from(part.total) {
            return None;
        }
        let bytes: Vec<u8> = std::mem::take(&mut self.parts).into_values().flatten().collect();
        (digest(&bytes) == part.digest).then(|| read(&bytes)).flatten()
    }
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    // Kubernetes names have at most 253 bytes; of a longer one the reader makes nothing.
    bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    bytes.extend(text.as_bytes());
}

fn digest(bytes: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(Sha256::digest(bytes));
    u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1)
}

fn read(mut bytes: &[u8]) -> Option<Table> {
    let mut table = Table::new();
    while !bytes.is_empty() {
        let namespace = read_text(&mut bytes)?;
        let name = ObjectName::new(namespace, read_text(&mut bytes)?);
        let (count, rest) = bytes.split_first()?;
        bytes = rest;
        let ips = (0..*count).map(|_| read_ip(&mut bytes)).collect::<Option<Vec<IpAddr>>>()?;
        table.insert(name, ips);
    }
    Some(table)
}

fn read_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let (length, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(usize::from(*length))?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}

fn read_ip(bytes: &mut &[u8]) -> Option<IpAddr> {
    let (family, rest) = bytes.split_first()?;
    let (ip, rest): (IpAddr, _) = match family {
        4 => rest.split_first_chunk::<4>().map(|(octets, rest)| (Ipv4Addr::from(*octets).into(), rest))?,
        6 => rest.split_first_chunk::<16>().map(|(octets, rest)| (Ipv6Addr::from(*octets).into(), rest))?,
        _ => return None,
    };
    *bytes = rest;
    Some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(services: usize) -> Table {
        let ips: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        (0..services).map(|number| (ObjectName::new("default", &format!("web-{number}")), ips.clone())).collect()
    }

    #[test]
    fn a_table_in_parts_is_read_back_in_any_order_and_after_losses() {
        for (services, key) in [(0, None), (1, None), (1000, Some(Key::new(b"k")))] {
            let encoded = Encoded::new(&table(services));
            let (mut assembly, mut got, mut asked) = (Assembly::default(), None, 0);
            while got.is_none() {
                asked += 1;
                assert!(asked < 20, "{services}");
                let mut parts = encoded.parts(usize::from(assembly.asks()) - 1, "a", key.as_ref());
                assert!(parts.iter().all(|part| part.len() <= super::super::MAX_DATAGRAM));
                parts.reverse();
                if asked == 2 {
                    parts.truncate(3);
                }
                got = parts.iter().find_map(|part| assembly.take(&Part::decode(part, key.as_ref()).unwrap()));
            }
            assert_eq!(got, Some(table(services)));
        }
    }

    #[test]
    fn a_part_that_is_not_right_is_refused() {
        let key = Key::new(b"k");
        let parts = Encoded::new(&table(1)).parts(0, "a", Some(&key));
        for position in 0..parts[0].len() {
            let mut changed = parts[0].clone();
            changed[position] ^= 1;
            assert_eq!(Part::decode(&changed, Some(&key)), Err(MessageError::NotAuthentic), "{position}");
        }
        let plain = Encoded::new(&table(1)).parts(0, "a", None);
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
