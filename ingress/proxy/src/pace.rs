//! An answer's content, no faster than so many bytes a second (nginx's limit_rate and limit_rate_after).

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// Holds the pieces of a body back.
pub(crate) struct Pace {
    /// Bytes a second; not zero.
    rate: u64,
    /// Bytes that are not held back.
    after: u64,
    began: Instant,
    sent: u64,
    /// What of a piece may not go yet.
    rest: Bytes,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    pub(crate) fn new(rate: u64, after: u64) -> Self {
        Self { rate: rate.max(1), after, began: Instant::now(), sent: 0, rest: Bytes::new(), pause: None }
    }

    /// Whether nothing is held back that the body has given already.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What is still to come of a body, with what is held back of it.
    pub(crate) fn size_hint(&self, body: &impl Body) -> SizeHint {
        let (held, inner) = (self.rest.len() as u64, body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(held));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(held));
        }
        hint
    }

    /// The next piece, once it may go.
    pub(crate) fn poll_frame<B: Body<Data = Bytes>>(
        &mut self,
        body: Pin<&mut B>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let allowed = ready!(self.poll_allowance(cx));
        if self.rest.is_empty() {
            let data = match ready!(body.poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            };
            self.rest = data;
        }
        let length = usize::try_from(allowed).unwrap_or(usize::MAX).min(self.rest.len());
        let piece = self.rest.split_to(length);
        self.sent += piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    /// The bytes that may go now, when there are any. As in nginx the first second's worth may go at once.
    fn poll_allowance(&mut self, cx: &mut Context<'_>) -> Poll<u64> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match self.allowance() {
                Ok(bytes) => return Poll::Ready(bytes),
                Err(wait) => self.pause = Some(Box::pin(sleep(wait))),
            }
        }
    }

    fn allowance(&self) -> Result<u64, Duration> {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1000);
        let due = self.after.saturating_add(self.rate.saturating_mul(elapsed) / 1000);
        match due.checked_sub(self.sent) {
            Some(bytes) if bytes > 0 => Ok(bytes),
            // Until a tenth of a second's worth may go: smaller pieces would cost more than they smooth.
            _ => Err(Duration::from_millis(100) + Duration::from_secs_f64((self.sent - due) as f64 / self.rate as f64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt, Full};

    use super::*;

    /// The pace of a body whose pieces come at once.
    struct Paced(Full<Bytes>, Pace);

    impl Body for Paced {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let this = &mut *self;
            this.1.poll_frame(Pin::new(&mut this.0), cx)
        }
    }

    #[tokio::test]
    async fn bytes_beyond_the_first_wait_for_their_turn() {
        let content = vec![7; 30_000];
        for (rate, after, at_least) in [(20_000, 0, 400), (1 << 40, 0, 0), (20_000, 30_000, 0), (20_000, 5_000, 200)] {
            let began = Instant::now();
            let mut paced = Paced(Full::from(content.clone()), Pace::new(rate, after));
            assert_eq!(paced.1.size_hint(&paced.0).exact(), Some(30_000));
            let mut all = Vec::new();
            while let Some(Ok(frame)) = paced.frame().await {
                all.extend_from_slice(&frame.into_data().unwrap_or_default());
            }
            assert_eq!(all, content);
            assert!(began.elapsed() >= Duration::from_millis(at_least), "{rate} {after}: {:?}", began.elapsed());
        }
    }
}
