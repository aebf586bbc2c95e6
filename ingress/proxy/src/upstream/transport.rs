//! How requests of one route travel to their endpoints: decided once for each request, before an endpoint is chosen.

use std::time::Duration;

/// nginx's proxy_connect_timeout, as ingress-nginx sets it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// nginx's proxy_read_timeout and proxy_send_timeout: the longest silence, not the longest answer.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// How a request is carried to whichever endpoint takes it.
#[derive(Clone, Debug)]
pub struct Transport {
    /// How long an endpoint has to accept a connection.
    pub connect_timeout: Duration,
    /// How long an endpoint may send nothing while something is due from it.
    pub read_timeout: Duration,
    /// How long an endpoint may take nothing of a request.
    pub send_timeout: Duration,
}

impl Default for Transport {
    fn default() -> Self {
        Self { connect_timeout: CONNECT_TIMEOUT, read_timeout: SILENCE_TIMEOUT, send_timeout: SILENCE_TIMEOUT }
    }
}
