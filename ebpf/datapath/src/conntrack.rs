//! How long a flow lives without packets, and when a packet opens it anew.
//!
//! Times follow netfilter's defaults where a user would notice (`nf_conntrack_udp_timeout`, `…_stream`), and are
//! longer than the TCP keepalive of two hours for established connections.

use roadstead_abi::{CtEntry, ct_flags, proto};

/// Seconds without a packet after which a flow is forgotten.
pub mod timeout {
    /// TCP, handshake not finished: no answer, or none that the client has acknowledged.
    pub const TCP_OPENING: u32 = 20;
    /// TCP, handshake finished.
    pub const TCP_ESTABLISHED: u32 = 8 * 3_600;
    /// TCP, FIN seen both ways.
    pub const TCP_CLOSED: u32 = 30;
    /// TCP, one side has sent its FIN.
    pub const TCP_HALF_CLOSED: u32 = 3_600;
    /// TCP, RST seen.
    pub const TCP_RESET: u32 = 10;
    /// UDP, no answer yet.
    pub const UDP_UNREPLIED: u32 = 30;
    /// UDP, packets seen both ways.
    pub const UDP_REPLIED: u32 = 180;
}

/// Whether a half of a pair whose other half is missing is to be freed: as if nobody had answered, which spares a pair
/// that is being created.
#[must_use]
pub fn is_orphan_expired(protocol: u8, half: &CtEntry, now: u32) -> bool {
    now.saturating_sub(half.last_seen) > lifetime(protocol, 0, 0)
}

/// No pair is freed before it has been idle for longer than this.
pub const SHORTEST: u32 = timeout::TCP_RESET;

/// Whether a pair is to be freed at `now` (seconds of the clock that wrote `last_seen`).
#[must_use]
pub fn is_expired(protocol: u8, forward: &CtEntry, reply: &CtEntry, now: u32) -> bool {
    let idle =
        now.saturating_sub(if forward.last_seen > reply.last_seen { forward.last_seen } else { reply.last_seen });
    idle > lifetime(protocol, forward.flags, reply.flags)
}

/// Seconds that a pair in this state outlives its last packet.
#[must_use]
pub fn lifetime(protocol: u8, forward: u32, reply: u32) -> u32 {
    let replied = reply & ct_flags::SEEN != 0;
    if protocol != proto::TCP {
        return if replied { timeout::UDP_REPLIED } else { timeout::UDP_UNREPLIED };
    }
    let either = forward | reply;
    let both = forward & reply;
    if either & ct_flags::RST != 0 {
        timeout::TCP_RESET
    } else if both & ct_flags::FIN != 0 {
        timeout::TCP_CLOSED
    } else if !replied || forward & ct_flags::ACKED == 0 {
        timeout::TCP_OPENING
    } else if either & ct_flags::FIN != 0 {
        timeout::TCP_HALF_CLOSED
    } else {
        timeout::TCP_ESTABLISHED
    }
}

/// Whether this direction's state allows a SYN to open the same tuple anew: its side has closed.
#[inline(always)]
#[must_use]
pub fn reopens(flags: u32) -> bool {
    flags & (ct_flags::FIN | ct_flags::RST) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_follow_the_state_of_both_directions() {
        use ct_flags::{ACKED, FIN, RST, SEEN};
        let cases = [
            (proto::TCP, SEEN, 0, timeout::TCP_OPENING),
            // A SYN-ACK alone proves nothing: the SYN may have come from a forged address.
            (proto::TCP, SEEN, SEEN, timeout::TCP_OPENING),
            (proto::TCP, SEEN | ACKED, SEEN, timeout::TCP_ESTABLISHED),
            (proto::TCP, SEEN | ACKED | FIN, SEEN, timeout::TCP_HALF_CLOSED),
            (proto::TCP, SEEN | ACKED, SEEN | FIN, timeout::TCP_HALF_CLOSED),
            (proto::TCP, SEEN | ACKED | FIN, SEEN | FIN, timeout::TCP_CLOSED),
            (proto::TCP, SEEN, SEEN | RST, timeout::TCP_RESET),
            (proto::TCP, SEEN | FIN | RST, SEEN | FIN, timeout::TCP_RESET),
            (proto::UDP, SEEN, 0, timeout::UDP_UNREPLIED),
            (proto::UDP, SEEN, SEEN, timeout::UDP_REPLIED),
        ];
        for (protocol, forward, reply, expected) in cases {
            assert_eq!(lifetime(protocol, forward, reply), expected, "{protocol} {forward:#x} {reply:#x}");
        }
    }

    #[test]
    fn a_half_without_its_other_half_lives_like_an_unanswered_flow() {
        let reply = CtEntry { flags: ct_flags::REPLY | ct_flags::SEEN, last_seen: 100, ..CtEntry::default() };
        assert!(!is_orphan_expired(proto::TCP, &reply, 100 + timeout::TCP_OPENING));
        assert!(is_orphan_expired(proto::TCP, &reply, 101 + timeout::TCP_OPENING));
        const { assert!(timeout::UDP_UNREPLIED > SHORTEST && timeout::TCP_OPENING > SHORTEST) };
    }

    #[test]
    fn the_younger_direction_keeps_a_pair_alive() {
        let forward = CtEntry { flags: ct_flags::SEEN, last_seen: 100, ..CtEntry::default() };
        let reply = CtEntry { flags: ct_flags::SEEN, last_seen: 200, ..CtEntry::default() };
        assert!(!is_expired(proto::UDP, &forward, &reply, 200 + timeout::UDP_REPLIED));
        assert!(is_expired(proto::UDP, &forward, &reply, 201 + timeout::UDP_REPLIED));
        assert!(!is_expired(proto::UDP, &forward, &reply, 0), "a clock behind the stamps frees nothing");
    }
}
