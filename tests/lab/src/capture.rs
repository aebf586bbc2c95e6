//! Packet capture: a thread reads every frame of a device; tests look at them, and a failing test leaves them as pcap.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use socket2::Socket;

use crate::frames;
use crate::namespace::Namespace;
use crate::wait::wait_for;

/// How soon the reading thread sees that it shall end.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest frame that is kept whole.
const LONGEST_FRAME: usize = 65_536;
/// The receive buffer: a burst that the thread does not come to on a busy machine.
const BUFFER: usize = 8 << 20;

/// One frame on the wire.
#[derive(Clone, Debug)]
pub struct Frame {
    /// When the reading thread got it.
    pub time: SystemTime,
    /// From the destination's hardware address on, without the check sequence.
    pub bytes: Vec<u8>,
}

/// The last frames only, each cut, for a capture that runs beside every test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
}

/// A running capture; dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    frames: Mutex<VecDeque<Frame>>,
    ended: AtomicBool,
}

impl Capture {
    /// Starts to read a device. When this returns, no later frame is missed.
    pub(crate) fn start(namespace: &Namespace, device: &str, limit: Option<Limit>) -> Result<Self> {
        let socket = namespace.run(|| frames::open(device, frames::EVERY_PROTOCOL))??;
        socket.set_read_timeout(Some(PAUSE))?;
        // Without the right to more, the kernel's usual size has to do.
        let _usual = socket.set_recv_buffer_size(BUFFER);
        let shared = Arc::new(Shared::default());
        let reader = thread::Builder::new().name(format!("capture-{device}")).spawn({
            let shared = Arc::clone(&shared);
            move || shared.read(&socket, limit)
        })?;
        Ok(Self { shared, reader: Some(reader) })
    }

    /// What has been seen so far, oldest first.
    #[must_use]
    pub fn frames(&self) -> Vec<Frame> {
        self.shared.frames().iter().cloned().collect()
    }

    /// Forgets what has been seen so far.
    pub fn clear(&self) {
        self.shared.frames().clear();
    }

    /// Waits for a frame that satisfies the condition; one that was seen already does as well.
    ///
    /// # Errors
    ///
    /// Where there is none within the deadline.
    pub fn wait_for(&self, deadline: Duration, what: &str, condition: impl Fn(&Frame) -> bool) -> Result<Frame> {
        wait_for(deadline, what, || self.shared.frames().iter().find(|frame| condition(frame)).cloned())
    }

    /// Writes what has been seen so far as a file for `tcpdump -r` or Wireshark.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written.
    pub fn save(&self, file: &Path) -> Result<()> {
        self.shared.save(file)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        if let Some(reader) = self.reader.take() {
            // It has nothing to tell; a panic of it has been printed.
            let _ended = reader.join();
        }
    }
}

impl Shared {
    fn frames(&self) -> MutexGuard<'_, VecDeque<Frame>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, socket: &Socket, limit: Option<Limit>) {
        let mut buffer = vec![MaybeUninit::<u8>::uninit(); LONGEST_FRAME];
        while !self.ended.load(Ordering::Acquire) {
            let Some(bytes) = frames::receive(socket, &mut buffer) else { continue };
            let kept = limit.map_or(bytes.len(), |limit| limit.bytes.min(bytes.len()));
            let bytes = bytes.get(..kept).unwrap_or_default().to_vec();
            let mut frames = self.frames();
            if limit.is_some_and(|limit| frames.len() >= limit.frames) {
                frames.pop_front();
            }
            frames.push_back(Frame { time: SystemTime::now(), bytes });
        }
    }

    fn save(&self, file: &Path) -> Result<()> {
        let written = File::create(file).and_then(|file| {
            let mut file = BufWriter::new(file);
            write_pcap(&mut file, self.frames().iter())?;
            file.flush()
        });
        written.with_context(|| format!("could not write {}", file.display()))
    }
}

/// The captures of a lab, so that a failing test leaves them all.
#[derive(Debug, Default)]
pub(crate) struct Evidence(Mutex<Vec<(String, Arc<Shared>)>>);

impl Evidence {
    pub(crate) fn add(&self, name: String, capture: &Capture) {
        let mut captures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        captures.push((name, Arc::clone(&capture.shared)));
    }

    /// Writes each capture to `<name>.pcap`, numbered where a name was used more than once.
    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        let captures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, (name, capture)) in captures.iter().enumerate() {
            let earlier = captures.iter().take(number).filter(|(other, _)| other == name).count();
            let suffix = if earlier == 0 { String::new() } else { format!("-{}", earlier + 1) };
            capture.save(&folder.join(format!("{name}{suffix}.pcap")))?;
        }
        Ok(())
    }
}

/// The classic format with microseconds, in little endian: <https://www.tcpdump.org/manpages/pcap-savefile.5.txt>.
fn write_pcap<'a>(file: &mut impl Write, frames: impl Iterator<Item = &'a Frame>) -> io::Result<()> {
    const MAGIC: u32 = 0xa1b2_c3d4;
    const ETHERNET: u32 = 1;
    let longest = u32::try_from(LONGEST_FRAME).unwrap_or(u32::MAX);
    for word in [MAGIC, 0x0004_0002, 0, 0, longest, ETHERNET] {
        file.write_all(&word.to_le_bytes())?;
    }
    for frame in frames {
        let time = frame.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        let length = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
        for word in [seconds, time.subsec_micros(), length, length] {
            file.write_all(&word.to_le_bytes())?;
        }
        file.write_all(&frame.bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_is_written_as_pcap_readers_expect() {
        let time = UNIX_EPOCH + Duration::from_micros(5_000_007);
        let mut file = Vec::new();
        write_pcap(&mut file, [Frame { time, bytes: vec![0xaa; 3] }].iter()).unwrap();
        let header = [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0];
        let record = [5, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 0xaa, 0xaa, 0xaa];
        assert_eq!(file, [header.as_slice(), record.as_slice()].concat());
    }
}
