//! The packet socket of one interface: hears questions for addresses, sends answers. One of two files with `unsafe`.
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

/// Sends and receives frames on one interface.
#[derive(Debug)]
pub(crate) struct PacketSocket(Socket);

impl PacketSocket {
    /// Opens the socket; needs CAP_NET_RAW.
    pub(crate) fn open(interface: u32) -> io::Result<Self> {
        // Protocol 0 hears nothing yet: no frame enters the queue before the filter stands.
        let socket = Socket::new(Domain::PACKET, Type::RAW.cloexec().nonblocking(), None)?;
        socket.attach_filter(&filter())?;
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

/// Passes ARP requests and neighbour solicitations that come in without a VLAN. Those of a VLAN belong to its own device,
/// though here, with the tag taken off, they would look like ours; a tag that has only a priority (VLAN 0, IEEE 802.1Q
/// 9.6) belongs to no VLAN and is ours.
fn filter() -> [SockFilter; 16] {
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
    const OUTGOING: u32 = 4;
    let load = |size, offset| SockFilter::new(size, 0, 0, offset);
    let equal = |value, then, otherwise| SockFilter::new(JUMP_IF_EQUAL, then, otherwise, value);
    [
        load(LOAD_WORD, PACKET_TYPE),
        equal(OUTGOING, 13, 0),
        // Without a tag the kernel gives 0.
        load(LOAD_WORD, VLAN_TAG),
        SockFilter::new(AND, 0, 0, VLAN_ID),
        equal(0, 0, 10),
        load(LOAD_HALF, 12),
        equal(0x0806, 0, 2),
        load(LOAD_HALF, 20),
        equal(1, 5, 6),
        equal(0x86dd, 0, 5),
        load(LOAD_BYTE, 20),
        equal(58, 0, 3),
        load(LOAD_BYTE, 54),
        equal(135, 0, 1),
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
    fn only_questions_pass_the_filter() {
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
            ("reply", arp[1].clone(), false),
            ("solicitation", solicitation.clone(), true),
            ("advertisement", advertisement[0].clone(), false),
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
