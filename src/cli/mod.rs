//! The command line: reads what was typed and the settings, runs one command, and says in the exit code how it ended.

mod args;
mod ask;
mod client;
mod demo;
mod eval;
mod events;
mod index;
mod ingest;
mod manage;
mod models;
mod serve;

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use crate::app::StartError;
use crate::config::{Config, ConfigError, Log};
use crate::error::Error;
use crate::{http, telemetry};
use args::{Cli, Command};

/// How long a thread for blocking calls waits for the next one. The allocator gives freed memory back to the system when
/// a thread ends, so a short life soon returns what loading the model took (90 MiB).
const IDLE_THREAD_LIFE: Duration = Duration::from_secs(2);

/// How long the end waits for calls into libraries that cannot be interrupted.
const LEFTOVER_LIMIT: Duration = Duration::from_secs(5);

/// Why a command was not carried out. Each kind has its exit code, told by `frontdesk --help`.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// It did not work.
    #[error("{0}")]
    Failed(String),
    /// A value on the command line does not hold.
    #[error("{0}")]
    Usage(String),
    /// Settings are wrong.
    #[error("{0}")]
    Configuration(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// Another process has the data folder or the address.
    #[error("{0}")]
    InUse(String),
    /// Index and rows do not say the same.
    #[error("{0}")]
    Differs(String),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Configuration(_) => 3,
            Self::NotFound(_) => 4,
            Self::InUse(_) => 5,
            Self::Differs(_) => 6,
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Configuration(error.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Setting(_) => Self::Configuration(error.to_string()),
            StartError::InUse { .. } => Self::InUse(error.to_string()),
            StartError::Failed(_) => Self::Failed(error.to_string()),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound(what) => Self::NotFound(format!("there is no such {what}")),
            Error::Malformed { .. } | Error::Invalid { .. } => Self::Usage(error.to_string()),
            error => Self::Failed(with_causes(&error)),
        }
    }
}

/// Carries out what was typed.
pub fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            let code = error.exit_code();
            // The reader of this output may be gone; there is nobody else to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(code).unwrap_or(2));
        }
    };
    if matches!(cli.command, Command::ExtractChild) {
        // Nothing else may have started: this process limits itself to what reading a document needs.
        return ::ingest::sandbox::child_main();
    }
    // What this process writes is for its own user only: database, index, files and keys.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "frontdesk: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    if matches!(cli.command, Command::Openapi) {
        let document = http::router::openapi()
            .to_pretty_json()
            .map_err(|error| Failure::Failed(error.to_string()))?;
        print_line(&document);
        return Ok(());
    }
    if let Command::Models(command) = cli.command {
        return models::models(command);
    }
    let config = Config::load(cli.settings.config.as_deref(), environment(), &cli.flags())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_keep_alive(IDLE_THREAD_LIFE)
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start threads: {error}")))?;
    if let Command::Serve(args) = cli.command {
        telemetry::start(&config.log).map_err(Failure::Configuration)?;
        let served = runtime.block_on(serve::serve(config, args));
        runtime.shutdown_timeout(LEFTOVER_LIMIT);
        return served;
    }
    // A short command's own output is its report; its log holds what went wrong.
    let log = if config.log.level == "info" {
        Log {
            level: "warn".to_owned(),
            ..config.log.clone()
        }
    } else {
        config.log.clone()
    };
    telemetry::start(&log).map_err(Failure::Configuration)?;
    let done = runtime.block_on(async {
        match cli.command {
            Command::Migrate { adopt_data_dir } => manage::migrate(&config, adopt_data_dir).await,
            Command::Tenant(command) => manage::tenant(&config, command).await,
            Command::Key(command) => manage::key(&config, command).await,
            Command::Ask(args) => ask::ask(config, args).await,
            Command::Ingest(args) => ingest::ingest(config, args).await,
            Command::Index(command) => index::index(config, command).await,
            Command::Eval(command) => eval::eval(config, command).await,
            Command::Health(args) => client::health(&config, args).await,
            Command::Serve(_) | Command::Openapi | Command::Models(_) | Command::ExtractChild => {
                unreachable!("carried out above")
            }
        }
    });
    runtime.shutdown_timeout(LEFTOVER_LIMIT);
    done
}

/// The environment, for the configuration.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment; config.rs judges it"
)]
fn environment() -> impl Iterator<Item = (String, String)> {
    // A value that is no text cannot be a valid setting, and is reported as it can be shown.
    std::env::vars_os().map(|(name, value)| {
        (
            name.to_string_lossy().into_owned(),
            value.to_string_lossy().into_owned(),
        )
    })
}

/// Writes one line to standard output, at once. Whoever read it may be gone: that stops nothing.
fn print_line(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// An error with all that caused it, in one line.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Many libraries repeat their cause in their own message.
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// A failure of `what`, with all that caused it.
fn failed(what: impl Display, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::Failed(format!("{what}: {}", with_causes(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_failure_has_its_exit_code() {
        let in_use = StartError::InUse {
            dir: "data/index".to_owned(),
        };

        assert_eq!(Failure::from(Error::internal("broken")).exit_code(), 1);
        assert_eq!(
            Failure::from(Error::invalid("invalid_name", "name", "a name")).exit_code(),
            2
        );
        assert_eq!(Failure::from(ConfigError(vec!["x".to_owned()])).exit_code(), 3);
        assert_eq!(
            Failure::from(StartError::Setting("data_dir: closed".to_owned())).exit_code(),
            3
        );
        assert_eq!(Failure::from(Error::NotFound("tenant")).exit_code(), 4);
        assert_eq!(Failure::from(in_use).exit_code(), 5);
    }

    #[test]
    fn a_failure_tells_its_causes_once() {
        let cause = std::io::Error::other("disk on fire");

        assert_eq!(
            with_causes(&Error::Internal(Box::new(cause))),
            "internal: disk on fire"
        );
    }
}
