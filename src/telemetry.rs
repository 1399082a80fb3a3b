//! Logs: structured lines to standard error, pretty for people or JSON for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat};

/// Libraries whose own lines say nothing to an operator.
const QUIET: &str = "hyper=warn,h2=warn,rustls=warn,sqlx=warn,reqwest=warn,html5ever=error,lopdf=error,tower=warn,qdrant_edge=warn,qdrant_edge::common::flags=error,qdrant_edge::common::mmap::ops=error";

/// A library that writes what it cannot read, which is what people and models say, into the log.
const INDISCREET: &str = "async_openai";

/// Starts logging, also of panics. Fails when `log.level` cannot be read.
pub fn start(config: &Log) -> Result<(), String> {
    let filter = parse_level(&config.level)?;
    let registry = tracing_subscriber::registry().with(filter).with(discretion());
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

/// Lets no line of an indiscreet library through, whatever the level.
fn discretion<S: tracing::Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    filter_fn(|line| !line.target().starts_with(INDISCREET))
}

fn parse_level(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(format!("{QUIET},{level}")).map_err(|error| format!("log.level: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read as _};

    use super::*;

    /// Everything that `speak` writes into a log that takes all levels.
    fn logged(speak: impl FnOnce()) -> String {
        let (mut reader, writer): (PipeReader, _) = std::io::pipe().expect("a pipe");
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || writer.try_clone().expect("a second handle"));
        let log = tracing_subscriber::registry()
            .with(parse_level("trace,async_openai::error=trace").expect("a level"))
            .with(discretion())
            .with(lines);
        tracing::subscriber::with_default(log, speak);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        text
    }

    #[test]
    fn what_a_model_said_is_not_logged_by_the_library_that_could_not_read_it() {
        let text = logged(|| {
            tracing::error!(target: "async_openai::error", "failed deserialization of: secret");
            tracing::info!("a line of ours");
        });

        assert!(
            text.contains("a line of ours") && !text.contains("secret"),
            "{text}"
        );
    }

    #[test]
    fn levels_are_read_as_in_rust_log() {
        assert_eq!(check_level("info,frontdesk=debug"), Ok(()));
        assert!(check_level("frontdesk=loud").is_err_and(|problem| problem.starts_with("log.level:")));
    }
}
