//! The thread that writes the access log, and the queue in front of it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use anyhow::Context;
use prometheus::IntCounter;

/// Buffers that may wait; with those being filled, about a megabyte.
const WAITING: usize = 64;

/// `--access-log`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output.
    #[default]
    Stdout,
    /// The end of a file.
    File(PathBuf),
    /// Nowhere.
    Off,
}

/// Takes lines to the thread that writes them. Clones share it; it ends when the last clone is gone and all is written.
#[derive(Clone)]
pub struct LogWriter(Arc<Shared>);

struct Shared {
    queue: Option<SyncSender<Vec<u8>>>,
    lost: IntCounter,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl LogWriter {
    /// Starts writing; none for [`LogTarget::Off`].
    ///
    /// # Errors
    /// The file cannot be opened, or there is no thread.
    pub fn start(target: &LogTarget, lost: IntCounter) -> anyhow::Result<Option<Self>> {
        let output: Box<dyn Write + Send> = match target {
            LogTarget::Off => return Ok(None),
            LogTarget::Stdout => Box::new(io::stdout()),
            LogTarget::File(path) => {
                let file: File = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(path)
                    .with_context(|| format!("cannot open the access log {}", path.display()))?;
                Box::new(file)
            }
        };
        Self::to(output, lost).map(Some)
    }

    /// Starts writing to an output.
    ///
    /// # Errors
    /// There is no thread.
    pub fn to(output: Box<dyn Write + Send>, lost: IntCounter) -> anyhow::Result<Self> {
        let (queue, waiting) = sync_channel(WAITING);
        let thread = thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(waiting, output))
            .context("cannot start a thread")?;
        Ok(Self(Arc::new(Shared { queue: Some(queue), lost, thread: Mutex::new(Some(thread)) })))
    }

    /// Hands whole lines on; they are lost and counted where too many wait.
    pub(super) fn hand_on(&self, lines: Vec<u8>) {
        let Some(queue) = &self.0.queue else { return };
        if let Err(TrySendError::Full(lines) | TrySendError::Disconnected(lines)) = queue.try_send(lines) {
            let count = lines.iter().filter(|byte| **byte == b'\n').count();
            self.0.lost.inc_by(count as u64);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue = None;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The last clone may be dropped by anybody; whoever it is waits for what is queued, which is bounded.
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the access log panicked");
        }
    }
}

/// Writes what comes until nobody can send any more, or the output is gone: then senders count their lines as lost.
#[expect(clippy::needless_pass_by_value, reason = "the thread owns its end of the queue")]
fn write(waiting: Receiver<Vec<u8>>, mut output: Box<dyn Write + Send>) {
    for lines in waiting.iter() {
        if let Err(error) = output.write_all(&lines).and_then(|()| output.flush()) {
            tracing::error!(%error, "the access log cannot be written, and ends");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Tells what it is given, and takes each piece only when it is let.
    struct Slow {
        told: Sender<Vec<u8>>,
        gate: Receiver<()>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.gate.recv().map_err(io::Error::other)?;
            self.told.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_slow_reader_loses_lines_and_holds_nobody_up() {
        let lost = IntCounter::new("lost", "lost").unwrap();
        let ((told, seen), (open, gate)) = (channel(), channel());
        let writer = LogWriter::to(Box::new(Slow { told, gate }), lost.clone()).unwrap();
        for _ in 0..WAITING * 2 {
            writer.hand_on(b"one\ntwo\n".to_vec());
        }
        let kept = WAITING * 2 - usize::try_from(lost.get()).unwrap() / 2;
        assert!(kept == WAITING || kept == WAITING + 1, "{kept} of {}", WAITING * 2);
        for _ in 0..kept {
            open.send(()).unwrap();
        }
        drop(writer);
        assert_eq!(seen.iter().count(), kept, "what was taken is written to the end");
    }

    #[test]
    fn a_file_is_continued() {
        let folder = tempfile::tempdir().unwrap();
        let target = LogTarget::File(folder.path().join("access.log"));
        for line in [b"a\n", b"b\n"] {
            let lost = IntCounter::new("lost", "lost").unwrap();
            LogWriter::start(&target, lost).unwrap().unwrap().hand_on(line.to_vec());
        }
        assert_eq!(std::fs::read(folder.path().join("access.log")).unwrap(), b"a\nb\n");
    }
}
