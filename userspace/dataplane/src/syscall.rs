//! The kernel calls that aya 0.14 does not offer: replacing the program of a pinned link and detaching it at once, reading and
//! writing many elements of a map at a time, and the cookie of a network namespace. All unsafe code of the crate stands here.

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

use aya::Pod;

const BPF_OBJ_GET: libc::c_int = 7;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;
/// The kernel's own `ENOTSUPP`, which it answers for a map type that knows no batches.
const ENOTSUPP: i32 = 524;
/// Elements read by one call; a bucket of a hash holds fewer by far.
const READ_AT_ONCE: usize = 4_096;
/// Elements of a per-CPU array read by one call: enough that calls do not count, few enough that their values stay in
/// the cache.
const PERCPU_READ_AT_ONCE: u32 = 512;
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

#[repr(C)]
#[derive(Default)]
struct LinkDetach {
    link_fd: u32,
}

/// The part of `union bpf_attr` for batches.
#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// How a batch ended that was not done.
#[derive(Debug)]
pub(crate) enum BatchError {
    /// The kernel knows no batches for this map; nothing was done.
    Unsupported,
    /// The element after so many was refused.
    Stopped {
        /// Elements done.
        written: usize,
        /// Why the next one was not.
        error: io::Error,
    },
}

impl BatchError {
    fn of(error: io::Error, done: usize) -> Self {
        match error.raw_os_error() {
            Some(libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP) if done == 0 => Self::Unsupported,
            _ => Self::Stopped { written: done, error },
        }
    }
}

/// Writes elements in order, each as a write by itself (kernel 5.6 and later).
pub(crate) fn update_batch<K: Pod, V: Pod>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> Result<(), BatchError> {
    let wanted = u32::try_from(keys.len().min(values.len())).unwrap_or(u32::MAX);
    let mut attr = Batch {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: wanted,
        map_fd: raw(map).map_err(|error| BatchError::of(error, 0))?,
        ..Batch::default()
    };
    // The kernel reads `count` elements of the map's own sizes; aya has compared those with the types.
    let Err(error) = bpf(BPF_MAP_UPDATE_BATCH, &mut attr) else { return Ok(()) };
    // An untouched count is that of a call that was refused before its first element.
    let done = if attr.count == wanted { 0 } else { attr.count as usize };
    Err(BatchError::of(error, done))
}

/// Reads up to `most` elements, of an array those after a key, of a hash all.
pub(crate) fn lookup_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    after: Option<K>,
    most: usize,
) -> Result<Vec<(K, V)>, BatchError> {
    let mut elements = Vec::new();
    let (mut keys, mut values) = (vec![zeroed::<K>(); READ_AT_ONCE], vec![zeroed::<V>(); READ_AT_ONCE]);
    // Where the kernel goes on: the number of a bucket, or a key of an array.
    let mut place = 0_u64;
    let mut attr = Batch { map_fd: raw(map).map_err(|error| BatchError::of(error, 0))?, ..Batch::default() };
    attr.in_batch = after.as_ref().map_or(0, |key| std::ptr::from_ref(key) as u64);
    while elements.len() < most {
        attr.out_batch = std::ptr::from_mut(&mut place) as u64;
        attr.keys = keys.as_mut_ptr() as u64;
        attr.values = values.as_mut_ptr() as u64;
        attr.count = READ_AT_ONCE.min(most - elements.len()) as u32;
        let outcome = bpf(BPF_MAP_LOOKUP_BATCH, &mut attr);
        let is_end = outcome.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ENOENT));
        if let Err(error) = outcome
            && !is_end
        {
            return Err(BatchError::of(error, elements.len()));
        }
        let read = keys.iter().copied().zip(values.iter().copied());
        elements.extend(read.take(attr.count as usize));
        if is_end {
            break;
        }
        attr.in_batch = std::ptr::from_mut(&mut place) as u64;
    }
    Ok(elements)
}

/// Calls `each` with the bytes of a per-CPU array's values from index 0 on, `end` of them or as many as the array has.
/// `size` is that of a value on all CPUs, as the kernel copies it: each part rounded up to eight bytes.
///
/// # Errors
/// When the kernel refuses, as one before 5.13 does.
pub(crate) fn read_percpu_batch(
    map: BorrowedFd<'_>,
    end: u32,
    size: usize,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let elements = PERCPU_READ_AT_ONCE.min(end);
    let mut keys = vec![0_u32; elements as usize];
    let mut values = vec![0_u8; elements as usize * size];
    // Where the kernel goes on: the last index read.
    let (mut done, mut place) = (0_u32, 0_u32);
    let mut attr = Batch { map_fd: raw(map)?, ..Batch::default() };
    while done < end {
        attr.out_batch = std::ptr::from_mut(&mut place) as u64;
        attr.keys = keys.as_mut_ptr() as u64;
        attr.values = values.as_mut_ptr() as u64;
        attr.count = elements.min(end - done);
        let is_end = match bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        values.chunks_exact(size).take(attr.count as usize).for_each(&mut each);
        done = done.saturating_add(attr.count);
        if is_end || attr.count == 0 {
            break;
        }
        attr.in_batch = std::ptr::from_mut(&mut place) as u64;
    }
    Ok(())
}

fn zeroed<T: Pod>() -> T {
    // SAFETY: any bytes are a value of a type that is `Pod`.
    unsafe { std::mem::zeroed() }
}

fn raw(fd: BorrowedFd<'_>) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput.into())
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
    let mut attr = LinkUpdate { link_fd: raw(link)?, new_prog_fd: raw(program)?, ..LinkUpdate::default() };
    bpf(BPF_LINK_UPDATE, &mut attr).map(drop)
}

/// Takes a link's program off its hook before it returns. A link that only loses its last pin goes some time later, by the
/// kernel's work queue.
///
/// # Errors
/// When the kernel refuses, as one before 5.9 does.
pub(crate) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(BPF_LINK_DETACH, &mut LinkDetach { link_fd: raw(link)? }).map(drop)
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: the pointer and the size are those of a live structure laid out as the command's part of `union bpf_attr`, and
    // what it points to is live and as long as it says: the callers, all in this file, see to that.
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
