//! Real-time priority for the thread that must not be late, where the operator asks for it: on a node whose processors
//! are all busy an ordinary thread may wait for longer than its peers wait for a heartbeat. The other file with `unsafe`.

#![expect(unsafe_code, reason = "the policy of a thread has no safe interface")]

use std::io;

/// Does the work with the calling thread at this priority (`SCHED_RR`); threads that it starts inherit it and keep it.
///
/// # Errors
/// When the kernel refuses: the right to it is `CAP_SYS_NICE`, or a resource limit.
pub(crate) fn with<T>(priority: Option<u8>, work: impl FnOnce() -> T) -> io::Result<T> {
    let Some(priority) = priority else { return Ok(work()) };
    set(libc::SCHED_RR, priority)?;
    let done = work();
    set(libc::SCHED_OTHER, 0)?;
    Ok(done)
}

fn set(policy: libc::c_int, priority: u8) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority.into() };
    // SAFETY: the call reads one structure, which outlives it; 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policy of the calling thread, from the kernel's word on it (proc(5): field 41 of `stat`).
    fn policy() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let fields = stat.rsplit_once(')').unwrap().1;
        fields.split_whitespace().nth(38).unwrap().parse().unwrap()
    }

    #[test]
    fn a_thread_keeps_the_priority_that_it_was_started_with() {
        assert_eq!(with(None, policy).unwrap(), libc::SCHED_OTHER);
        let started = with(Some(1), || std::thread::spawn(policy));
        match started {
            Ok(thread) => {
                assert_eq!(thread.join().unwrap(), libc::SCHED_RR);
                assert_eq!(policy(), libc::SCHED_OTHER);
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
                eprintln!("skipped: no right to real-time priority: {error}");
            }
        }
        assert!(with(Some(100), || ()).is_err(), "99 is the highest");
    }
}
