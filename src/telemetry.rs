//! Logs: structured lines to standard error, pretty for people or JSON for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat};

/// Libraries whose own lines say nothing to an operator.
const QUIET: &str = "hyper=warn,h2=warn,rustls=warn,sqlx=warn,reqwest=warn,html5ever=error,lopdf=error,tower=warn,qdrant_edge=warn,qdrant_edge::common::flags=error,qdrant_edge::common::mmap::ops=error";

/// Starts logging, also of panics. Fails when `log.level` cannot be read.
pub fn start(config: &Log) -> Result<(), String> {
    let filter = parse_level(&config.level)?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Pretty => registry
            .with(
                lines
                    .with_target(false)
                    .with_ansi(std::io::stderr().is_terminal()),
            )
            .try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    std::panic::set_hook(Box::new(|panic| {
        // The message may quote what a visitor wrote or a document says; the place never does.
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panicked");
    }));
    started.map_err(|error| error.to_string())
}

/// Whether `level` can be read as in `RUST_LOG`; if not, why.
pub fn check_level(level: &str) -> Result<(), String> {
    parse_level(level).map(drop)
}

fn parse_level(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(format!("{QUIET},{level}")).map_err(|error| format!("log.level: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_as_in_rust_log() {
        assert_eq!(check_level("info,frontdesk=debug"), Ok(()));
        assert!(check_level("frontdesk=loud").is_err_and(|problem| problem.starts_with("log.level:")));
    }
}
