//! Running a loaded program on one packet by BPF_PROG_TEST_RUN (kernel 4.12 and later): for tests and benchmarks.

use aya::programs::{Program, ProgramError, SchedClassifier, TestRun as _, TestRunOptions};

use crate::load::Programs;

/// What a program did to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The verdict, as tc reads it: -1 next program or stack, 2 drop, 7 redirect.
    pub verdict: i32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
}

/// Why a program could not be run.
#[derive(Debug, thiserror::Error)]
pub enum TestRunError {
    /// The object holds no tc program of this name.
    #[error("{0} is no tc program of the object")]
    NoSuchProgram(String),
    /// The kernel refused the run.
    #[error("cannot run the program")]
    Refused(#[source] Box<ProgramError>),
}

impl Programs {
    /// Runs a tc program on an Ethernet frame that seems to have come in on the loopback device of this thread's network
    /// namespace.
    ///
    /// # Errors
    /// See [`TestRunError`].
    pub fn run(&self, name: &str, frame: &[u8]) -> Result<Ran, TestRunError> {
        self.run_on(name, frame, 0)
    }

    /// The same on a frame of another device, by its index; 0 and 1 are the loopback device.
    ///
    /// # Errors
    /// See [`TestRunError`].
    pub fn run_on(&self, name: &str, frame: &[u8], ifindex: u32) -> Result<Ran, TestRunError> {
        let Some(Program::SchedClassifier(program)) = self.program(name) else {
            return Err(TestRunError::NoSuchProgram(name.to_owned()));
        };
        run(program, frame, ifindex)
    }

    /// Instructions that the verifier walked for a program; `None` where the kernel does not tell (before 5.16).
    #[must_use]
    pub fn verified_instructions(&self, name: &str) -> Option<u32> {
        self.program(name)?.info().ok()?.verified_instruction_count()
    }
}

/// Offset of `ifindex` in `struct __sk_buff`, and the part of the structure up to its end.
const IFINDEX: usize = 40;
const CONTEXT: usize = IFINDEX + 4;

fn run(program: &SchedClassifier, frame: &[u8], ifindex: u32) -> Result<Ran, TestRunError> {
    let mut context = [0; CONTEXT];
    context[IFINDEX..].copy_from_slice(&ifindex.to_ne_bytes());
    let ctx_in = (ifindex > 1).then_some(context.as_slice());
    // An ICMP error is longer than the packet it answers.
    let mut packet = vec![0; frame.len() + 128];
    let options =
        TestRunOptions { data_in: Some(frame), data_out: Some(&mut packet), ctx_in, ..TestRunOptions::default() };
    let result = program.test_run(options).map_err(|error| TestRunError::Refused(Box::new(error)))?;
    packet.truncate(usize::try_from(result.data_size_out).unwrap_or(0));
    Ok(Ran { verdict: result.return_value.cast_signed(), packet })
}
