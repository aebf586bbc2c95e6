//! The access log: one line for each request that is over, by the threads of the proxy, written by a thread of its own.
//!
//! A thread renders its lines into a buffer and hands that on when it is full or a moment old. Whoever reads the log may be
//! slow: then buffers wait, and when too many wait, lines are dropped and counted. No request waits for the log.

mod clock;
mod format;
mod line;
mod writer;

pub use line::LineStyle;
pub use writer::{LogTarget, LogWriter};

use std::{cell::RefCell, time::Duration};

use roadstead_routes::LogOptions;

use super::Record;

/// A buffer that has grown beyond this is handed on at once.
const FULL: usize = 16 * 1024;
/// A line waits no longer than this for others.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

thread_local! {
    static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Where and how lines are written; without one, nothing is.
pub struct AccessLog {
    writer: LogWriter,
    style: LineStyle,
}

impl AccessLog {
    /// Lines in this style go to this writer.
    #[must_use]
    pub fn new(writer: LogWriter, style: LineStyle) -> Self {
        Self { writer, style }
    }

    /// Writes a request that is over, unless its Ingress or the options say otherwise.
    pub(super) fn tell(&self, record: &Record) {
        let generation = record.live.generation.load();
        let options = generation.table.options();
        let logging = record.taken.as_ref().map_or(options.defaults.logging, |taken| taken.route.settings.logging);
        if !logging.access || is_skipped(record, &options.log) {
            return;
        }
        let begun = LINES.with_borrow_mut(|lines| {
            let begun = lines.is_empty();
            line::render(lines, record, self.style, &options.log);
            if lines.len() < FULL {
                return begun;
            }
            self.writer.hand_on(std::mem::take(lines));
            false
        });
        if begun {
            self.flush_soon();
        }
    }

    /// Hands this thread's lines on.
    pub fn flush(&self) {
        let lines = LINES.take();
        if !lines.is_empty() {
            self.writer.hand_on(lines);
        }
    }

    fn flush_soon(&self) {
        let writer = self.writer.clone();
        // Without a runtime (the last requests of a thread that ends) the thread's own flush is near.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(FLUSH_AFTER).await;
                let lines = LINES.take();
                if !lines.is_empty() {
                    writer.hand_on(lines);
                }
            });
        }
    }
}

fn is_skipped(record: &Record, options: &LogOptions) -> bool {
    !options.skip.is_empty() && options.skip.contains(record.target())
}
