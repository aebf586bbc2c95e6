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

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer; the request's record is told when it is gone.
pub struct AnswerBody {
    content: Content,
    record: Option<Box<Record>>,
    /// Holds the pieces back, where the answer may only be so fast.
    pace: Option<Box<Pace>>,
    /// Counts the pieces that were taken, and the answer itself.
    passage: Option<Passage>,
    /// What the content broke by, until the client's connection has taken what came before.
    broken: Option<BoxError>,
}

impl From<Content> for AnswerBody {
    fn from(content: Content) -> Self {
        Self { content, record: None, pace: None, passage: None, broken: None }
    }
}

/// The answers of one connection on their way to its client.
#[derive(Debug, Default)]
pub struct Flow {
    moved: AtomicU64,
    open: AtomicU64,
}

/// One of them; it is on its way until this is dropped.
#[derive(Debug)]
pub struct Passage(Arc<Flow>);

impl Flow {
    /// One more.
    #[must_use]
    pub fn enter(flow: &Arc<Self>) -> Passage {
        flow.open.fetch_add(1, Ordering::Relaxed);
        Passage(Arc::clone(flow))
    }

    /// Pieces of bodies that were handed to the client's connection.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Counts such a piece.
    pub fn note(&self) {
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether none is on its way.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
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
    pub fn recorded(mut self, record: Box<Record>) -> Self {
        self.record = Some(record);
        self
    }

    /// Counts the pieces of this body as the client's connection takes them, and the body until it is gone.
    #[must_use]
    pub fn noted(mut self, passage: Passage) -> Self {
        self.passage = Some(passage);
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
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Some(error) = this.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = match (&mut this.content, &mut this.pace) {
            (Content::Own(bytes), _) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            (Content::Upstream(body), None) => ready!(Pin::new(body.as_mut()).poll_frame(cx)),
            (Content::Upstream(body), Some(pace)) => ready!(pace.poll_frame(Pin::new(body.as_mut()), cx)),
        };
        if let Some(Err(error)) = frame {
            // hyper drops what it has not written when a body breaks, and would not have written what came in one go with the
            // break.
            self.broken = Some(error);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(passage) = &self.passage {
            passage.0.note();
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
