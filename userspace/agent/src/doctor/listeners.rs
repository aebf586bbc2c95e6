//! Sockets that wait on the ports which the daemons and their rivals use, from /proc/net/tcp, udp and those for IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A socket that waits for connections or datagrams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listener {
    pub(super) protocol: Protocol,
    pub(super) at: SocketAddr,
    pub(super) inode: u64,
    /// The program that holds it, where that can be seen.
    pub(super) owner: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

/// The ports that matter, of `roadstead-ingress` and of the speakers' heartbeats (which are those of MetalLB's members).
pub(super) const HTTP: u16 = 80;
pub(super) const HTTPS: u16 = 443;
pub(super) const MEMBERSHIP: u16 = 7946;

/// `TCP_LISTEN` and `TCP_CLOSE`, which is what an unconnected UDP socket shows (include/net/tcp_states.h).
const LISTEN: &str = "0A";
const UNCONNECTED: &str = "07";

/// All of them; `read` gives the text of a table of /proc/net.
pub(super) fn all(read: impl Fn(&str) -> String) -> Vec<Listener> {
    let tables = [("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)];
    let mut found = Vec::new();
    for (name, protocol) in tables {
        let table = read(name);
        found.extend(table.lines().skip(1).filter_map(|line| listener(line, protocol)));
    }
    found
}

/// `  0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345 1 ...`
fn listener(line: &str, protocol: Protocol) -> Option<Listener> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let state = match protocol {
        Protocol::Tcp => LISTEN,
        Protocol::Udp => UNCONNECTED,
    };
    let (local, found, inode) = (*fields.get(1)?, *fields.get(3)?, fields.get(9)?.parse().ok()?);
    let at = address(local)?;
    let watched = match protocol {
        Protocol::Tcp => [HTTP, HTTPS].contains(&at.port()),
        Protocol::Udp => at.port() == MEMBERSHIP,
    };
    (found == state && watched).then_some(Listener { protocol, at, inode, owner: None })
}

/// Addresses are printed as words in the byte order of the host, ports as numbers.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| -> Option<[u8; 4]> {
        Some(u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes())
    };
    let ip: IpAddr = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let octets: Vec<u8> = words.concat();
            Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(ip: [u8; 4]) -> String {
        format!("{:08X}", u32::from_ne_bytes(ip))
    }

    fn line(local: &str, state: &str, inode: u64) -> String {
        format!(
            "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0\n"
        )
    }

    #[test]
    fn sockets_on_the_daemons_ports_are_read() {
        let any = word([0; 4]);
        let node = word([192, 0, 2, 10]);
        let v6 = [[0x20, 1, 0xd, 0xb8], [0; 4], [0; 4], [0, 0, 0, 1]].map(word).concat();
        let tables = [
            ("tcp", [line(&format!("{any}:0050"), "0A", 7), line(&format!("{any}:0050"), "01", 8)].concat()),
            ("tcp6", line(&format!("{v6}:01BB"), "0A", 9)),
            ("udp", [line(&format!("{node}:1F0A"), "07", 10), line(&format!("{node}:0035"), "07", 11)].concat()),
            ("udp6", "garbage\n\n 1: x y z".to_owned()),
        ];
        let read = |name: &str| {
            let table = tables.iter().find(|(table, _)| *table == name).unwrap();
            format!("  sl  local_address rem_address   st ...\n{}", table.1)
        };
        let shown: Vec<_> =
            all(read).iter().map(|found| format!("{:?} {} {}", found.protocol, found.at, found.inode)).collect();
        assert_eq!(shown, ["Tcp 0.0.0.0:80 7", "Tcp [2001:db8::1]:443 9", "Udp 192.0.2.10:7946 10"]);
    }
}
