//! All Services and their slices into the API server, many at a time: one after the other they would take minutes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use roadstead_lab::ControlPlane;
use roadstead_lab::cluster::Refusal;
use serde_json::Value;

use super::objects::{self, SERVICES, SLICES};
use crate::service::progress;
use crate::state::Service;

/// Requests on their way at once.
const AT_ONCE: usize = 24;
/// How often it is told how far it is.
const TOLD: Duration = Duration::from_secs(5);
/// Tries of one object: the registry of node ports turns away who comes at the same moment as another.
const TRIES: usize = 10;

/// Makes all of them; their slices' pods are on this node.
pub(crate) fn fill(control: &ControlPlane, services: &[Service], node: &str) -> Result<()> {
    create(control, "/api/v1/namespaces", &objects::namespace())?;
    each_at_once(services, "Services", |service| create(control, SERVICES, &objects::service(service)))?;
    each_at_once(services, "EndpointSlices", |service| create(control, SLICES, &objects::slice(service, node)))
}

/// Makes an object, or finds that an earlier try has made it.
fn create(control: &ControlPlane, path: &str, object: &Value) -> Result<()> {
    let mut tries = 0;
    loop {
        tries += 1;
        let Err(error) = control.create(path, object) else { return Ok(()) };
        match error.downcast_ref::<Refusal>().map(|refusal| refusal.status) {
            Some(409) if tries > 1 => return Ok(()),
            Some(409 | 429 | 500..) if tries < TRIES => {}
            _ => {
                let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                return Err(error).with_context(|| format!("could not make {name}"));
            }
        }
    }
}

/// Does the work for every item on several threads, and tells how far it is. The first failure ends it.
fn each_at_once<T: Sync>(items: &[T], what: &str, work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let worker = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = work(item) {
                next.store(items.len(), Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    };
    let started = Instant::now();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        let mut told = Instant::now();
        while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(20));
            if told.elapsed() >= TOLD {
                told = Instant::now();
                progress(&format!("{} of {} {what}", next.load(Ordering::Relaxed).min(items.len()), items.len()));
            }
        }
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("making {what} panicked"))?)
    })?;
    progress(&format!("{} {what} in {} s", items.len(), started.elapsed().as_secs()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use anyhow::bail;

    use super::*;

    #[test]
    fn every_item_is_worked_on_once_and_a_failure_is_told() {
        let items: Vec<usize> = (0..1_000).collect();
        let seen = Mutex::new(Vec::new());
        each_at_once(&items, "items", |item| {
            seen.lock().unwrap().push(*item);
            Ok(())
        })
        .unwrap();
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        assert_eq!(seen, items);
        let failed = each_at_once(&items, "items", |item| if *item == 500 { bail!("no") } else { Ok(()) });
        assert_eq!(failed.unwrap_err().to_string(), "no");
    }
}
