//! The pods of a node as the API server tells them: one task for each, told of every change of its object.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::sync::watch::{Sender, channel};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::spec::Pod;
use super::{Shared, life};

/// After a failure: a list of one node's pods is cheap, and an outage shall end soon.
const RETRY: Duration = Duration::from_millis(200);

/// The running pods by their UID.
struct Pods {
    shared: Arc<Shared>,
    known: HashMap<String, Sender<Option<Pod>>>,
    tasks: JoinSet<()>,
}

/// Follows the node's pods for ever. Where the API server is away, everything stays as it is.
pub(super) async fn follow(shared: &Arc<Shared>) {
    let mut pods = Pods { shared: Arc::clone(shared), known: HashMap::new(), tasks: JoinSet::new() };
    loop {
        if pods.list_and_watch().await.is_err() {
            sleep(RETRY).await;
        }
    }
}

impl Pods {
    /// A list, and then every change of it, until something is wrong.
    async fn list_and_watch(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", shared.node.name());
        let list = shared.api.get(&path).await?;
        let items = list.get("items").and_then(Value::as_array).context("a list without items")?;
        let listed: Vec<Pod> = items.iter().cloned().map(Pod).collect();
        let gone: Vec<String> =
            self.known.keys().filter(|uid| !listed.iter().any(|pod| pod.uid() == **uid)).cloned().collect();
        gone.into_iter().for_each(|uid| self.tell(uid, None));
        listed.into_iter().for_each(|pod| self.tell(pod.uid().to_owned(), Some(pod)));
        let mut version = version(&list)?;
        loop {
            let path = format!("{path}&watch=1&allowWatchBookmarks=true&timeoutSeconds=300&resourceVersion={version}");
            let mut watch = shared.api.watch(&path).await?;
            while let Some(event) = watch.next().await? {
                let object = event.get("object").cloned().unwrap_or_default();
                let kind = event.get("type").and_then(Value::as_str);
                if kind == Some("ERROR") {
                    bail!("the watch ends: {object}");
                }
                version = self::version(&object)?;
                let pod = Pod(object);
                match kind {
                    Some("ADDED" | "MODIFIED") => self.tell(pod.uid().to_owned(), Some(pod)),
                    Some("DELETED") => self.tell(pod.uid().to_owned(), None),
                    _ => {}
                }
            }
        }
    }

    /// Tells the pod's task, and starts one where there is none.
    fn tell(&mut self, uid: String, pod: Option<Pod>) {
        self.known.retain(|_, sender| !sender.is_closed());
        while self.tasks.try_join_next().is_some() {}
        match (self.known.get(&uid), pod) {
            (Some(sender), pod) => drop(sender.send_replace(pod)),
            (None, Some(pod)) => {
                let (sender, receiver) = channel(Some(pod));
                self.tasks.spawn(life::live(Arc::clone(&self.shared), receiver));
                self.known.insert(uid, sender);
            }
            (None, None) => {}
        }
    }
}

fn version(object: &Value) -> Result<String> {
    let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    version.map(str::to_owned).context("an object without a version")
}
