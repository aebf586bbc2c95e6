//! `convert`: MetalLB's configuration of before its objects, written as those objects.

use std::{fs, io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use roadstead_model::Severity;

/// Flags of `convert`.
#[derive(Debug, Args)]
pub(crate) struct ConvertFlags {
    /// A manifest of the ConfigMap `config` or of AddressPools, or the text that stood in such a ConfigMap
    file: PathBuf,
}

/// Prints the objects, and on the other stream what they do not express; fails where something could not be converted.
pub(crate) fn convert(flags: &ConvertFlags) -> anyhow::Result<ExitCode> {
    let text = fs::read_to_string(&flags.file).with_context(|| format!("cannot read {}", flags.file.display()))?;
    let converted = roadstead_sources::convert_old(&flags.file, &text);
    for problem in &converted.problems {
        eprintln!("{problem}");
    }
    match std::io::stdout().write_all(converted.yaml.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => return Err(error).context("cannot print"),
        _ => {}
    }
    let failed = converted.problems.iter().any(|problem| problem.severity == Severity::Error);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
