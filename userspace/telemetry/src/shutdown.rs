//! The one token by which a daemon's tasks learn that it is to end.

use std::{io, sync::Arc};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Triggered once, seen by every clone.
#[derive(Clone, Debug)]
pub struct Shutdown(Arc<watch::Sender<bool>>);

impl Shutdown {
    /// A token that nothing but [`Shutdown::trigger`] triggers.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// A token that SIGTERM and SIGINT trigger; called inside a runtime.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed.
    pub fn on_signals() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let token = Self::new();
        let triggered = token.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => tracing::info!(signal = "SIGTERM", "shutting down"),
                _ = interrupt.recv() => tracing::info!(signal = "SIGINT", "shutting down"),
            }
            triggered.trigger();
        });
        Ok(token)
    }

    /// Tells every clone; calling it again changes nothing.
    pub fn trigger(&self) {
        self.0.send_replace(true);
    }

    /// Whether the token was triggered.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once the token is triggered, at once if it was before.
    pub async fn wait(&self) {
        let mut changes = self.0.subscribe();
        // An error would mean that the sender is gone, but `self` holds it.
        let _ = changes.wait_for(|triggered| *triggered).await;
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn every_clone_sees_the_trigger_before_and_after() {
        let token = Shutdown::new();
        let waiter = token.clone();
        let waiting = tokio::spawn(async move { waiter.wait().await });
        assert!(!token.is_triggered());
        token.trigger();
        tokio::time::timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap();
        tokio::time::timeout(Duration::from_secs(5), token.clone().wait()).await.unwrap();
        assert!(token.is_triggered());
    }
}
