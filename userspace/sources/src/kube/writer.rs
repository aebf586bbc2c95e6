//! Sends what is to be written, in the background: nothing that serves waits for it.
//!
//! It goes by level: what is wanted is compared with what is observed, and the difference is sent, so that nothing is lost by an outage
//! and nothing is written twice. Statuses are patched by their subresource alone, without a version: the last word counts, and a
//! conflict inside of the server is tried again. Events have a budget.

use std::{
    collections::HashMap,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::{Method, Request, header};
use kube::client::Body;
use roadstead_model::Snapshot;
use serde_json::Value;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};

use super::{
    announcements::Announcements,
    backoff::{Backoff, Bounds},
    failure::{Consequence, Failure, chain},
    lease::{DURATION, RENEW_DEADLINE},
    outbox::{Letters, Outbox, Uids},
    posts::{Key, Memory, Post, Verb},
    reach::Reach,
    standing::Standing,
    wire::whole,
};

/// So many requests are on their way at once.
const AT_ONCE: usize = 8;
/// So many are sent before what is due is looked at anew,
const AT_A_TIME: usize = 256;
/// and so often before the rest is.
const PASSES: usize = 100;
/// A burst of events may be as large as this,
const EVENTS_BURST: f64 = 50.0;
/// and from then on so many a second are told.
const EVENTS_A_SECOND: f64 = 5.0;
/// What is waited for is looked at this often,
const SOON: Duration = Duration::from_millis(500);
/// and all of it this often.
const LATE: Duration = Duration::from_secs(30);
/// A failure without another is forgotten after this long.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// How long to wait for more of a burst.
const QUIET: Duration = Duration::from_millis(10);
/// A write of the leader is given up after this long: sooner than the next leader writes.
const ABOUT_TO_END: Duration = DURATION.saturating_sub(RENEW_DEADLINE);
/// How long an answer may take to come in full.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is left at the end is sent for this long.
const FINISH: Duration = Duration::from_secs(2);

/// Who writes.
#[derive(Clone, Debug)]
pub(crate) struct Author {
    /// Field manager, such as `roadstead-speaker`.
    pub(crate) name: String,
    /// Where its own objects are.
    pub(crate) namespace: String,
    pub(crate) node: String,
    /// It announces addresses, and tells of that.
    pub(crate) announces: bool,
}

/// What the writer goes by.
pub(crate) struct Writer {
    pub(crate) author: Author,
    pub(crate) reach: Arc<Reach>,
    pub(crate) outbox: Outbox,
    pub(crate) uids: Uids,
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(crate) leads: watch::Receiver<bool>,
    pub(crate) standing: Standing,
}

/// What it remembers.
struct State {
    memory: Memory,
    announcements: Option<Announcements>,
    failing: HashMap<Key, (Backoff, Instant)>,
    told: HashMap<&'static str, String>,
    tokens: f64,
    filled: Instant,
    run: String,
    outages: u64,
    led: bool,
}

