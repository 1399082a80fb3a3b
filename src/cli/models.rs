//! `frontdesk models`: what is made of embedding models before the server runs.

use std::io::{IsTerminal as _, Write as _};

use retrieval::embed;

use super::args::{DistillArgs, ModelsCommand};
use super::{Failure, print_line};

/// Carries out one of them; needs no settings and no server.
pub(super) fn models(command: ModelsCommand) -> Result<(), Failure> {
    match command {
        ModelsCommand::Distill(args) => distill(&args),
    }
}

fn distill(args: &DistillArgs) -> Result<(), Failure> {
    let shown = std::io::stderr().is_terminal();
    let progress = |done: usize, all: usize| {
        if shown {
            let _ = write!(std::io::stderr(), "\rtokens read by the model: {done} of {all}");
        }
    };
    let distilled = embed::distill(&args.model, &args.target, args.dimension, progress);
    if shown {
        let _ = writeln!(std::io::stderr());
    }
    let made = distilled.map_err(|error| match error {
        embed::DistillError::Exists { .. } | embed::DistillError::Dimension { .. } => {
            Failure::Usage(error.to_string())
        }
        error => Failure::Failed(error.to_string()),
    })?;
    print_line(&format!(
        "{}: {} tokens, {} dimensions; use it with --set embedding.backend=static --set embedding.model_dir={}",
        args.target.display(),
        made.tokens,
        made.dimension,
        args.target.display()
    ));
    Ok(())
}
