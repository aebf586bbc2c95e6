//! Reading many elements of a per-CPU array by one system call (BPF_MAP_LOOKUP_BATCH on per-CPU arrays: kernel 5.13),
//! which aya 0.14 does not offer. Its one unsafe call stands here, beside those of [`crate::syscall`].

#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for this command")]

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
/// Elements a call: enough that calls do not count, few enough that their values stay in the cache.
const ELEMENTS: u32 = 512;

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

/// Calls `each` with the bytes of the values from index 0 on, `end` of them or as many as the array has. `size` is that
/// of a value on all CPUs, as the kernel copies it: each part rounded up to eight bytes.
///
/// # Errors
/// When the kernel refuses, as one before 5.13 does.
pub(crate) fn read(map: BorrowedFd<'_>, end: u32, size: usize, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let elements = ELEMENTS.min(end);
    let mut keys = vec![0_u32; elements as usize];
    let mut values = vec![0_u8; elements as usize * size];
    let (mut read, mut last) = (0_u32, 0_u32);
    while read < end {
        let mut attr = Batch {
            in_batch: if read == 0 { 0 } else { std::ptr::from_ref(&last) as u64 },
            out_batch: std::ptr::from_mut(&mut last) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: elements.min(end - read),
            map_fd: u32::try_from(map.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?,
            ..Batch::default()
        };
        let is_end = lookup(&mut attr)?;
        values.chunks_exact(size).take(attr.count as usize).for_each(&mut each);
        read = read.saturating_add(attr.count);
        if is_end || attr.count == 0 {
            break;
        }
    }
    Ok(())
}

/// Whether the array ends with this batch.
fn lookup(attr: &mut Batch) -> io::Result<bool> {
    // SAFETY: the structure is live and laid out as the command's part of `union bpf_attr`; what it points to is live, and
    // as long as the count says: `read` sees to that, given the size that the kernel copies.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, std::ptr::from_mut(attr), size_of::<Batch>()) };
    if result == 0 {
        return Ok(false);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENOENT) { Ok(true) } else { Err(error) }
}
