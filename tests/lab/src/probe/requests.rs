//! HTTP requests at a steady rate, each on a connection of its own, while something happens to the node that they pass.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::Answer;
use super::answer;
use super::http::{Client, HttpFlags};
use super::load::{self, LoadReport};

/// The flags of `probe requests`.
#[derive(Args, Debug)]
pub struct RequestsFlags {
    #[command(flatten)]
    http: HttpFlags,
    /// Requests a second
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
}

pub(super) fn run(flags: &RequestsFlags) -> Result<LoadReport> {
    let client = Arc::new(Client::new(&flags.http)?);
    let limit = Duration::from_millis(flags.http.repeat.timeout);
    load::pace(flags.rate, move || request(client.clone(), limit))
}

/// Who answered with the status 200; anything else has failed.
async fn request(client: Arc<Client>, limit: Duration) -> Result<String, String> {
    let mut answer = Answer::default();
    client.timed(&mut answer, limit).await.map_err(|error| answer::kind(&error))?;
    if answer.status == Some(200) { Ok(answer.outcome()) } else { Err(format!("{:?}", answer.status)) }
}
