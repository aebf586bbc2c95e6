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

/// Lets the calling thread, and every thread and process that it starts from now on, go before all ordinary work, in turn
/// among themselves: for a benchmark of daemons on a machine that has more to do. Tells whether that is allowed.
#[must_use]
pub fn hurry_all() -> bool {
    /// Low: whoever asks and answers for the measurement goes before what is measured.
    const PRIORITY: libc::c_int = 5;
    set(libc::SCHED_RR, PRIORITY).is_ok()
}

fn try_raise() -> io::Result<()> {
    /// In the middle: what the kernel itself must do first stays first.
    const PRIORITY: libc::c_int = 50;
    set(libc::SCHED_FIFO, PRIORITY)
}

fn set(policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: the call reads one structure, which outlives it; 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
