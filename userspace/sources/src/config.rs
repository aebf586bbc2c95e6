//! `--config FILE`: the flags of the daemons' `run` from a YAML mapping; the command line and the environment go before it.

use std::{
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
};

use serde_yaml::Value;

use crate::{bounds, document::merged};

/// Why a configuration file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `--config` without a value.
    #[error("--config needs the name of a file")]
    Missing,
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is no YAML.
    #[error("cannot parse {}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_yaml::Error,
    },
    /// The file holds something else than flag names with values.
    #[error("{}: {reason}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
}

/// The arguments of this process with `--config FILE` replaced by the flags that the file holds.
///
/// The file is a mapping from flag names to a value or a list of values; `true` sets a flag without a value, `false` and
/// `null` leave it out. A flag on the command line replaces the file's, and so does its environment variable
/// (`ROADSTEAD_NODE_NAME` for `node-name`). Only `run` takes the file; other subcommands have other flags.
///
/// # Errors
/// When the file cannot be read or is no such mapping.
pub fn arguments() -> Result<Vec<OsString>, ConfigError> {
    expand(std::env::args_os().collect(), |name| std::env::var_os(name))
}

fn expand(
    arguments: Vec<OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<OsString>, ConfigError> {
    if subcommand(&arguments).is_none_or(|name| name != "run") {
        return Ok(arguments);
    }
    let mut rest = Vec::with_capacity(arguments.len());
    let mut file = environment("ROADSTEAD_CONFIG").map(PathBuf::from);
    let mut incoming = arguments.into_iter();
    while let Some(argument) = incoming.next() {
        if argument == "--" {
            rest.push(argument);
            rest.extend(incoming);
            break;
        }
        if argument == "--config" {
            file = Some(incoming.next().ok_or(ConfigError::Missing)?.into());
        } else if let Some(name) = argument.to_str().and_then(|text| text.strip_prefix("--config=")) {
            file = Some(name.into());
        } else {
            rest.push(argument);
        }
    }
    let Some(file) = file else { return Ok(rest) };
    let mut flags = read(&file)?;
    // Behind `--` nothing is a flag.
    let end = rest.iter().position(|argument| argument == "--").unwrap_or(rest.len());
    flags.retain(|(name, _)| !rest.iter().take(end).any(|argument| is_flag(argument, name)));
    flags.retain(|(name, _)| variables(name).iter().all(|variable| environment(variable).is_none()));
    let flags = flags.into_iter().map(|(_, argument)| argument);
    // At the end, for the flags belong to the subcommand.
    rest.splice(end..end, flags);
    Ok(rest)
}

/// The first argument that is no flag.
fn subcommand(arguments: &[OsString]) -> Option<&OsString> {
    let mut arguments = arguments.iter().skip(1).take_while(|argument| *argument != "--");
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            arguments.next();
        } else if !argument.as_encoded_bytes().starts_with(b"-") {
            return Some(argument);
        }
    }
    None
}

/// The environment variables that a flag may have: those of the ingress alone are named after it.
fn variables(name: &str) -> [String; 2] {
    let name = name.to_uppercase().replace('-', "_");
    [format!("ROADSTEAD_{name}"), format!("ROADSTEAD_INGRESS_{name}")]
}

fn is_flag(argument: &OsStr, name: &str) -> bool {
    let Some(text) = argument.to_str().and_then(|text| text.strip_prefix("--")) else { return false };
    text.split('=').next() == Some(name)
}

/// Flag name and argument, in the file's order.
fn read(path: &Path) -> Result<Vec<(String, OsString)>, ConfigError> {
    let shape = |reason: String| ConfigError::Shape { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    bounds::check(&text).map_err(|(line, reason)| shape(format!("line {line}: {reason}")))?;
    let value: Value = serde_yaml::from_str(&text)
        .and_then(merged)
        .map_err(|source| ConfigError::Parse { path: path.to_owned(), source })?;
    let mapping = match value {
        Value::Mapping(mapping) => mapping,
        Value::Null => return Ok(Vec::new()),
        _ => return Err(shape("expected a mapping from flag names to values".to_owned())),
    };
    let mut flags = Vec::new();
    for (key, value) in mapping {
        let Value::String(name) = key else { return Err(shape(format!("{key:?} is no flag name"))) };
        let values = match value {
            Value::Sequence(values) => values,
            single => vec![single],
        };
        for value in values {
            let argument = argument(&name, &value).ok_or_else(|| shape(format!("{name}: expected a plain value")))?;
            flags.extend(argument.map(|argument| (name.clone(), argument)));
        }
    }
    Ok(flags)
}

/// `None` where the value is no plain one, `Some(None)` where the flag is left out.
fn argument(name: &str, value: &Value) -> Option<Option<OsString>> {
    Some(match value {
        Value::Null | Value::Bool(false) => None,
        Value::Bool(true) => Some(format!("--{name}").into()),
        Value::Number(number) => Some(format!("--{name}={number}").into()),
        Value::String(text) => Some(format!("--{name}={text}").into()),
        Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str, arguments: &[&str], expected: Result<&[&str], &str>) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.yaml");
        std::fs::write(&file, yaml).unwrap();
        let arguments =
            arguments.iter().map(|text| OsString::from(text.replace("FILE", file.to_str().unwrap()))).collect();
        let environment =
            |name: &str| matches!(name, "ROADSTEAD_SET" | "ROADSTEAD_INGRESS_HTTP").then(|| OsString::from("1"));
        match (expand(arguments, environment), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{yaml}"),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{yaml}: {error}"),
            (found, expected) => panic!("{yaml}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn the_file_is_expanded_and_the_command_line_wins() {
        check("a: 1", &["x", "run"], Ok(&["x", "run"]));
        check(
            "node-name: n1\nmanifests: [a, b]\nkeep: true\ndrop: false\nport: 80",
            &["x", "run", "--config", "FILE"],
            Ok(&["x", "run", "--node-name=n1", "--manifests=a", "--manifests=b", "--keep", "--port=80"]),
        );
        check(
            "node-name: n1\nmanifests: [a, b]",
            &["x", "run", "--config=FILE", "--manifests", "c"],
            Ok(&["x", "run", "--manifests", "c", "--node-name=n1"]),
        );
        check("a: 1", &["x", "run", "--config=FILE", "--a=2", "--", "--a"], Ok(&["x", "run", "--a=2", "--", "--a"]));
        check("a: 1", &["x", "run", "--config=FILE", "--", "--a"], Ok(&["x", "run", "--a=1", "--", "--a"]));
        check("# nothing\n", &["x", "run", "--config=FILE"], Ok(&["x", "run"]));
        check("a: 1\nset: 2\nhttp: 3", &["x", "run", "--config=FILE"], Ok(&["x", "run", "--a=1"]));
        // Before the subcommand too, and never for another one.
        check("a: 1", &["x", "--config", "FILE", "run"], Ok(&["x", "run", "--a=1"]));
        check("a: 1", &["x", "check", "run"], Ok(&["x", "check", "run"]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        check("[a]", &["x", "run", "--config=FILE"], Err("expected a mapping"));
        check("a: {b: c}", &["x", "run", "--config=FILE"], Err("a: expected a plain value"));
        check("a: [", &["x", "run", "--config=FILE"], Err("cannot parse"));
        check("a: 1", &["x", "run", "--config"], Err("--config needs"));
        check("a: 1", &["x", "run", "--config=FILE.gone"], Err("cannot read"));
    }
}
