//! Ctrl-C and SIGTERM: the labs of this process are removed before it ends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use crate::identity::LabId;
use crate::leftovers;

/// The labs of this process and their folders.
static LABS: Mutex<BTreeMap<LabId, PathBuf>> = Mutex::new(BTreeMap::new());
static REQUESTED: AtomicBool = AtomicBool::new(false);
/// As shells count: 128 and SIGINT.
static EXIT_CODE: AtomicI32 = AtomicI32::new(130);

/// Whether a signal came, so that everything now fails for want of its namespace, and says nothing about the code.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Acquire)
}

/// The exit code after a signal: 0 where waiting for one is all that is left to do.
pub fn exit_with(code: u8) {
    EXIT_CODE.store(code.into(), Ordering::Release);
}

/// Parks this thread for the rest of the process's life, which a signal ends.
pub fn wait() -> ! {
    loop {
        thread::park();
    }
}

/// From now on a signal removes this lab too.
pub(crate) fn register(id: LabId, folder: PathBuf) {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let started = thread::Builder::new().name("lab-signals".to_owned()).spawn(listen);
        if let Err(error) = started {
            eprintln!("lab: Ctrl-C will leave the lab in place: {error}");
        }
    });
    LABS.lock().unwrap_or_else(PoisonError::into_inner).insert(id, folder);
}

/// The lab is removed by its owner.
pub(crate) fn forget(id: LabId) {
    LABS.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
}

fn listen() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let heard = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} }
            Ok(())
        })
    });
    if let Err(error) = heard {
        eprintln!("lab: Ctrl-C will leave the lab in place: {error}");
        return;
    }
    REQUESTED.store(true, Ordering::Release);
    // Held to the end: no lab is made or dropped any more.
    let labs = LABS.lock().unwrap_or_else(PoisonError::into_inner);
    for (id, folder) in labs.iter() {
        if let Err(error) = leftovers::remove(*id) {
            eprintln!("lab: {id} could not be removed: {error:#}");
        }
        // A folder that stays is untidy, no more.
        let _ignored = std::fs::remove_dir_all(folder);
    }
    process::exit(EXIT_CODE.load(Ordering::Acquire));
}
