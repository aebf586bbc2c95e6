//! One look at objects that no daemon reads, for the commands that show them.

use std::time::Duration;

use http::Request;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::runtime;

use super::{
    connect::Access,
    failure::{Consequence, Failure},
    feed::encode,
    reach::Reach,
    wire::whole,
};

/// Objects of a page.
const PAGE: usize = 500;
/// Most pages; a server that always has one more is not believed.
const PAGES: usize = 1000;
/// How long a page may take to come in full.
const PATIENCE: Duration = Duration::from_secs(10);

/// What speakers say that they announce; none where the kind is not installed, or whoever asks may not read it.
pub(crate) fn announcements(access: Access) -> Result<Vec<Value>, Failure> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::unreachable)?;
    let listed = runtime.block_on(async {
        list(&Reach::new(access).await?, "/apis/metallb.io/v1beta1/servicel2statuses", "ServiceL2Status").await
    });
    match listed {
        Err(failure) if matches!(failure.consequence(), Consequence::Absent | Consequence::Forbidden) => Ok(Vec::new()),
        listed => listed,
    }
}

/// All objects of a collection, each with its kind, which items of a list do not tell.
async fn list(reach: &Reach, collection: &str, kind: &str) -> Result<Vec<Value>, Failure> {
    let (mut objects, mut token) = (Vec::new(), String::new());
    for _ in 0..PAGES {
        let mut address = format!("{collection}?limit={PAGE}&continue=");
        encode(&token, &mut address);
        let request = Request::get(address).body(Body::empty()).map_err(Failure::unreachable)?;
        let body = whole(reach.exchange(request).await?, PATIENCE).await?;
        let mut page: Value = serde_json::from_slice(&body).map_err(Failure::Garbage)?;
        if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
            objects.extend(items.into_iter().map(|mut item| {
                if let Value::Object(fields) = &mut item {
                    fields.insert("kind".to_owned(), json!(kind));
                }
                item
            }));
        }
        match page.pointer("/metadata/continue").and_then(Value::as_str) {
            Some(next) if !next.is_empty() => next.clone_into(&mut token),
            _ => break,
        }
    }
    Ok(objects)
}
