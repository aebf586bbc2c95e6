//! The packet socket of one interface: hears who asks for addresses and who says to have them, sends answers. One of two
//! files with `unsafe`.
//!
//! It is a tap for all protocols and not a receiver of two, because a tap sees a frame before traffic control does: the
//! agent's programs may reject what is addressed to an announced address, a question about it must be heard first.

#![expect(unsafe_code, reason = "a link-layer socket address and a packet option have no safe constructor")]

use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use socket2::{Domain, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

/// Frames are read up to this length: a question is at most 86 bytes and its options.
const FRAME_LENGTH: usize = 1514;

/// What waits to be read, in bytes as the kernel counts them: some hundred frames. A flood fills no more memory.
const RECEIVE_BUFFER: usize = 192 << 10;

/// Sends and receives frames on one interface.
#[derive(Debug)]
pub(crate) struct PacketSocket(Socket);

impl PacketSocket {
    /// Opens the socket; needs CAP_NET_RAW.
    pub(crate) fn open(interface: u32) -> io::Result<Self> {
        // Protocol 0 hears nothing yet: no frame enters the queue before the filter stands.
        let socket = Socket::new(Domain::PACKET, Type::RAW.cloexec().nonblocking(), None)?;
        socket.attach_filter(&filter())?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        // Without this option (Linux 4.20) every frame sent would be copied for us and then filtered out.
        let _slower_on_old_kernels = ignore_outgoing(&socket);
        socket.bind(&address(interface)?)?;
        Ok(Self(socket))
    }

    /// The next frame, or `None` when there is no more.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8; FRAME_LENGTH]) -> io::Result<Option<&'a [u8]>> {
        match (&self.0).read(buffer) {
            Ok(length) => Ok(buffer.get(..length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a whole frame.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        (&self.0).write(frame).map(|_| ())
    }

    /// How many frames the kernel has dropped since the last call, as they came faster than they were read.
    pub(crate) fn take_dropped(&self) -> io::Result<u32> {
        let mut counts = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = libc::socklen_t::try_from(size_of_val(&counts)).map_err(io::Error::other)?;
        let (option, value) = (libc::PACKET_STATISTICS, (&raw mut counts).cast());
        // SAFETY: `value` points at `length` bytes of a live structure of two integers, which the kernel fills.
        let result = unsafe { libc::getsockopt(self.0.as_raw_fd(), libc::SOL_PACKET, option, value, &raw mut length) };
        if result == 0 { Ok(counts.tp_drops) } else { Err(io::Error::last_os_error()) }
    }

    /// A buffer for [`Self::receive`].
    pub(crate) fn buffer() -> [u8; FRAME_LENGTH] {
        [0; FRAME_LENGTH]
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Passes ARP requests and replies, neighbour solicitations and advertisements that come in for this station or a group
/// and without a VLAN. Those of a VLAN belong to its own device, though here, with the tag taken off, they would look like
/// ours; a tag that has only a priority (VLAN 0, IEEE 802.1Q 9.6) belongs to no VLAN and is ours. What a router has
/// forwarded (a hop limit below 255) is no neighbour's.
fn filter() -> [SockFilter; 25] {
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const AND: u16 = 0x54;
    const RETURN: u16 = 0x06;
    // Offsets from SKF_AD_OFF (linux/filter.h) reach what the kernel knows about the frame.
    const PACKET_TYPE: u32 = 0xffff_f000 + 4;
    const VLAN_TAG: u32 = 0xffff_f000 + 44;
    const VLAN_ID: u32 = 0x0fff;
    const OTHER_HOST: u32 = 3;
    const OUTGOING: u32 = 4;
    let load = |size, offset| SockFilter::new(size, 0, 0, offset);
    let equal = |value, then, otherwise| SockFilter::new(JUMP_IF_EQUAL, then, otherwise, value);
    [
        load(LOAD_WORD, PACKET_TYPE),
        equal(OUTGOING, 22, 0),
        equal(OTHER_HOST, 21, 0),
        // Without a tag the kernel gives 0.
        load(LOAD_WORD, VLAN_TAG),
        SockFilter::new(AND, 0, 0, VLAN_ID),
        equal(0, 0, 18),
        load(LOAD_HALF, 12),
        equal(0x0806, 0, 7),
        // Ethernet, IPv4, the lengths of their addresses, request or reply.
        load(LOAD_WORD, 14),
        equal(0x0001_0800, 0, 14),
        load(LOAD_HALF, 18),
        equal(0x0604, 0, 12),
        load(LOAD_HALF, 20),
        equal(1, 9, 0),
        equal(2, 8, 9),
        equal(0x86dd, 0, 8),
        // Next header and hop limit in one, then type, then code.
        load(LOAD_HALF, 20),
        equal(0x3aff, 0, 6),
        load(LOAD_BYTE, 54),
        equal(135, 1, 0),
        equal(136, 0, 3),
        load(LOAD_BYTE, 55),
        equal(0, 0, 1),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

fn address(interface: u32) -> io::Result<SockAddr> {
    let link = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?,
        sll_protocol: u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?.to_be(),
        sll_ifindex: i32::try_from(interface).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is a socket address of the family that it names; the storage is large enough for all of them,
    // which `view_as` checks.
    let view = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    *view = link;
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
    // SAFETY: the storage was filled with a sockaddr_ll just above, and `length` is its size.
    Ok(unsafe { SockAddr::new(storage, length) })
}

fn ignore_outgoing(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).map_err(io::Error::other)?;
    let value = (&raw const on).cast();
    // SAFETY: `value` points at `length` bytes of a live integer, which the kernel only reads.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, value, length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::os::{fd::OwnedFd, unix::net::UnixDatagram};

    use roadstead_layer2::{announce::frames, responder::Station, wire::Mac};

    use super::*;

    /// A datagram socket filters like a packet socket, needs no privilege, and takes any bytes for a frame.
    fn passes(frame: &[u8]) -> bool {
        let (sender, receiver) = UnixDatagram::pair().unwrap();
        receiver.set_nonblocking(true).unwrap();
        let receiver = Socket::from(OwnedFd::from(receiver));
        receiver.attach_filter(&filter()).unwrap();
        sender.send(frame).unwrap();
        (&receiver).read(&mut PacketSocket::buffer()).is_ok()
    }

    #[test]
    fn only_questions_and_claims_pass_the_filter() {
        let station = Station { mac: Mac([2, 0, 0, 0, 0, 1]), link_local: None };
        let of = |ip: &str| {
            frames(&station, ip.parse().unwrap()).iter().map(roadstead_layer2::wire::Frame::encode).collect()
        };
        let arp: Vec<Vec<u8>> = of("192.0.2.1");
        let advertisement: Vec<Vec<u8>> = of("2001:db8::1");
        let changed = |frame: &[u8], position: usize, value: u8| {
            let mut frame = frame.to_vec();
            frame[position] = value;
            frame
        };
        let solicitation = changed(&advertisement[0], 54, 135);
        let cases = [
            ("request", arp[0].clone(), true),
            ("reply", arp[1].clone(), true),
            ("RARP", changed(&arp[0], 21, 3), false),
            ("other hardware", changed(&arp[0], 15, 6), false),
            ("other network", changed(&arp[0], 16, 9), false),
            ("other lengths", changed(&arp[0], 18, 8), false),
            ("solicitation", solicitation.clone(), true),
            ("advertisement", advertisement[0].clone(), true),
            ("redirect", changed(&solicitation, 54, 137), false),
            ("echo", changed(&solicitation, 54, 128), false),
            ("a code", changed(&solicitation, 55, 1), false),
            ("forwarded", changed(&solicitation, 21, 254), false),
            ("cut before the type", solicitation[..54].to_vec(), false),
            ("UDP", changed(&solicitation, 20, 17), false),
            ("IPv4", changed(&arp[0], 13, 0), false),
            ("tagged", changed(&changed(&arp[0], 12, 0x81), 13, 0), false),
            ("short", arp[0][..13].to_vec(), false),
        ];
        for (name, frame, expected) in cases {
            assert_eq!(passes(&frame), expected, "{name}");
        }
    }
}
