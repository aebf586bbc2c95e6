//! `test`: sets the machine up, builds the daemons, runs every test and counts.
//!
//! Tests are built by the user and run by root, who alone may make namespaces and load programs: Cargo starts each test
//! program through `sudo`. The daemons come from the same profile, so that nothing is built twice.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail};

use crate::tally::{self, Tally};
use crate::{host, package, process, setup, workspace};

/// How many tests may be skipped on the CI machine.
const SKIPS_FILE: &str = "tests/suite/skips.txt";

/// Name a Debian to boot and the package for the tests that install it.
const DEBIAN_VARIABLE: &str = "ROADSTEAD_DEBIAN_DIR";
const PACKAGE_VARIABLE: &str = "ROADSTEAD_PACKAGE";

/// `cargo xtask test [ARGS]`; the arguments take the place of "all of the workspace".
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    setup::install()?;
    if let Err(error) = setup::install_clients() {
        eprintln!("test: {error:#}\ntest: what needs curl or Chromium is skipped");
    }
    if let Err(error) = setup::install_judges() {
        eprintln!("test: {error:#}\ntest: what needs arping, ndisc6 or tshark is skipped");
    }
    for lack in host::lacks() {
        eprintln!("test: this host lacks {lack}; tests that need it are skipped");
    }
    workspace::build_programs_and_next()?;
    let (tally, finished) = run_parts(arguments)?;
    if finished && tally.results == 0 {
        bail!("no test ran");
    }
    println!();
    for name in &tally.failures {
        println!("failed: {name}");
    }
    for (why, tests) in &tally.left_out {
        println!("left out{BY_SERVER}, {tests}: {why}");
    }
    println!("{tally}");
    if !finished || tally.failed > 0 {
        bail!("tests failed");
    }
    // Elsewhere a developer's kernel or rights may lack something; on the CI machine nothing may fall away unseen.
    if env::var_os("CI").is_some_and(|value| !value.is_empty()) && arguments.is_empty() {
        check_skips(tally.skipped())?;
    }
    Ok(())
}

/// The tests on a real cluster and those that need its tools, and those that boot a host, by the module that they are in,
/// and by their test programs.
const ON_CLUSTER: &str = "on_cluster::";
const BOOTED: &str = "booted::";
const LAST_TESTS: [&str; 8] = ["--workspace", "--test", "cluster", "--test", "deploy", "--", ON_CLUSTER, BOOTED];

/// What some tests need beyond the daemons; where it is missing, they say so.
#[derive(Default)]
struct Extras {
    /// The programs of the test cluster.
    cluster: Option<PathBuf>,
    /// A Debian to boot, and the package to install in it.
    host: Option<(PathBuf, PathBuf)>,
}

/// The switch by which the tests of namespaces have the daemons' objects in an API server, and what it takes.
const SOURCE_FLAG: &str = "--source";
const API_SERVER: &str = "api-server";
/// The variable by which those tests know it.
const SOURCE_VARIABLE: &str = "ROADSTEAD_TEST_SOURCE";
/// The tests that run with either.
const SOURCE_TESTS: [&str; 3] = ["--workspace", "--test", "netns"];
/// After the names of those that ran so.
const BY_SERVER: &str = " (with an API server as source)";

/// Runs the tests of namespaces with an API server as source; the arguments are for them.
fn run_by_server(arguments: &[String], cluster: Option<PathBuf>) -> Result<(Tally, bool)> {
    let all: Vec<String> = SOURCE_TESTS.iter().map(|text| (*text).to_owned()).chain(arguments.to_vec()).collect();
    println!("\nThe tests of namespaces{BY_SERVER}:");
    let (tally, finished) = run_tests(command(&all, Extras { cluster, host: None })?.env(SOURCE_VARIABLE, API_SERVER))?;
    Ok((tally.named(BY_SERVER), finished))
}

