//! What is to be written to the API server, last word wins: the daemons put it here and go on, the writer takes it from here.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use roadstead_model::{IngressStatus, ObjectName};
use serde_json::Value;
use tokio::sync::Notify;

use super::posts::EVENTS;
use crate::{object::Kind, status::ServiceStatus};

/// Shared between daemon and writer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    letters: Mutex<Letters>,
    news: Notify,
}

/// All that is to be written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Letters {
    /// The Services that are this speaker's to serve, with what they have.
    pub(crate) services: Arc<BTreeMap<ObjectName, ServiceStatus>>,
    pub(crate) ingresses: Arc<BTreeMap<ObjectName, IngressStatus>>,
    /// Other objects, by the file that they would stand in without a cluster.
    pub(crate) objects: BTreeMap<String, Arc<Vec<Value>>>,
}

impl Letters {
    /// The events, whichever daemon they are of.
    pub(crate) fn events(&self) -> impl Iterator<Item = &Value> {
        EVENTS.iter().filter_map(|file| self.objects.get(*file)).flat_map(|objects| objects.iter())
    }
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Letters> {
        self.0.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn services(&self, services: &BTreeMap<ObjectName, ServiceStatus>) {
        let mut letters = self.lock();
        if *letters.services != *services {
            letters.services = Arc::new(services.clone());
            self.0.news.notify_one();
        }
    }

    pub(crate) fn ingresses(&self, ingresses: &BTreeMap<ObjectName, IngressStatus>) {
        let mut letters = self.lock();
        if *letters.ingresses != *ingresses {
            letters.ingresses = Arc::new(ingresses.clone());
            self.0.news.notify_one();
        }
    }

    pub(crate) fn objects(&self, file: &str, objects: &[Value]) {
        let mut letters = self.lock();
        if letters.objects.get(file).is_none_or(|known| known.as_slice() != objects) {
            letters.objects.insert(file.to_owned(), Arc::new(objects.to_vec()));
            self.0.news.notify_one();
        }
    }

    /// What is to be written now; cheap.
    pub(crate) fn letters(&self) -> Letters {
        self.lock().clone()
    }

    /// Waits until something is another.
    pub(crate) async fn news(&self) {
        self.0.news.notified().await;
    }
}

/// The `metadata.uid` of objects that events are about: `kubectl describe` shows only what names it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Uids(Arc<Mutex<ByName>>);

type ByName = HashMap<(Kind, ObjectName), Box<str>>;

impl Uids {
    fn lock(&self) -> MutexGuard<'_, ByName> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kinds that something is written about.
    pub(crate) fn concern(kind: Kind) -> bool {
        matches!(kind, Kind::Service | Kind::Ingress | Kind::IpAddressPool)
    }

    pub(crate) fn put(&self, kind: Kind, name: ObjectName, uid: &str) {
        self.lock().insert((kind, name), uid.into());
    }

    pub(crate) fn remove(&self, kind: Kind, name: ObjectName) {
        self.lock().remove(&(kind, name));
    }

    /// A list of the kind has come in full: the others are gone.
    pub(crate) fn retain(&self, kind: Kind, is_there: impl Fn(&ObjectName) -> bool) {
        self.lock().retain(|(own, name), _| *own != kind || is_there(name));
    }

    pub(crate) fn of(&self, kind: Kind, name: &ObjectName) -> Option<String> {
        self.lock().get(&(kind, name.clone())).map(ToString::to_string)
    }
}
