//! The flags that every daemon takes for its logs and metrics, and the set-up of the log output they describe.

use std::{io, net::SocketAddr};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// Where metrics are served and how logs look.
#[derive(Args, Clone, Debug, Default)]
pub struct TelemetryFlags {
    /// Serve Prometheus /metrics, /healthz, /readyz and /livez at this address
    #[arg(long, value_name = "ADDR", env = "ROADSTEAD_METRICS_ADDR")]
    pub metrics_addr: Option<SocketAddr>,
    /// Form of the log lines on standard error; RUST_LOG chooses which
    #[arg(long, value_name = "FORMAT", env = "ROADSTEAD_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error: `RUST_LOG` decides what, `info` without it. A second call changes nothing, so that
/// tests may start several daemons in one process.
pub fn init_logging(flags: &TelemetryFlags) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let output = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match flags.log_format {
        LogFormat::Text => output.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        LogFormat::Json => output.json().try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was already set up");
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        telemetry: TelemetryFlags,
    }

    #[test]
    fn flags_are_read() {
        let cases = [
            (vec!["x"], None, LogFormat::Text),
            (vec!["x", "--log-format", "json"], None, LogFormat::Json),
            (vec!["x", "--metrics-addr", "[::1]:9100"], Some("[::1]:9100"), LogFormat::Text),
        ];
        for (arguments, address, format) in cases {
            let read = Cli::try_parse_from(&arguments).unwrap().telemetry;
            assert_eq!(read.metrics_addr, address.map(|text| text.parse().unwrap()), "{arguments:?}");
            assert_eq!(read.log_format, format, "{arguments:?}");
        }
        assert!(Cli::try_parse_from(["x", "--metrics-addr", "9100"]).is_err());
        assert!(Cli::try_parse_from(["x", "--log-format", "xml"]).is_err());
    }
}
