//! The user side of the benchmark's harness (`ebpf/programs/src/harness`): the loaded programs behind a program that
//! restores the packet before each run, by BPF_PROG_TEST_RUN with a repeat count.
//!
//! The daemons do not use it; it stands here because only this crate names aya. The object comes from the caller, so that
//! no daemon carries it.

use aya::{
    Ebpf, EbpfError,
    maps::{Array, HashMap, MapData, MapError, ProgramArray},
    programs::{Program, ProgramError, SchedClassifier, TestRun as _, TestRunOptions},
};
use nix::time::{ClockId, clock_gettime};
use roadstead_abi::{
    Addr, Be16, CtEntry, CtKey,
    harness::{LOOKUPS, Round},
    proto,
};

use crate::load::Programs;

/// The slot of the program that does nothing.
pub const NULL: u32 = 0;
/// The slot of the yardstick: one lookup.
pub const LOOKUP_ONCE: u32 = 1;
/// The slot of the other yardstick; a run of it is [`LOOKUPS`] lookups.
pub const LOOKUP_ROW: u32 = 2;
/// The slot of the first program under test.
pub const FIRST: u32 = 3;

/// What the harness itself returns where it could not do its part.
const FAILED: u32 = 99;
/// Where the device's number stands in `struct __sk_buff` (include/uapi/linux/bpf.h), which kernel 5.12 takes from the
/// caller.
const IFINDEX_AT: usize = 40;

/// The loaded harness.
pub struct Harness {
    ebpf: Ebpf,
    round: Array<MapData, Round>,
    table: HashMap<MapData, CtKey, CtEntry>,
    /// Only held: without it the kernel empties its slots.
    _slots: ProgramArray<MapData>,
}

/// What a measurement costs and did.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Nanoseconds of this thread's time a packet, the harness's own cost included.
    pub nanoseconds: f64,
    /// The verdict on the last packet.
    pub verdict: i32,
    /// The last packet afterwards.
    pub packet: Vec<u8>,
}

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// The object was refused.
    #[error("cannot load the harness")]
    Load(#[source] Box<EbpfError>),
    /// A program was refused or could not be run.
    #[error("cannot use program {name}")]
    Program {
        /// Its name.
        name: String,
        /// What the kernel says.
        source: Box<ProgramError>,
    },
    /// An object lacks a program or a map.
    #[error("there is no {0}")]
    Missing(String),
    /// A map operation failed.
    #[error("cannot use a map of the harness")]
    Map(#[source] Box<MapError>),
    /// The harness ran but could not hand the packet on.
    #[error("slot {0} is empty, or the frame is shorter than what is restored")]
    Slot(u32),
    /// The thread's clock cannot be read.
    #[error("this thread has no clock")]
    Clock(#[source] nix::Error),
}

impl From<MapError> for HarnessError {
    fn from(error: MapError) -> Self {
        Self::Map(Box::new(error))
    }
}

impl Harness {
    /// Loads the harness and puts the named programs into its slots, from [`FIRST`] on.
    ///
    /// # Errors
    /// See [`HarnessError`].
    pub fn load(object: &[u8], programs: &Programs, names: &[&str]) -> Result<Self, HarnessError> {
        let mut ebpf = Ebpf::load(object).map_err(|error| HarnessError::Load(Box::new(error)))?;
        for (name, program) in ebpf.programs_mut() {
            classifier(name, program)?.load().map_err(|error| refused(name, error))?;
        }
        let map =
            |ebpf: &mut Ebpf, name: &str| ebpf.take_map(name).ok_or_else(|| HarnessError::Missing(name.to_owned()));
        let round = Array::try_from(map(&mut ebpf, "ROUND")?)?;
        let table = HashMap::try_from(map(&mut ebpf, "TABLE")?)?;
        let mut slots = ProgramArray::try_from(map(&mut ebpf, "PROGRAMS")?)?;
        for (slot, name) in [(NULL, "null"), (LOOKUP_ONCE, "lookup_once"), (LOOKUP_ROW, "lookup_row")] {
            fill_slot(&mut slots, slot, name, ebpf.program(name))?;
        }
        for (slot, name) in (FIRST..).zip(names) {
            fill_slot(&mut slots, slot, name, programs.program(name))?;
        }
        Ok(Self { ebpf, round, table, _slots: slots })
    }

    /// Fills the yardstick's table with the keys of the round's flows.
    ///
    /// # Errors
    /// When the table does not take them.
    pub fn fill_table(&mut self, round: &Round) -> Result<(), HarnessError> {
        for flow in 0..=u64::from(round.mask) {
            let (address, port) = round.flow(flow);
            let key = CtKey {
                src: Addr::v4(address.to_be_bytes()),
                dst: Addr::v4([198, 51, 100, 10]),
                sport: Be16::new(port),
                dport: Be16::new(80),
                proto: proto::TCP,
                reserved: [0; 3],
            };
            self.table.insert(key, CtEntry::default(), 0)?;
        }
        Ok(())
    }

    /// Runs the slot of a round on so many packets of its flows; `round` counts them.
    ///
    /// # Errors
    /// See [`HarnessError`].
    pub fn run(
        &mut self,
        round: &mut Round,
        frame: &[u8],
        ifindex: u32,
        packets: u32,
    ) -> Result<Measured, HarnessError> {
        self.round.set(0, *round, 0)?;
        let program = self.ebpf.program("restore");
        let Some(Program::SchedClassifier(program)) = program else {
            return Err(HarnessError::Missing("restore".to_owned()));
        };
        let mut packet = vec![0; frame.len() + 256];
        let mut context = [0; IFINDEX_AT + 4];
        if let Some(field) = context.get_mut(IFINDEX_AT..) {
            field.copy_from_slice(&ifindex.to_ne_bytes());
        }
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut packet),
            ctx_in: Some(&context),
            repeat: packets,
            ..TestRunOptions::default()
        };
        let started = thread_time()?;
        let result = program.test_run(options).map_err(|error| refused("restore", error))?;
        let took = thread_time()? - started;
        if result.return_value == FAILED {
            return Err(HarnessError::Slot(round.slot));
        }
        round.counter += u64::from(packets);
        packet.truncate(usize::try_from(result.data_size_out).unwrap_or(0));
        let nanoseconds = took.as_secs_f64() * 1e9 / f64::from(packets.max(1));
        Ok(Measured { nanoseconds, verdict: result.return_value.cast_signed(), packet })
    }
}

/// A single lookup's part of what a run of [`LOOKUP_ROW`] takes.
#[must_use]
pub fn per_lookup_of_row(nanoseconds: f64) -> f64 {
    nanoseconds / f64::from(LOOKUPS)
}

fn fill_slot(
    slots: &mut ProgramArray<MapData>,
    slot: u32,
    name: &str,
    program: Option<&Program>,
) -> Result<(), HarnessError> {
    let Some(Program::SchedClassifier(program)) = program else {
        return Err(HarnessError::Missing(name.to_owned()));
    };
    let program = program.fd().map_err(|error| refused(name, error))?;
    Ok(slots.set(slot, program, 0)?)
}

fn classifier<'a>(name: &str, program: &'a mut Program) -> Result<&'a mut SchedClassifier, HarnessError> {
    match program {
        Program::SchedClassifier(program) => Ok(program),
        _ => Err(HarnessError::Missing(name.to_owned())),
    }
}

fn refused(name: &str, error: ProgramError) -> HarnessError {
    HarnessError::Program { name: name.to_owned(), source: Box::new(error) }
}

fn thread_time() -> Result<std::time::Duration, HarnessError> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Into::into).map_err(HarnessError::Clock)
}
