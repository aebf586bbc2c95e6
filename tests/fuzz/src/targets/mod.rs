//! The targets: for each parser of foreign bytes its seeds, the words of its language, and what must hold.

mod annotations;
mod api;
mod edge;
mod head;
mod manifest;
mod segment;
mod stream;
mod text;

use std::hash::{DefaultHasher, Hash, Hasher as _};

/// One parser and its promises.
#[derive(Clone, Copy)]
pub struct Target {
    /// What the command line calls it.
    pub name: &'static str,
    /// What is parsed.
    pub what: &'static str,
    /// Inputs to begin with, most of them good.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words of the language.
    pub words: &'static [&'static [u8]],
    /// No input grows beyond this, in bytes.
    pub longest: usize,
    /// Parses, and panics where a promise is broken. Returns the way in which it ended, for telling new inputs from known ones.
    pub run: fn(&[u8]) -> u64,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    head::HEAD,
    head::CHUNKED,
    stream::STREAM,
    edge::PROXY,
    edge::HELLO,
    edge::SESSION,
    text::PATH,
    text::TEMPLATE,
    annotations::ANNOTATIONS,
    annotations::REWRITE,
    manifest::MANIFEST,
    manifest::OLD_CONFIG,
    api::WATCH,
    segment::FRAME,
    segment::NEIGHBOUR,
    segment::DATAGRAM,
    segment::DOCUMENT,
];

/// A way of ending, from anything that tells ways apart.
fn way(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

fn owned(seeds: &[&[u8]]) -> Vec<Vec<u8>> {
    seeds.iter().map(|seed| seed.to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive;

    /// The seed of a run of all tests; another one is for long runs by hand.
    const SEED: u64 = 20_261_125;

    fn check(target: &Target, runs: u64) {
        match drive(target, runs, SEED) {
            Ok(report) => {
                println!("{}: {report} (seed {SEED})", target.name);
                assert!(report.ways > 1, "{}: all inputs end alike, so nothing was reached", target.name);
            }
            Err(finding) => panic!("{}: {finding}", target.name),
        }
    }

    #[test]
    fn sessions_keep_their_promises() {
        check(&edge::SESSION, 20_000);
    }

    #[test]
    fn heads_keep_their_promises() {
        check(&head::HEAD, 20_000);
    }

    #[test]
    fn chunked_bodies_keep_their_promises() {
        check(&head::CHUNKED, 20_000);
    }

    #[test]
    fn streams_keep_their_promises() {
        check(&stream::STREAM, 5_000);
    }

    #[test]
    fn headers_of_the_proxy_protocol_keep_their_promises() {
        check(&edge::PROXY, 20_000);
    }

    #[test]
    fn client_hellos_keep_their_promises() {
        check(&edge::HELLO, 10_000);
    }

    #[test]
    fn paths_keep_their_promises() {
        check(&text::PATH, 20_000);
    }

    #[test]
    fn templates_keep_their_promises() {
        check(&text::TEMPLATE, 20_000);
    }

    #[test]
    fn annotations_keep_their_promises() {
        check(&annotations::ANNOTATIONS, 5_000);
    }

    #[test]
    fn rewrites_keep_their_promises() {
        check(&annotations::REWRITE, 5_000);
    }

    #[test]
    fn manifests_keep_their_promises() {
        check(&manifest::MANIFEST, 1_000);
    }

    #[test]
    fn old_configurations_keep_their_promises() {
        check(&manifest::OLD_CONFIG, 2_000);
    }

    #[test]
    fn an_api_server_s_words_end_in_objects_or_errors() {
        check(&api::WATCH, 2_000);
    }

    #[test]
    fn frames_keep_their_promises() {
        check(&segment::FRAME, 20_000);
    }

    #[test]
    fn neighbours_get_answers_to_questions_alone() {
        check(&segment::NEIGHBOUR, 20_000);
    }

    #[test]
    fn datagrams_keep_their_promises() {
        check(&segment::DATAGRAM, 5_000);
    }

    #[test]
    fn documents_keep_their_promises() {
        check(&segment::DOCUMENT, 20_000);
    }

    #[test]
    fn names_differ() {
        for (index, target) in TARGETS.iter().enumerate() {
            assert!(TARGETS[..index].iter().all(|other| other.name != target.name), "{}", target.name);
            assert!(!(target.seeds)().is_empty(), "{}", target.name);
        }
    }
}