impl Writer {
    /// Writes until `stopped`, and then what is left, for twice [`FINISH`] at most.
    pub(crate) async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let announcements =
            self.author.announces.then(|| Announcements::new(&self.author.namespace, &self.author.node));
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut state = State {
            memory: Memory::default(),
            announcements,
            failing: HashMap::new(),
            told: HashMap::new(),
            tokens: EVENTS_BURST,
            filled: Instant::now(),
            run: format!("{:x}", since.as_millis()),
            outages: 0,
            led: false,
        };
        let mut last: Option<Instant> = None;
        loop {
            let is_last = last.is_some();
            let open = tokio::select! {
                outages = self.reach.open() => Some(outages),
                _ = &mut stopped, if !is_last => None,
                () = tokio::time::sleep(FINISH), if is_last => return,
            };
            let Some(outages) = open else {
                last = Some(Instant::now());
                continue;
            };
            let is_waiting = {
                let mut round = pin!(self.round(&mut state, outages));
                tokio::select! {
                    is_waiting = &mut round => is_waiting,
                    () = tokio::time::sleep(FINISH), if is_last => return,
                    _ = &mut stopped, if !is_last => {
                        last = Some(Instant::now());
                        // What is on its way may arrive.
                        let Ok(is_waiting) = tokio::time::timeout(FINISH, round).await else { return };
                        is_waiting
                    }
                }
            };
            if last.is_some_and(|since| !is_waiting || since.elapsed() >= FINISH) {
                return;
            }
            let patience = state.memory.patience(Instant::now()).unwrap_or(LATE);
            let pause = if is_waiting { SOON } else { patience.min(LATE) };
            tokio::select! {
                () = self.outbox.news() => tokio::time::sleep(QUIET).await,
                Ok(()) = self.snapshots.changed() => tokio::time::sleep(QUIET).await,
                Ok(()) = self.leads.changed() => {}
                () = tokio::time::sleep(pause) => {}
                _ = &mut stopped, if !is_last => last = Some(Instant::now()),
            }
        }
    }

    /// Sends what is due; whether something is left that is to be sent later.
    async fn round(&mut self, state: &mut State, outages: u64) -> bool {
        let leads = *self.leads.borrow_and_update();
        if leads && !state.led || outages != state.outages {
            state.memory.forget();
            if let Some(announcements) = &mut state.announcements {
                announcements.forget();
            }
        }
        (state.led, state.outages) = (leads, outages);
        // What has not failed anew for a while is over, or its object is gone.
        state.failing.retain(|_, (_, until)| until.elapsed() < FORGOTTEN);
        self.look(state, leads).await;
        for _ in 0..PASSES {
            let leads = *self.leads.borrow();
            let letters = self.outbox.letters();
            let (posts, is_left) = self.due(state, &letters, leads);
            if posts.is_empty() {
                return is_left;
            }
            let (mut posts, mut tasks) = (posts.into_iter().take(AT_A_TIME), JoinSet::new());
            loop {
                // Who leads no more leaves the rest to the next one.
                while tasks.len() < AT_ONCE
                    && *self.leads.borrow() == leads
                    && let Some(post) = posts.next()
                {
                    let (reach, manager) = (Arc::clone(&self.reach), self.author.name.clone());
                    tasks.spawn(async move {
                        let sent = tokio::time::timeout(ABOUT_TO_END, send_all(&reach, &post, &manager)).await;
                        (post, sent.unwrap_or(Err(Failure::Silent(ABOUT_TO_END))))
                    });
                }
                match tasks.join_next().await {
                    None => break,
                    Some(Ok((post, outcome))) => self.finish(state, &post, outcome, &letters),
                    Some(Err(error)) => tracing::error!(%error, "a write ended in a panic"),
                }
            }
        }
        true
    }

    /// Looks at the objects of this node, if that is due.
    async fn look(&self, state: &mut State, leads: bool) {
        let Some(announcements) = &mut state.announcements else { return };
        let Some(address) = announcements.look(leads, Instant::now()) else { return };
        let list = async {
            let request = Request::get(address).body(Body::empty()).map_err(Failure::unreachable)?;
            let body = whole(self.reach.exchange(request).await?, PATIENCE).await?;
            serde_json::from_slice::<Value>(&body).map_err(Failure::Garbage)
        };
        match list.await {
            Ok(list) => announcements.take(&list, Instant::now()),
            Err(failure) => match failure.consequence() {
                _ if failure.is_of_connection() => self.reach.lost(),
                // The server knows the kind for a moment only; the next look is due at once.
                Consequence::Lost | Consequence::Again => {}
                Consequence::Absent => announcements.absent(Instant::now()),
                _ => {
                    announcements.absent(Instant::now());
                    tell(state, "servicel2statuses", &failure);
                }
            },
        }
    }

    /// What may be sent now, and whether something is to be sent later.
    fn due(&self, state: &mut State, letters: &Letters, leads: bool) -> (Vec<Post>, bool) {
        let (snapshot, now) = (self.snapshots.borrow().clone(), Instant::now());
        let mut posts = Vec::new();
        if leads && snapshot.synced {
            posts.extend(state.memory.of_leader(letters, &snapshot, &self.uids, now));
        }
        posts.extend(state.announcements.iter().flat_map(|all| all.posts(letters, &snapshot, leads)));
        let filled = now.duration_since(state.filled).as_secs_f64() * EVENTS_A_SECOND;
        (state.tokens, state.filled) = ((state.tokens + filled).min(EVENTS_BURST), now);
        // Each speaker tells what it does; the proxies all do the same.
        if self.author.announces || leads {
            posts.extend(state.memory.events(letters, &self.uids, &state.run));
        }
        let all = posts.len();
        let mut budget = state.tokens;
        posts.retain(|post| {
            let rests = state.failing.get(&post.key).is_some_and(|(_, until)| now < *until);
            let free = !rests;
            let is_event = matches!(post.key, Key::Event(..));
            let affordable = !is_event || budget >= 1.0;
            budget -= if free && is_event && affordable { 1.0 } else { 0.0 };
            free && affordable
        });
        let is_left = posts.len() < all;
        (posts, is_left)
    }

    fn finish(&self, state: &mut State, post: &Post, outcome: Result<(), Failure>, letters: &Letters) {
        if matches!(post.key, Key::Event(..)) {
            state.tokens -= 1.0;
        }
        let Err(failure) = outcome else {
            state.failing.remove(&post.key);
            state.told.remove(post.key.resource());
            self.note(state, post, letters);
            return;
        };
        let code = match &failure {
            Failure::Refused(refusal) => refusal.code,
            _ => 0,
        };
        let is_settled = match &post.key {
            // It is gone, which the watch will tell; or it has nothing of the kind.
            Key::Service(_) | Key::Ingress(_) | Key::Pool(_) => code == 404,
            // Nothing can be said in a namespace that is about to end.
            Key::Event(..) if code == 403 => failure.to_string().contains("being terminated"),
            Key::Event(..) => code == 409 || code == 404 && post.verb == Verb::Create,
            Key::Announcement(_) => false,
        };
        if is_settled {
            state.failing.remove(&post.key);
            return self.note(state, post, letters);
        }
        match (&post.key, code) {
            (Key::Event(name, _), 404) => state.memory.event_is_gone(name),
            _ => {
                if matches!(post.key, Key::Announcement(_)) && matches!(code, 404 | 409) {
                    // Somebody changed what there is.
                    state.announcements.iter_mut().for_each(Announcements::forget);
                }
                let (backoff, until) =
                    state.failing.entry(post.key.clone()).or_insert((Backoff::default(), Instant::now()));
                let bounds = match failure.consequence() {
                    Consequence::Lost | Consequence::Again => Bounds::BUSY,
                    _ if code == 409 => Bounds::BUSY,
                    _ => Bounds::REFUSED,
                };
                *until = Instant::now() + backoff.next(bounds, fastrand::f64());
                self.standing.write_failed(post.key.resource(), failure.word());
                if failure.is_of_connection() {
                    self.reach.lost();
                } else if code != 409 && code != 429 {
                    tell(state, post.key.resource(), &failure);
                }
            }
        }
    }

    fn note(&self, state: &mut State, post: &Post, letters: &Letters) {
        self.standing.written(post.key.resource());
        state.memory.note(&post.key, letters, Instant::now());
        if let (Key::Announcement(name), Some(announcements)) = (&post.key, &mut state.announcements) {
            announcements.note(name, letters);
        }
    }
}

