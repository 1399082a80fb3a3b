//! The extractor process.

use std::process::ExitCode;

/// What the hidden subcommand runs: serves extraction requests on stdin and stdout until end of input.
pub fn child_main() -> ExitCode {
    ExitCode::SUCCESS
}
