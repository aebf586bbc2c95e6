//! The table of assigned addresses as speakers compare it and hand it on.
//!
//! Its bytes are, for each Service in order of names: namespace and name, each after its length in one byte, the number of
//! addresses, and each address after its family (4 or 6).

use std::{collections::BTreeMap, net::IpAddr};

use roadstead_model::ObjectName;

use super::document::{ip, read_ip, read_text, text};

/// The addresses of each Service.
pub type Table = BTreeMap<ObjectName, Vec<IpAddr>>;

pub(super) fn write(table: &Table) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, ips) in table {
        text(&mut bytes, &name.namespace);
        text(&mut bytes, &name.name);
        bytes.push(u8::try_from(ips.len()).unwrap_or(u8::MAX));
        ips.iter().for_each(|address| ip(&mut bytes, *address));
    }
    bytes
}

pub(super) fn read(mut bytes: &[u8]) -> Option<Table> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_back_and_half_of_one_is_not() {
        let ips: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let names = ["a", "b"].map(|name| ObjectName::new("default", name));
        let table: Table = names.into_iter().map(|name| (name, ips.clone())).collect();
        let bytes = write(&table);
        assert_eq!(read(&bytes), Some(table.clone()));
        assert_eq!(read(&[]), Some(Table::new()));
        let whole: Vec<usize> = (1..bytes.len()).filter(|length| read(&bytes[..*length]).is_some()).collect();
        assert_eq!(whole, [bytes.len() / 2], "only between two Services");
    }
}
