//! How long a flow lives without packets, and when a packet opens it anew.
//!
//! Times follow netfilter's defaults where a user would notice (`nf_conntrack_udp_timeout`, `…_stream`), and are
//! longer than the TCP keepalive of two hours for established connections.

use roadstead_abi::{CLOCK_SHIFT, CtEntry, ct_flags, proto};

/// What a unit of the programs' clock is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    /// Timer ticks a second (`CONFIG_HZ`).
    pub hz: u32,
}

impl Clock {
    /// Whole seconds in a number of units.
    #[must_use]
    pub fn seconds(self, units: u32) -> u32 {
        let seconds = (u64::from(units) << CLOCK_SHIFT) / u64::from(self.hz);
        if seconds > u32::MAX as u64 { u32::MAX } else { seconds as u32 }
    }

    /// The fewest units that last so many seconds.
    #[must_use]
    pub fn units(self, seconds: u32) -> u32 {
        let units = (u64::from(seconds) * u64::from(self.hz)).div_ceil(1 << CLOCK_SHIFT);
        if units > u32::MAX as u64 { u32::MAX } else { units as u32 }
    }

    /// Seconds since an entry was stamped, at `now` in units.
    #[must_use]
    pub fn idle(self, last_seen: u32, now: u32) -> u32 {
        self.seconds(now.saturating_sub(last_seen))
    }
}

/// Whether a client that was last seen then keeps its backend; all in units of the programs' clock. It may have been seen
/// after `now`: another CPU has served it since this one read the clock.
#[inline(always)]
#[must_use]
pub fn keeps_backend(last_seen: u32, now: u32, timeout: u32) -> bool {
    let age = now.wrapping_sub(last_seen).cast_signed();
    age < 0 || age.cast_unsigned() <= timeout
}

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
pub fn is_orphan_expired(protocol: u8, half: &CtEntry, now: u32, clock: Clock) -> bool {
    clock.idle(half.last_seen, now) > lifetime(protocol, 0, 0)
}

/// No pair is freed before it has been idle for longer than this.
pub const SHORTEST: u32 = timeout::TCP_RESET;

/// Whether a pair is to be freed at `now`, in units of the clock that wrote `last_seen`.
#[must_use]
pub fn is_expired(protocol: u8, forward: &CtEntry, reply: &CtEntry, now: u32, clock: Clock) -> bool {
    let younger = if forward.last_seen > reply.last_seen { forward.last_seen } else { reply.last_seen };
    clock.idle(younger, now) > lifetime(protocol, forward.flags, reply.flags)
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
    fn a_client_keeps_its_backend_for_the_timeout_and_across_clocks() {
        let wrapped = u32::MAX;
        // Last seen, now, kept with a timeout of 5.
        let cases =
            [(10, 10, true), (10, 15, true), (10, 16, false), (11, 10, true), (wrapped, 4, true), (0, wrapped, true)];
        for (last_seen, now, expected) in cases {
            assert_eq!(keeps_backend(last_seen, now, 5), expected, "{last_seen} {now}");
        }
    }

    const CLOCK: Clock = Clock { hz: 250 };

    #[test]
    fn a_half_without_its_other_half_lives_like_an_unanswered_flow() {
        let reply = CtEntry { flags: ct_flags::REPLY | ct_flags::SEEN, last_seen: 100, ..CtEntry::default() };
        let units = CLOCK.units(timeout::TCP_OPENING);
        assert!(!is_orphan_expired(proto::TCP, &reply, 100 + units, CLOCK));
        assert!(is_orphan_expired(proto::TCP, &reply, 102 + units, CLOCK));
        const { assert!(timeout::UDP_UNREPLIED > SHORTEST && timeout::TCP_OPENING > SHORTEST) };
    }

    #[test]
    fn the_younger_direction_keeps_a_pair_alive() {
        let forward = CtEntry { flags: ct_flags::SEEN, last_seen: 100, ..CtEntry::default() };
        let reply = CtEntry { flags: ct_flags::SEEN, last_seen: 200, ..CtEntry::default() };
        let units = CLOCK.units(timeout::UDP_REPLIED);
        assert!(!is_expired(proto::UDP, &forward, &reply, 200 + units, CLOCK));
        assert!(is_expired(proto::UDP, &forward, &reply, 202 + units, CLOCK));
        assert!(!is_expired(proto::UDP, &forward, &reply, 0, CLOCK), "a clock behind the stamps frees nothing");
    }

    #[test]
    fn units_and_seconds_agree_at_every_tick_rate() {
        for hz in [100, 250, 300, 1_000] {
            let clock = Clock { hz };
            for seconds in [0, 1, 20, 180, 10_800, 86_400] {
                let units = clock.units(seconds);
                assert!(clock.seconds(units) >= seconds, "{hz} {seconds}");
                assert!(units == 0 || clock.seconds(units - 1) < seconds + 3, "{hz} {seconds}");
            }
        }
    }
}
