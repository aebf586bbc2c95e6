//! Takes part in the election of a leader by a Lease of the API server, and gives it back at the end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Method, Request, header};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::client::Body;
use tokio::sync::{oneshot, watch};

use super::{
    failure::{Failure, chain},
    lease::{Candidate, DURATION, Record, Step},
    reach::Reach,
    wire::whole,
};

/// How long one request about the Lease may take. A look takes two, and ends when a leader's time does.
const REQUEST: Duration = Duration::from_secs(4);
/// How long giving the Lease back may take.
const RELEASE: Duration = Duration::from_secs(2);

/// Which Lease, and who asks for it.
#[derive(Clone, Debug)]
pub(crate) struct Office {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) identity: String,
}

/// Takes part until the end of `stopped`; whether this process leads goes to `leads`.
pub(crate) async fn campaign(
    office: Office,
    reach: Arc<Reach>,
    leads: Arc<watch::Sender<bool>>,
    mut stopped: oneshot::Receiver<()>,
) {
    let origin = Instant::now();
    let mut candidate = Candidate::new(office.identity.clone());
    let mut told = String::new();
    loop {
        // While the server is away nobody else can take the Lease either; the candidate's own clock runs. A renewal that
        // arrives though its answer does not is found by the next look.
        let left = candidate.left(origin.elapsed()).unwrap_or(2 * REQUEST);
        let looked = tokio::select! {
            looked = tokio::time::timeout(left, look(&office, &reach, &mut candidate, origin)) => looked,
            _ = &mut stopped => return resign(&office, &reach, &leads, candidate.leads(origin.elapsed())).await,
        };
        if let Err(error) = looked.unwrap_or(Err(Failure::Silent(left))) {
            let error = chain(&error);
            if told != error {
                tracing::warn!(lease = %office.name, error, "cannot look after the Lease, tries again");
                told = error;
            }
        } else {
            told.clear();
        }
        tell(&leads, &candidate, origin, &office);
        let pause = tokio::time::sleep(candidate.pause(origin.elapsed(), fastrand::f64()));
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                _ = &mut stopped => {
                    return resign(&office, &reach, &leads, candidate.leads(origin.elapsed())).await;
                }
                // Standing down must not wait for the next look.
                () = tokio::time::sleep(Duration::from_millis(500)) => tell(&leads, &candidate, origin, &office),
            }
        }
    }
}

fn tell(leads: &watch::Sender<bool>, candidate: &Candidate, origin: Instant, office: &Office) {
    let now = candidate.leads(origin.elapsed());
    leads.send_if_modified(|leads| {
        let changed = *leads != now;
        *leads = now;
        if changed && now {
            tracing::info!(lease = %office.name, identity = candidate.identity(), "leads");
        } else if changed {
            tracing::info!(lease = %office.name, identity = candidate.identity(), "leads no more");
        }
        changed
    });
}

/// One look at the Lease, and what follows from it.
async fn look(office: &Office, reach: &Reach, candidate: &mut Candidate, origin: Instant) -> Result<(), Failure> {
    let found = get(office, reach).await?;
    let record = found.as_ref().map(record_of);
    let sent = origin.elapsed();
    let step = candidate.judge(sent, record.as_ref());
    let (method, lease) = match step {
        Step::Wait => return Ok(()),
        Step::Create => (Method::POST, office.lease(Lease::default(), 0)),
        Step::Take { transitions } | Step::Renew { transitions } => {
            let mut found = found.unwrap_or_default();
            if step != (Step::Renew { transitions })
                && let Some(spec) = &mut found.spec
            {
                spec.acquire_time = None;
            }
            (Method::PUT, office.lease(found, transitions))
        }
    };
    match put(office, reach, method, &lease).await {
        Ok(()) => {
            candidate.renewed(sent);
            Ok(())
        }
        // Another was faster: the next look tells who.
        Err(Failure::Refused(refusal)) if refusal.code == 409 => {
            candidate.lost();
            Ok(())
        }
        Err(failure) => Err(failure),
    }
}

/// Leads no more, and gives the Lease back where this process had it.
async fn resign(office: &Office, reach: &Reach, leads: &watch::Sender<bool>, led: bool) {
    leads.send_replace(false);
    if led {
        let _ = tokio::time::timeout(RELEASE, release(office, reach)).await;
    }
}

/// Gives the Lease back, so that the next leader need not wait.
async fn release(office: &Office, reach: &Reach) -> Result<(), Failure> {
    let Some(mut lease) = get(office, reach).await? else { return Ok(()) };
    let spec = lease.spec.get_or_insert_default();
    if spec.holder_identity.as_deref() != Some(&*office.identity) {
        return Ok(());
    }
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(1);
    spec.renew_time = Some(MicroTime(Timestamp::now()));
    put(office, reach, Method::PUT, &lease).await
}

impl Office {
    fn collection(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", self.namespace)
    }

    fn address(&self) -> String {
        format!("{}/{}", self.collection(), self.name)
    }

    /// The Lease with this process as its holder.
    fn lease(&self, mut lease: Lease, transitions: i32) -> Lease {
        let now = MicroTime(Timestamp::now());
        let (name, namespace) = (Some(self.name.clone()), Some(self.namespace.clone()));
        lease.metadata = ObjectMeta { name, namespace, managed_fields: None, ..lease.metadata };
        let before = lease.spec.unwrap_or_default();
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: before.acquire_time.clone().or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..before
        });
        lease
    }
}

fn record_of(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(seconds),
        renewed: spec.renew_time.map(|time| time.0.to_string()).unwrap_or_default(),
        transitions: spec.lease_transitions.unwrap_or(0),
    }
}

async fn get(office: &Office, reach: &Reach) -> Result<Option<Lease>, Failure> {
    let request = Request::get(office.address()).body(Body::empty()).map_err(Failure::unreachable)?;
    let exchange = async { whole(reach.exchange(request).await?, REQUEST).await };
    match tokio::time::timeout(REQUEST, exchange).await.map_err(|_| Failure::Silent(REQUEST))? {
        Ok(body) => serde_json::from_slice(&body).map(Some).map_err(Failure::Garbage),
        Err(Failure::Refused(refusal)) if refusal.code == 404 => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn put(office: &Office, reach: &Reach, method: Method, lease: &Lease) -> Result<(), Failure> {
    let address = if method == Method::POST { office.collection() } else { office.address() };
    let body = serde_json::to_vec(lease).map_err(Failure::Garbage)?;
    let request = Request::builder().method(method).uri(address).header(header::CONTENT_TYPE, "application/json");
    let request = request.body(Body::from(body)).map_err(Failure::unreachable)?;
    let exchange = async { whole(reach.exchange(request).await?, REQUEST).await };
    tokio::time::timeout(REQUEST, exchange).await.map_err(|_| Failure::Silent(REQUEST))?.map(drop)
}
