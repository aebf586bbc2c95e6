//! Answers: those of our own, and the one body type of all.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, LOCATION, SERVER},
};
use hyper::body::{Body, Frame, SizeHint};
use roadstead_routes::Redirect;

use crate::{fields::SERVER_NAME, pace::Pace, record::Record, upstream::UpstreamBody};

/// The body of an answer; the request's record is told when it is gone.
pub struct AnswerBody {
    content: Content,
    record: Option<Box<Record>>,
    /// Holds the pieces back, where the answer may only be so fast.
    pace: Option<Box<Pace>>,
    /// Counts the pieces that were taken.
    moved: Option<Arc<AtomicU64>>,
}

impl From<Content> for AnswerBody {
    fn from(content: Content) -> Self {
        Self { content, record: None, pace: None, moved: None }
    }
}

enum Content {
    Own(Option<Bytes>),
    Upstream(Box<UpstreamBody>),
}

/// An answer of our own: the status in words.
#[must_use]
pub fn plain(status: StatusCode) -> Response<AnswerBody> {
    let text = format!("{} {}\n", status.as_str(), status.canonical_reason().unwrap_or("Error"));
    let mut response = Response::new(AnswerBody::from(Content::Own(Some(Bytes::from(text)))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(SERVER, SERVER_NAME);
    response
}

/// An answer with a text of the configuration's own, or the usual one.
#[must_use]
pub fn text(status: StatusCode, text: Option<Vec<u8>>) -> Response<AnswerBody> {
    let Some(text) = text else { return plain(status) };
    plain(status).map(|_| AnswerBody::from(Content::Own(Some(Bytes::from(text)))))
}

/// An answer that sends the client elsewhere.
#[must_use]
pub fn redirect(redirect: &Redirect) -> Response<AnswerBody> {
    let (Ok(status), Ok(location)) = (StatusCode::from_u16(redirect.status), HeaderValue::from_str(&redirect.location))
    else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let mut response = plain(status);
    response.headers_mut().insert(LOCATION, location);
    response
}

/// An endpoint's answer.
#[must_use]
pub fn forwarded(response: Response<UpstreamBody>) -> Response<AnswerBody> {
    response.map(|body| AnswerBody::from(Content::Upstream(Box::new(body))))
}

impl AnswerBody {
    /// Binds the request's record to this body's life.
    #[must_use]
    pub fn recorded(mut self, record: Record) -> Self {
        self.record = Some(Box::new(record));
        self
    }

    /// Counts the pieces of this body in `moved` as the client's connection takes them.
    #[must_use]
    pub fn noted(mut self, moved: Arc<AtomicU64>) -> Self {
        self.moved = Some(moved);
        self
    }

    /// Lets so many bytes a second through, beyond the first `after`; an answer of our own is too short to be held back.
    pub fn slow_down(&mut self, rate: u64, after: u64) {
        if matches!(self.content, Content::Upstream(_)) {
            self.pace = Some(Box::new(Pace::new(rate, after)));
        }
    }

    /// Whether the answer is ours, not an endpoint's.
    #[must_use]
    pub fn is_own(&self) -> bool {
        matches!(self.content, Content::Own(_))
    }

    /// Leaves nothing of the content.
    pub fn empty(&mut self) {
        self.content = Content::Own(None);
    }

    /// The body of an answer that has none, such as 101.
    #[must_use]
    pub fn without_content(mut self) -> Self {
        self.content = Content::Own(None);
        self
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let frame = match (&mut this.content, &mut this.pace) {
            (Content::Own(bytes), _) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            (Content::Upstream(body), None) => ready!(Pin::new(body.as_mut()).poll_frame(cx)),
            (Content::Upstream(body), Some(pace)) => ready!(pace.poll_frame(Pin::new(body.as_mut()), cx)),
        };
        if let Some(moved) = &self.moved {
            moved.fetch_add(1, Ordering::Relaxed);
        }
        if let (Some(record), Some(Ok(frame))) = (&mut self.record, &frame) {
            record.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Own(bytes) => bytes.is_none(),
            Content::Upstream(body) => self.pace.as_ref().is_none_or(|pace| pace.is_empty()) && body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Content::Upstream(body) => self.pace.as_ref().map_or_else(|| body.size_hint(), |pace| pace.size_hint(body)),
        }
    }
}
