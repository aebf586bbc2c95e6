//! `cargo xtask`: what a developer or a visitor runs in a fresh clone, from set-up to demo, tests and CI.
//!
//! It stands outside both ways through the house: it starts Cargo, apt and the lab, and holds no logic of theirs. Only
//! anyhow and the BPF toolchain are its dependencies, so that the first command answers within seconds.

#![forbid(unsafe_code)]

mod bench;
mod demo;
mod host;
mod lint;
mod package;
mod process;
mod setup;
mod tally;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
cargo xtask COMMAND

  setup [--cluster]
                   install what the build, the demo and the tests need; does nothing where all is there; with
                   --cluster also build the Kubernetes of the test cluster, which needs Go and twenty minutes
  demo [--keep]    build everything, make the lab, show every path working; --keep leaves it running
  test [ARGS]      build everything and run all tests, with root where they need it; ARGS go to cargo test
  test --source api-server [ARGS]
                   only the tests of namespaces, with the daemons' objects in a Kubernetes API server in place of a
                   directory; ARGS go to cargo test
  bench service [--quick | --full]
                   build everything as it is shipped and measure it beside nftables and iptables; results in
                   target/bench
  bench ingress [--quick] [--only PART,...]
                   the same for the proxy beside nginx, HAProxy and Envoy; parts: load, rate, routes, idle, updates
  bench failover [--quick] [--only CASE,...] [--rounds N] [--kills N] [--nodes N]
                   the same for addresses that move, beside keepalived; cases: node, link, kill, drain
  package [--static]
                   build the daemons as they are shipped and pack them: a Debian package with their units in
                   target/debian, or with --static programs for a container image in target/package
  lint             formatting and clippy, without warnings
  ci               what .ci/run runs: lint, then test";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let (command, rest) = arguments.split_first().map_or(("help", arguments), |(first, rest)| (first.as_str(), rest));
    match command {
        "setup" => setup::run(rest),
        "demo" => demo::run(rest),
        "test" => test::run(rest),
        "bench" => bench::run(rest),
        "package" => package::run(rest),
        "lint" if rest.is_empty() => lint::run(),
        "ci" if rest.is_empty() => lint::ci(),
        "help" | "-h" | "--help" => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("\"{}\" is no command\n\n{USAGE}", arguments.join(" ")),
    }
}
