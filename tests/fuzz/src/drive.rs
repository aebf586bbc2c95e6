//! The driver: seeds, mutations, a corpus that grows, and the input that broke a promise.

use std::{
    collections::HashSet,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use crate::{mutate::mutate, random::Random, targets::Target};

/// The most inputs that are kept beside the seeds.
const CORPUS: usize = 4_096;

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// Inputs tried.
    pub runs: u64,
    /// How many ways of ending were seen: the targets tell them apart.
    pub ways: usize,
    /// The longest that one input took.
    pub slowest: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} inputs, {} ways of ending, the slowest took {:?}", self.runs, self.ways, self.slowest)
    }
}

/// An input that broke a promise.
#[derive(Debug)]
pub struct Finding {
    /// The bytes, made as short as was possible.
    pub input: Vec<u8>,
    /// What the target said.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\ninput ({} bytes): {}", self.message, self.input.len(), self.input.escape_ascii())
    }
}

/// Tries the seeds, then so many mutations of what is known.
///
/// # Errors
/// The first input that broke a promise.
pub fn drive(target: &Target, runs: u64, seed: u64) -> Result<Report, Finding> {
    let mut random = Random::new(seed);
    let mut corpus = (target.seeds)();
    let mut seen = HashSet::new();
    let mut slowest = Duration::ZERO;
    for input in &corpus {
        seen.insert(run_one(target, input)?);
    }
    for _ in 0..runs {
        let input = corpus.get(random.below(corpus.len())).cloned();
        let other = corpus.get(random.below(corpus.len())).map(Vec::as_slice).unwrap_or_default();
        let mut input = input.unwrap_or_default();
        mutate(&mut input, other, target, &mut random);
        let begin = Instant::now();
        let way = run_one(target, &input)?;
        slowest = slowest.max(begin.elapsed());
        // What ends in a new way leads on to others.
        if seen.insert(way) && corpus.len() < CORPUS {
            corpus.push(input);
        }
    }
    Ok(Report { runs, ways: seen.len(), slowest })
}

/// Tries one input; returns the way in which it ended.
///
/// # Errors
/// It broke a promise; it is made shorter first.
pub fn run_one(target: &Target, input: &[u8]) -> Result<u64, Finding> {
    match attempt(target, input) {
        Ok(way) => Ok(way),
        Err(message) => {
            let input = shorten(target, input.to_vec());
            Err(Finding { input, message })
        }
    }
}

fn attempt(target: &Target, input: &[u8]) -> Result<u64, String> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

/// Cuts pieces out for as long as the input still breaks the promise, ever smaller ones.
fn shorten(target: &Target, mut input: Vec<u8>) -> Vec<u8> {
    let mut size = input.len() / 2;
    while size > 0 {
        let mut start = 0;
        while start < input.len() {
            let mut shorter = input.clone();
            shorter.drain(start..(start + size).min(input.len()));
            if attempt(target, &shorter).is_err() {
                input = shorter;
            } else {
                start += size;
            }
        }
        size /= 2;
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRITTLE: Target = Target {
        name: "brittle",
        what: "",
        seeds: || vec![b"a good input".to_vec()],
        words: &[b"bad"],
        longest: 1_000,
        run: |input| {
            assert!(!input.windows(3).any(|window| window == b"bad"), "it holds what it must not");
            u64::try_from(input.len()).unwrap()
        },
    };

    #[test]
    fn a_broken_promise_is_found_and_shortened() {
        let finding = drive(&BRITTLE, 10_000, 1).expect_err("the word is among the mutations");
        assert_eq!((&*finding.input, &*finding.message), (&b"bad"[..], "it holds what it must not"));
    }

    #[test]
    fn a_seed_names_its_run() {
        let run = |seed| drive(&BRITTLE, 2_000, seed).map(|report| report.ways).map_err(|finding| finding.input);
        assert_eq!(run(3), run(3));
    }
}
