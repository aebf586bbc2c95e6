//! Peers on the command line that are believed when they speak of a client: load balancers and proxies in front of this one.
//!
//! By default nobody is. The ConfigMap's `proxy-real-ip-cidr` names more of them (`edge::policy`).

use std::{fmt, net::IpAddr, str::FromStr};

/// One network in CIDR notation, or one address, with the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub IpAddr, pub u8);

/// The text was neither a network nor an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkError;

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected an address or a network such as 192.0.2.0/24")
    }
}

impl std::error::Error for NetworkError {}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, length) = text.trim().split_once('/').map_or((text.trim(), None), |(a, l)| (a, Some(l)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let full = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(full), str::parse).map_err(|_| NetworkError)?;
        if length <= full { Ok(Self(address, length)) } else { Err(NetworkError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_addresses_are_read() {
        for (text, expected) in [
            ("192.0.2.77/24", Some(("192.0.2.77", 24))),
            (" 10.0.0.1 ", Some(("10.0.0.1", 32))),
            ("2001:db8::/32", Some(("2001:db8::", 32))),
            ("::1", Some(("::1", 128))),
            ("", None),
            ("192.0.2.0/33", None),
            ("192.0.2.0/", None),
            ("192.0.2", None),
            ("example.com", None),
        ] {
            let expected = expected.map(|(address, length)| Network(address.parse().unwrap(), length));
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
