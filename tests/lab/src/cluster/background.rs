//! One thread that drives what goes on in a cluster beside the test: connections, kubelets, their pods.

use std::future::Future;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// The thread; dropping it ends all that it drives.
#[derive(Debug)]
pub(super) struct Background {
    handle: Handle,
    ended: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    pub(super) fn start() -> Result<Self> {
        let (told, handle) = channel();
        let (ended, end) = oneshot::channel::<()>();
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime.inspect_err(|error| eprintln!("lab: no runtime: {error}")) else { return };
            // Whoever started the thread waits for it.
            let _sent = told.send(runtime.handle().clone());
            let _end = runtime.block_on(end);
        };
        let thread = thread::Builder::new().name("lab-cluster".to_owned()).spawn(work)?;
        let handle = handle.recv().context("the cluster's thread did not start")?;
        Ok(Self { handle, ended: Some(ended), thread: Some(thread) })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Does the work, on this thread; what it waits for is driven by the other.
    pub(super) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.handle.block_on(work)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.ended.take());
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed.
            let _ended = thread.join();
        }
    }
}
