//! What of the events is shown.

use std::{net::IpAddr, str::FromStr};

use ipnet::IpNet;
use roadstead_abi::{DropReason, Event, proto};
use roadstead_dataplane::addresses::from_map;

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// Source, destination or backend lies in the network.
    Network(IpNet),
    /// Source, destination or backend has the port.
    Port(u16),
    /// The protocol.
    Protocol(u8),
    /// Refused for this reason.
    Reason(DropReason),
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let reason = DropReason::ALL.into_iter().find(|reason| reason.as_str() == text);
        if let Some(reason) = reason {
            return Ok(Self::Reason(reason));
        }
        match text.to_ascii_lowercase().as_str() {
            "tcp" => return Ok(Self::Protocol(proto::TCP)),
            "udp" => return Ok(Self::Protocol(proto::UDP)),
            _ => {}
        }
        let network = text.parse().ok().or_else(|| text.parse().ok().map(|ip: IpAddr| IpNet::from(ip)));
        if let Some(network) = network {
            return Ok(Self::Network(network));
        }
        let port = text.strip_prefix(':').unwrap_or(text).parse();
        port.map(Self::Port).map_err(|_| format!("{text:?} is no address, network, port, protocol or reason"))
    }
}

impl Filter {
    /// Whether the event is shown.
    pub(super) fn lets(&self, event: &Event) -> bool {
        let key = &event.key;
        match self {
            Self::Network(network) => {
                [key.src, key.dst, event.backend].iter().any(|addr| network.contains(&from_map(addr)))
            }
            Self::Port(port) => [key.sport, key.dport, event.backend_port].iter().any(|one| one.get() == *port),
            Self::Protocol(protocol) => key.proto == *protocol,
            Self::Reason(reason) => event.reason == *reason as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::line::tests::{forwarded, refused};

    #[test]
    fn a_word_says_what_it_filters_by() {
        // The word, whether the forwarded TCP flow passes it, and whether the refused UDP one does.
        let cases = [
            ("192.0.2.9", true, true),
            ("10.244.0.0/16", true, false),
            ("10.96.0.11", false, true),
            ("2001:db8::1", false, false),
            ("80", true, false),
            (":8080", true, false),
            ("tcp", true, false),
            ("UDP", false, true),
            ("no_endpoints", false, true),
            ("source_range", false, false),
        ];
        for (word, passes, refusal_passes) in cases {
            let filter: Filter = word.parse().unwrap();
            assert_eq!((filter.lets(&forwarded()), filter.lets(&refused())), (passes, refusal_passes), "{word}");
        }
        for wrong in ["x", "70000", "10.0.0.0/33", ""] {
            assert!(wrong.parse::<Filter>().is_err(), "{wrong:?}");
        }
    }
}
