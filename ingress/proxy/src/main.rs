//! `roadstead-ingress`: the command line of the proxy; everything it does is in the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use roadstead_proxy::cli::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = roadstead_sources::config::arguments()
        .map_err(anyhow::Error::from)
        .and_then(|arguments| Cli::parse_from(arguments).execute());
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("roadstead-ingress: {error:#}");
            ExitCode::FAILURE
        }
    }
}