/// Runs what was asked for. Everything goes first that needs neither cluster nor host, which may have to be made yet.
fn run_parts(arguments: &[String]) -> Result<(Tally, bool)> {
    if let [flag, rest @ ..] = arguments
        && flag == SOURCE_FLAG
    {
        let [source, rest @ ..] = rest else { bail!("{SOURCE_FLAG} takes {API_SERVER}") };
        if source != API_SERVER {
            bail!("\"{source}\": {SOURCE_FLAG} takes {API_SERVER}");
        }
        return run_by_server(rest, cluster());
    }
    if !arguments.is_empty() {
        let named = |name: &str| arguments.iter().any(|argument| argument == name);
        let cluster = if named("cluster") { cluster() } else { setup::cluster::found() };
        let host = if named("deploy") { host_to_boot() } else { None };
        return run_tests(&mut command(arguments, Extras { cluster, host })?);
    }
    let without = ["--workspace", "--", "--skip", ON_CLUSTER, "--skip", BOOTED].map(str::to_owned);
    let (mut tally, finished) = run_tests(&mut command(&without, Extras::default())?)?;
    let cluster = cluster();
    let (by_server, finished_so) = run_by_server(&[], cluster.clone())?;
    let extras = Extras { cluster, host: host_to_boot() };
    let (more, finished_too) = run_tests(&mut command(&LAST_TESTS.map(str::to_owned), extras)?)?;
    tally.add(by_server);
    tally.add(more);
    Ok((tally, finished && finished_so && finished_too))
}

fn host_to_boot() -> Option<(PathBuf, PathBuf)> {
    let made = setup::install_debian().and_then(|debian| Ok((debian, package::of_tests()?)));
    made.inspect_err(|error| eprintln!("test: {error:#}\ntest: what boots a host is skipped")).ok()
}

/// The programs of the test cluster, built where they are missing.
fn cluster() -> Option<PathBuf> {
    let installed = setup::install_cluster();
    installed.inspect_err(|error| eprintln!("test: {error:#}\ntest: what needs a Kubernetes cluster is skipped")).ok()
}

fn command(arguments: &[String], extras: Extras) -> Result<Command> {
    let mut command = workspace::cargo();
    command.args(["test", "--profile", workspace::PROFILE, "--no-fail-fast"]);
    // Our own flags to the test programs may follow the user's.
    let (to_cargo, to_tests) = match arguments.iter().position(|argument| argument == "--") {
        Some(at) => arguments.split_at(at),
        None => (arguments, [].as_slice()),
    };
    command.args(to_cargo).args(["--", "--show-output"]).args(to_tests.iter().skip(1));
    command.env("ROADSTEAD_BIN_DIR", workspace::program_dir()).env("PATH", workspace::path_with_sbin());
    if let Some(folder) = extras.cluster {
        command.env(setup::cluster::FOLDER_VARIABLE, folder);
    }
    if let Some((debian, package)) = extras.host {
        command.env(DEBIAN_VARIABLE, debian).env(PACKAGE_VARIABLE, package);
    }
    if !host::is_root() && host::has_sudo() {
        command.env(runner_variable()?, "sudo -E");
    }
    Ok(command)
}

/// Runs the tests, shows their lines as they come, counts results and skips. False where Cargo ends with an error.
fn run_tests(command: &mut Command) -> Result<(Tally, bool)> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("could not start {}", process::shown(command)))?;
    let stdout = child.stdout.take().context("cargo has no standard output")?;
    let stderr = child.stderr.take().context("cargo has no standard error")?;
    let mut tally = Tally::default();
    thread::scope(|scope| {
        // What a test's own threads and processes write is not captured by the harness and arrives here.
        let uncaptured = scope.spawn(|| {
            let mut skips = 0;
            process::each_line(stderr, |line| {
                eprintln!("{line}");
                skips += usize::from(tally::is_skip(line));
            });
            skips
        });
        process::each_line(stdout, |line| {
            if tally.take(line) {
                println!("{line}");
            }
        });
        tally.said_skipped += uncaptured.join().unwrap_or_default();
    });
    Ok((tally, child.wait()?.success()))
}

/// Cargo's variable for the program that starts test programs on this host.
fn runner_variable() -> Result<String> {
    let version = process::answer(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()), &["-vV"]);
    let host = version.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("host: ")));
    let host = host.context("rustc does not tell its host")?;
    Ok(format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_")))
}

fn check_skips(skipped: usize) -> Result<()> {
    let file = workspace::root().join(SKIPS_FILE);
    let text = fs::read_to_string(&file).with_context(|| format!("could not read {SKIPS_FILE}"))?;
    let allowed: usize = text.trim().parse().with_context(|| format!("{SKIPS_FILE} holds no number"))?;
    if skipped > allowed {
        bail!(
            "{skipped} tests were skipped, {SKIPS_FILE} allows {allowed}: mend the reason, or raise the number in review"
        );
    }
    Ok(())
}
