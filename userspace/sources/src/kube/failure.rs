//! Why an exchange with the API server failed, and what that means for the next try.

use std::{io, time::Duration};

use serde::Deserialize;

/// One failed exchange.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No answer, or a connection that broke.
    #[error("cannot reach the API server")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing came for this long.
    #[error("the API server was silent for {} s", .0.as_secs())]
    Silent(Duration),
    /// An answer that says no.
    #[error("the API server answered {}", .0)]
    Refused(Refusal),
    /// More bytes than any object has.
    #[error("an answer is larger than {0} bytes")]
    TooLarge(usize),
    /// What came is nothing that the API promises.
    #[error("an answer is not what the API promises")]
    Garbage(#[source] serde_json::Error),
    /// The client cannot be made from its configuration.
    #[error("cannot use the configuration for the API server")]
    Configuration(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A list without a version cannot be followed.
    #[error("an answer lacks metadata.resourceVersion")]
    NoVersion,
}

/// What became of a feed, in a word that a metric's label takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consequence {
    /// Wait until the server can be reached.
    Lost,
    /// Try again soon, from where it stopped.
    Again,
    /// List anew: the server no longer knows the version.
    Relist,
    /// The kind is not served.
    Absent,
    /// Credentials are to be read anew.
    Unknown,
    /// Somebody must act.
    Forbidden,
    /// The server does not do what was asked; it may do less.
    Unsupported,
}

/// A `Status` of the API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{code} {reason}: {message}")]
#[serde(default)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) reason: String,
    pub(crate) message: String,
    details: Option<Details>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    retry_after_seconds: Option<u32>,
}

impl Refusal {
    /// From the body of an answer of this status, which may be of a proxy on the way and no `Status`.
    pub(crate) fn read(code: u16, body: &[u8]) -> Self {
        let status = serde_json::from_slice::<Self>(body).ok().filter(|status| !status.message.is_empty());
        let text = || String::from_utf8_lossy(body.get(..body.len().min(200)).unwrap_or_default()).trim().to_owned();
        let status = status.unwrap_or_else(|| Self { message: text(), ..Self::default() });
        Self { code, ..status }
    }

    /// Whether the server failed at this request by itself.
    pub(crate) fn is_internal(&self) -> bool {
        self.code == 500 && self.reason == "InternalError"
    }

    /// How long the server wants to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        // Whoever asks for more than a minute gets a minute: an outage must not outlast its cause.
        let seconds = self.details.as_ref()?.retry_after_seconds?.min(60);
        Some(Duration::from_secs(seconds.into()))
    }
}

impl Failure {
    pub(crate) fn unreachable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unreachable(error.into())
    }

    /// Nothing was heard of the server. One that fails for one object, by a webhook of somebody's, is there for all others.
    pub(crate) fn is_of_connection(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    pub(crate) fn consequence(&self) -> Consequence {
        match self {
            Self::Unreachable(_) | Self::Silent(_) | Self::Configuration(_) => Consequence::Lost,
            Self::TooLarge(_) | Self::Garbage(_) | Self::NoVersion => Consequence::Again,
            Self::Refused(refusal) => match refusal.code {
                410 => Consequence::Relist,
                404 => Consequence::Absent,
                401 => Consequence::Unknown,
                403 => Consequence::Forbidden,
                429 => Consequence::Again,
                500..=599 if refusal.reason != "Timeout" && refusal.reason != "Expired" => Consequence::Lost,
                _ => Consequence::Unsupported,
            },
        }
    }

    /// For the label of a metric.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Silent(_) => "silent",
            Self::TooLarge(_) => "too_large",
            Self::Garbage(_) | Self::NoVersion => "garbage",
            Self::Configuration(_) => "configuration",
            Self::Refused(refusal) => match refusal.code {
                401 => "unauthorized",
                403 => "forbidden",
                404 => "not_found",
                410 => "expired",
                429 => "too_many_requests",
                500..=599 => "server_error",
                _ => "refused",
            },
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::unreachable(error)
    }
}

/// The error with its causes, for a log line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        // Some errors repeat their cause.
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_means_for_the_next_try() {
        use Consequence::{Absent, Again, Forbidden, Lost, Relist, Unknown, Unsupported};
        let cases = [
            (410, r#"{"reason":"Expired","message":"too old resource version"}"#, Relist),
            (404, "404 page not found", Absent),
            (401, r#"{"reason":"Unauthorized","message":"Unauthorized"}"#, Unknown),
            (403, r#"{"reason":"Forbidden","message":"services is forbidden"}"#, Forbidden),
            (429, r#"{"message":"too many","details":{"retryAfterSeconds":3}}"#, Again),
            (503, "<html>", Lost),
            (500, r#"{"reason":"InternalError","message":"etcdserver: leader changed"}"#, Lost),
            (504, r#"{"reason":"Timeout","message":"Too large resource version: 9, current: 3"}"#, Unsupported),
            (422, r#"{"reason":"Invalid","message":"sendInitialEvents is forbidden for watch"}"#, Unsupported),
        ];
        for (code, body, expected) in cases {
            let refusal = Refusal::read(code, body.as_bytes());
            assert_eq!(refusal.code, code);
            assert_eq!(Failure::Refused(refusal).consequence(), expected, "{code}");
        }
    }

    #[test]
    fn a_server_may_ask_for_patience_within_reason() {
        let asked = |seconds: u64| {
            let body = format!(r#"{{"message":"m","details":{{"retryAfterSeconds":{seconds}}}}}"#);
            Refusal::read(429, body.as_bytes()).retry_after().map(|wait| wait.as_secs())
        };
        assert_eq!((asked(3), asked(100_000)), (Some(3), Some(60)));
        assert_eq!(Refusal::read(429, &vec![b'x'; 1000]).message.len(), 200);
    }
}
