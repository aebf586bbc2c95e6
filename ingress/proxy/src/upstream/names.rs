//! Services of type ExternalName: their endpoints are what DNS says, asked for again and again.
//!
//! The resolver of the system does the asking (`/etc/resolv.conf`, its search domains, `/etc/hosts`). It tells no time to
//! live, so that answers are renewed at a fixed interval. While DNS fails the addresses that were known last stay in use.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use roadstead_routes::Endpoints;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Needs, Pool};

/// How old an answer may get.
const REFRESH: Duration = Duration::from_secs(10);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many names are asked for at once.
const AT_ONCE: usize = 8;

/// A pool whose endpoints DNS knows.
#[derive(Clone, Debug)]
pub struct Named {
    /// The pool.
    pub pool: Arc<Pool>,
    /// The name.
    pub host: String,
    /// The port of whatever address it has.
    pub port: u16,
    /// What else the pool needs.
    pub needs: Needs,
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pool, &other.pool)
            && (&self.host, self.port, self.needs) == (&other.host, other.port, other.needs)
    }
}

/// Keeps the pools of names filled until their sender is gone.
pub async fn keep_resolved(names: watch::Receiver<Arc<[Named]>>) {
    let lookup = |host: String, port| async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) };
    keep_resolved_by(names, REFRESH, lookup).await;
}

async fn keep_resolved_by<L, A>(mut names: watch::Receiver<Arc<[Named]>>, refresh: Duration, lookup: L)
where
    L: Fn(String, u16) -> A + Clone + Send + 'static,
    A: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
{
    let mut turns = interval(refresh);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = names.changed() => if changed.is_err() { return },
            _ = turns.tick() => {}
        }
        let wanted = Arc::clone(&names.borrow_and_update());
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut lookups = JoinSet::new();
        for named in wanted.iter().cloned() {
            let (places, lookup) = (Arc::clone(&places), lookup.clone());
            lookups.spawn(async move {
                let _place = places.acquire_owned().await;
                let found = timeout(PATIENCE, lookup(named.host.clone(), named.port)).await;
                (named, found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
            });
        }
        // A name that is not wanted any more must not fill a pool that has endpoints of another kind by now.
        while let Some(Ok((named, found))) = lookups.join_next().await {
            if names.has_changed().unwrap_or(true) {
                break;
            }
            fill(&named, found);
        }
    }
}

fn fill(named: &Named, found: io::Result<Vec<SocketAddr>>) {
    match found {
        Ok(found) => {
            let mut ready: Vec<_> = found.into_iter().filter(is_elsewhere).collect();
            ready.sort();
            ready.dedup();
            if ready.is_empty() {
                tracing::warn!(host = %named.host, "an external name has no address of another host");
            }
            named.pool.set(&Endpoints { ready, ..Endpoints::default() }, named.needs);
        }
        Err(error) => tracing::warn!(host = %named.host, %error, "an external name cannot be resolved"),
    }
}

/// The ports of this host are not for whoever may write a Service.
fn is_elsewhere(address: &SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    !ip.is_loopback() && !ip.is_unspecified()
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use roadstead_model::{BackendPort, ObjectName};
    use roadstead_routes::{Backend, Reach};

    use super::*;

    fn named(host: &str) -> Named {
        let service = ObjectName::new("default", host);
        let backend = Backend { service, port: BackendPort::Name("http".to_owned()), reach: Reach::Endpoints };
        let pool = Arc::new(Pool::new(&backend));
        Named { pool, host: host.to_owned(), port: 80, needs: Needs::Nothing }
    }

    #[tokio::test]
    async fn answers_are_renewed_and_the_last_ones_kept() {
        let answers =
            Arc::new(Mutex::new(Some(vec!["192.0.2.1:80", "192.0.2.1:80", "127.0.0.1:80", "[::ffff:127.0.0.1]:80"])));
        let asked = Arc::new(AtomicUsize::new(0));
        let lookup = {
            let (answers, asked) = (Arc::clone(&answers), Arc::clone(&asked));
            move |host: String, port: u16| {
                asked.fetch_add(1, Ordering::SeqCst);
                let answer = answers.lock().unwrap().clone();
                async move {
                    assert_eq!((host.as_str(), port), ("db.example", 80));
                    let answer = answer.ok_or(io::ErrorKind::NotFound)?;
                    Ok(answer.into_iter().map(|text| text.parse().unwrap()).collect())
                }
            }
        };
        let (sender, receiver) = watch::channel(Arc::from([]));
        let task = tokio::spawn(keep_resolved_by(receiver, Duration::from_millis(2), lookup));
        let name = named("db.example");
        sender.send_replace(Arc::from([name.clone()]));
        let ready = || name.pool.census().ready;
        // The answer before the last one has been taken in.
        let rounds = async || {
            let before = asked.load(Ordering::SeqCst);
            while asked.load(Ordering::SeqCst) < before + 3 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        rounds().await;
        assert_eq!(ready(), 1, "twice the same is one, and this host is none");
        *answers.lock().unwrap() = None;
        rounds().await;
        assert_eq!(ready(), 1, "what was known last is kept");
        *answers.lock().unwrap() = Some(vec!["192.0.2.1:80", "192.0.2.2:80", "[2001:db8::1]:80"]);
        rounds().await;
        assert_eq!(ready(), 3);
        sender.send_replace(Arc::from([]));
        *answers.lock().unwrap() = Some(vec!["192.0.2.9:80"]);
        drop(sender);
        task.await.unwrap();
        assert_eq!(ready(), 3, "nobody asks any more");
    }

    #[tokio::test]
    async fn the_system_is_asked() {
        let (sender, receiver) = watch::channel(Arc::from([]));
        let name = named("localhost");
        let before = Endpoints { ready: vec!["192.0.2.1:80".parse().unwrap()], ..Endpoints::default() };
        name.pool.set(&before, Needs::Nothing);
        sender.send_replace(Arc::from([name.clone()]));
        let task = tokio::spawn(keep_resolved(receiver));
        let emptied = async {
            while name.pool.census().ready > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), emptied)
            .await
            .expect("an answer, of which this host's own address is left out");
        drop(sender);
        task.await.unwrap();
    }
}
