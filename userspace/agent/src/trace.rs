//! `roadstead trace [FILTER...]`: new flows and refusals as they happen, from the programs' ring of events.
//!
//! While it runs, the programs tell every new flow and every refusal; they stop by themselves three seconds after it is
//! gone. The filter works here: what it leaves out has been told all the same.

mod filter;
mod line;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use roadstead_abi::Event;
use roadstead_dataplane::{pins::Pins, trace::Tracer};
use roadstead_sources::SourceFlags;
use roadstead_telemetry::Shutdown;
use tokio::time::interval;

use self::{
    filter::Filter,
    line::{Clock, Line},
};
use crate::{
    desired::{self, PortName},
    flags::DEFAULT_BPFFS,
};

/// What `trace` takes.
#[derive(Args, Debug)]
pub(crate) struct TraceFlags {
    /// What to show, all of it together: an address or network, a port, tcp or udp, a reason such as no_endpoints
    #[arg(value_name = "FILTER")]
    filters: Vec<Filter>,
    /// Only refusals
    #[arg(long)]
    drops: bool,
    /// End after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Form of the output
    #[arg(short, long, value_enum)]
    output: Option<Output>,
    /// Where the agent's pins are
    #[arg(long, env = "ROADSTEAD_BPFFS", value_name = "DIR", default_value = DEFAULT_BPFFS)]
    bpffs: PathBuf,
    #[command(flatten)]
    from: SourceFlags,
}

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One JSON object a line
    Json,
}

/// A third of the lease: two of them may be late.
const RENEW: Duration = Duration::from_secs(1);

/// How often the ring is read. It holds ten thousand events, so that two hundred thousand a second are lost by nobody.
const READ: Duration = Duration::from_millis(50);

/// Runs until SIGTERM, SIGINT, or until nobody reads.
pub(crate) async fn run(flags: &TraceFlags) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let pins = Pins::at(&flags.bpffs);
    anyhow::ensure!(pins.maps().exists(), "nothing is pinned in {}: no agent has run here", flags.bpffs.display());
    let printer = Printer { flags, names: desired::names(&flags.from, &pins)?, clock: Clock::now() };
    let mut tracer = Tracer::open(&pins).context("cannot trace")?;
    let (mut renew, mut read, mut printed) = (interval(RENEW), interval(READ), 0);
    loop {
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            _ = renew.tick() => tracer.renew()?,
            _ = read.tick() => match printer.drain(&mut tracer, &mut printed) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => return Err(error).context("cannot print"),
            },
        }
    }
}

struct Printer<'a> {
    flags: &'a TraceFlags,
    names: BTreeMap<u32, PortName>,
    clock: Clock,
}

impl Printer<'_> {
    /// Prints what the ring holds; whether more is wanted.
    fn drain(&self, tracer: &mut Tracer, printed: &mut u64) -> io::Result<bool> {
        let mut out = io::stdout().lock();
        while let Some(event) = tracer.next_event() {
            if self.flags.count.is_some_and(|count| *printed >= count) {
                return Ok(false);
            }
            if self.is_wanted(&event) {
                self.print(&event, &mut out)?;
                *printed += 1;
            }
        }
        out.flush()?;
        Ok(self.flags.count.is_none_or(|count| *printed < count))
    }

    fn is_wanted(&self, event: &Event) -> bool {
        (event.reason != 0 || !self.flags.drops) && self.flags.filters.iter().all(|filter| filter.lets(event))
    }

    fn print(&self, event: &Event, out: &mut impl Write) -> io::Result<()> {
        let line = Line { event, clock: self.clock, name: self.names.get(&event.service) };
        match self.flags.output {
            Some(Output::Json) => writeln!(out, "{}", line.json()),
            None => writeln!(out, "{line}"),
        }
    }
}
