//! What the benchmark's harness and its user side agree on. Nothing of it is shipped.

/// Bytes of a frame that are restored before every run: the headers, IPv6's included.
pub const HEADER: usize = 80;
/// Lookups in one run of the harness's `lookup_row`.
pub const LOOKUPS: u32 = 64;
/// Entries of the harness's own table.
pub const TABLE: u32 = crate::limits::CONNTRACK;
/// The usual [`Round::ports`]: a thousand flows share an address.
pub const PORTS: u32 = 10;
/// The first of their ports.
pub const FIRST_PORT: u16 = 1_024;

/// [`Round::side`].
pub const SOURCE: u32 = 1 << 0;
/// [`Round::side`].
pub const DESTINATION: u32 = 1 << 1;
/// What lies between the two addresses of a flow that has both.
pub const APART: u32 = 1 << 16;

/// The harness's only setting, written before a measurement.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// The frame's headers.
    pub header: [u8; HEADER],
    /// Packets so far; the flow of a packet is this number under [`Round::mask`].
    pub counter: u64,
    /// Number of flows minus one, a power of two minus one.
    pub mask: u32,
    /// Bits of a flow's number that are its port; the others count its address on.
    pub ports: u32,
    /// The IPv4 address of the first flows, as a number.
    pub base: u32,
    /// Whether the address and the port that tell the flows apart are the frame's source ([`SOURCE`]), its destination
    /// ([`DESTINATION`]) or both.
    pub side: u32,
    /// The slot of the program that the packet is handed to.
    pub slot: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Round>() == 112);

impl Round {
    /// Address and port of a flow, as numbers.
    #[inline(always)]
    #[must_use]
    pub const fn flow(&self, number: u64) -> (u32, u16) {
        let flow = (number as u32) & self.mask;
        let ports = self.ports & 15;
        let port = FIRST_PORT.wrapping_add((flow & ((1 << ports) - 1)) as u16);
        (self.base.wrapping_add(flow >> ports), port)
    }
}
