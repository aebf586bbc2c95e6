//! Listening to the programs: the ring of events, which they fill while somebody traces.

use std::{fs::File, io, time::Duration};

use aya::maps::{Array, MapData, RingBuf};
use nix::{
    fcntl::{Flock, FlockArg},
    time::{ClockId, clock_gettime},
};
use roadstead_abi::{Addr, Be16, CtKey, Event, Trace, map_names};

use crate::{
    maps::MapError,
    pins::{Pins, open_map},
};

/// How long the programs go on telling after the last [`Tracer::renew`].
pub const LEASE: Duration = Duration::from_secs(3);

/// The one who listens; events cannot be told to two.
pub struct Tracer {
    ring: RingBuf<MapData>,
    trace: Array<MapData, Trace>,
    _lock: Flock<File>,
}

/// Why nobody can listen.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// Another tracer has the ring.
    #[error("another trace is running on these programs")]
    Busy,
    /// The folder of pins.
    #[error("cannot lock the folder of pins")]
    Lock(#[source] io::Error),
    /// A map.
    #[error(transparent)]
    Map(#[from] MapError),
}

impl Tracer {
    /// Opens the ring, and forgets what it holds from before. The programs tell nothing until [`Tracer::renew`].
    ///
    /// # Errors
    /// See [`TraceError`].
    pub fn open(pins: &Pins) -> Result<Self, TraceError> {
        let folder = File::open(pins.maps()).map_err(TraceError::Lock)?;
        let lock = Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            nix::errno::Errno::EWOULDBLOCK => TraceError::Busy,
            errno => TraceError::Lock(errno.into()),
        })?;
        let mut ring: RingBuf<MapData> = open_map(pins, map_names::EVENTS)?;
        while ring.next().is_some() {}
        Ok(Self { ring, trace: open_map(pins, map_names::TRACE)?, _lock: lock })
    }

    /// Makes the programs tell for another [`LEASE`].
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn renew(&mut self) -> Result<(), MapError> {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.set(u64::try_from((now + LEASE).as_nanos()).unwrap_or(u64::MAX))
    }

    /// The next event, if there is one.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let event = parse(&self.ring.next()?);
            // What is too short is no event of this version.
            if event.is_some() {
                return event;
            }
        }
    }

    fn set(&mut self, until: u64) -> Result<(), MapError> {
        let failed = |source| MapError { map: map_names::TRACE, operation: "write", source: Box::new(source) };
        self.trace.set(0, Trace { until }, 0).map_err(failed)
    }
}

impl Drop for Tracer {
    /// Failing costs three seconds of events that nobody reads.
    fn drop(&mut self) {
        let _ = self.set(0);
    }
}

fn parse(bytes: &[u8]) -> Option<Event> {
    let mut rest = bytes;
    let time = u64::from_ne_bytes(take(&mut rest)?);
    let key = CtKey {
        src: Addr::v6(take(&mut rest)?),
        dst: Addr::v6(take(&mut rest)?),
        sport: Be16(u16::from_ne_bytes(take(&mut rest)?)),
        dport: Be16(u16::from_ne_bytes(take(&mut rest)?)),
        proto: u8::from_ne_bytes(take(&mut rest)?),
        reserved: take(&mut rest)?,
    };
    Some(Event {
        time,
        key,
        backend: Addr::v6(take(&mut rest)?),
        backend_port: Be16(u16::from_ne_bytes(take(&mut rest)?)),
        hook: u16::from_ne_bytes(take(&mut rest)?),
        reason: u32::from_ne_bytes(take(&mut rest)?),
        service: u32::from_ne_bytes(take(&mut rest)?),
        ifindex: u32::from_ne_bytes(take(&mut rest)?),
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*first)
}
