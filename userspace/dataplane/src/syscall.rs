//! The two kernel calls that aya 0.14 does not offer: replacing the program of a pinned cgroup link, and the cookie of
//! a network namespace. All unsafe code of the crate stands here.

#![expect(unsafe_code, reason = "bpf(2) and getsockopt(2) have no safe wrapper for these commands")]

use std::{
    ffi::CString,
    io,
    net::UdpSocket,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_UPDATE: libc::c_int = 29;
/// `SO_NETNS_COOKIE` (kernel 5.14 and later).
const SO_NETNS_COOKIE: libc::c_int = 71;

#[repr(C)]
#[derive(Default)]
struct ObjGet {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Opens a pinned object.
pub(crate) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjGet { path: path.as_ptr() as u64, ..ObjGet::default() };
    let fd = bpf(BPF_OBJ_GET, &mut attr)?;
    // SAFETY: the kernel has just made the descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Replaces the program of a link in one step: packets and calls meet the old one or the new one.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let fd = |fd: BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput);
    let mut attr = LinkUpdate { link_fd: fd(link)?, new_prog_fd: fd(program)?, ..LinkUpdate::default() };
    bpf(BPF_LINK_UPDATE, &mut attr).map(drop)
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: the pointer and the size are those of a live structure laid out as the command's part of `union bpf_attr`.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    libc::c_int::try_from(result).map_err(io::Error::other)
}

/// The cookie of the network namespace that the calling thread is in, as the socket programs see it.
///
/// # Errors
/// When no socket can be made, or the kernel is older than 5.14.
pub fn netns_cookie() -> io::Result<u64> {
    let socket = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::1]:0"))?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: value and length point to live variables of the size that the length says.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}
