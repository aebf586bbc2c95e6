//! A timer that is asked for another time with each request and hardly ever set anew.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use tokio::time::{Sleep, sleep_until};

/// Rings at a time that may be put off for nothing: it then rings for itself once, and is set anew.
#[derive(Default)]
pub(super) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Ready when that time has come.
    pub(super) fn poll_at(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let at = tokio::time::Instant::from_std(at);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    #[tokio::test]
    async fn it_rings_at_the_time_that_was_asked_for_last() {
        let mut alarm = Alarm::default();
        let (began, millis) = (Instant::now(), Duration::from_millis);
        let mut ring = async |after: u64| {
            poll_fn(|cx| alarm.poll_at(began + millis(after), cx)).await;
            assert!(began.elapsed() >= millis(after), "{after}");
        };
        ring(20).await;
        // Set, then put off, then moved forward.
        poll_fn(|cx| {
            assert!(alarm.poll_at(began + millis(10_000), cx).is_pending());
            assert!(alarm.poll_at(began + millis(60_000), cx).is_pending());
            Poll::Ready(())
        })
        .await;
        poll_fn(|cx| alarm.poll_at(began + millis(60), cx)).await;
        assert!(began.elapsed() >= millis(60) && began.elapsed() < millis(10_000));
        poll_fn(|cx| alarm.poll_at(began + millis(90), cx)).await;
        assert!(began.elapsed() >= millis(90));
    }
}
