//! Threads that go before all ordinary work: what they time would otherwise be the wait for a processor.

/// Gives the calling thread the first-in-first-out policy, under which it runs whenever it can. Without the right to it
/// the thread stays as it is.
pub(crate) fn raise() {
    /// In the middle: what the kernel itself must do first stays first.
    const PRIORITY: libc::c_int = 50;
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: the call reads one structure, which outlives it; 0 is the calling thread.
    let _refused = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
}