/// Logs what must be acted upon, once.
fn tell(state: &mut State, resource: &'static str, failure: &Failure) {
    let error = chain(failure);
    if state.told.get(resource) != Some(&error) {
        let hint = if failure.consequence() == Consequence::Forbidden { "a role must allow it" } else { "tries again" };
        tracing::error!(resource, error, hint, "cannot write to the API server");
        state.told.insert(resource, error);
    }
}

async fn send_all(reach: &Reach, post: &Post, manager: &str) -> Result<(), Failure> {
    let mut next = Some(post);
    while let Some(post) = next {
        send(reach, post, manager).await?;
        next = post.then.as_deref();
    }
    Ok(())
}

async fn send(reach: &Reach, post: &Post, manager: &str) -> Result<(), Failure> {
    let (method, media) = match post.verb {
        Verb::Create => (Method::POST, "application/json"),
        Verb::Merge => (Method::PATCH, "application/merge-patch+json"),
        Verb::Strategic => (Method::PATCH, "application/strategic-merge-patch+json"),
        Verb::Delete => (Method::DELETE, "application/json"),
    };
    let (address, body) = match post.verb {
        Verb::Delete => (post.address.clone(), Body::empty()),
        _ => (format!("{}?fieldManager={manager}", post.address), Body::from(post.body.to_string().into_bytes())),
    };
    let request = Request::builder()
        .method(method)
        .uri(address)
        .header(header::CONTENT_TYPE, media)
        // The answer is the object, which nobody reads here.
        .header(header::ACCEPT, "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json")
        .body(body)
        .map_err(Failure::unreachable)?;
    whole(reach.exchange(request).await?, PATIENCE).await.map(drop)
}
