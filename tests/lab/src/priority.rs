//! Threads that go before all ordinary work: what they time would otherwise be the wait for a processor.

use std::io;
use std::thread;

/// Gives the calling thread the first-in-first-out policy, under which it runs whenever it can. Without the right to it
/// the thread stays as it is.
pub(crate) fn raise() {
    let _refused = try_raise();
}

/// Whether this host lets us have such threads, and so the processes that we start.
#[must_use]
pub fn can_hurry() -> bool {
    thread::spawn(try_raise).join().is_ok_and(|raised| raised.is_ok())
}

fn try_raise() -> io::Result<()> {
    /// In the middle: what the kernel itself must do first stays first.
    const PRIORITY: libc::c_int = 50;
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: the call reads one structure, which outlives it; 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
