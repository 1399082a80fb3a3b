//! `frontdesk eval`: how good retrieval is on test sets whose right answers are known.

mod args;
mod compare;
mod report;
mod sets;

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use retrieval::analysis::ANALYSIS;
use retrieval::embed::Embedder;
use retrieval::eval::{Answering, EvalError, Runner, Wording};

pub(super) use args::EvalCommand;

use self::args::{CompareArgs, RunArgs};
use self::report::{RunReport, SetReport};
use self::sets::{Found, Set};
use super::{Failure, failed, print_line, with_causes};
use crate::app;
use crate::chatbots::{DEFAULT_MAX_PASSAGES, DEFAULT_MIN_SIMILARITY};
use crate::config::{Config, EmbeddingBackend};

/// The wordings of a question that a set may have, and what its name becomes for each.
const WORDINGS: [(Wording, &str); 3] = [
    (Wording::AsTyped, ""),
    (Wording::Rewrite, " (rewritten)"),
    (Wording::AllTurns, " (all turns)"),
];

/// Goes before the model's name in that of an index: on a server, too, what is measured lies apart from what is served.
const MEASURED: &str = "eval:";

/// Carries out one of them; needs no server, and no database but that of the index, where the settings name one.
pub(super) async fn eval(config: Config, command: EvalCommand) -> Result<(), Failure> {
    match command {
        EvalCommand::Run(args) => run(&config, &args).await,
        EvalCommand::Compare(args) => side_by_side(&args),
    }
}

/// Measures every set below a folder in the kind of index that the settings name: in an embedded one of its own, which is gone
/// afterwards, or as a tenant of its own on a server, which is deleted there afterwards.
async fn run(config: &Config, args: &RunArgs) -> Result<(), Failure> {
    let mut found = sets::read_below(&args.dir, args.depth)?;
    if args.passages_only {
        found.retain(|found| matches!(found.set, Set::Passages(_)));
    }
    let embedder = match args.words_only {
        true => None,
        false => Some(load_embedder(config).await?),
    };
    let embedder = embedder.as_deref();
    let dir = tempfile::tempdir().map_err(|error| failed("cannot make a temporary folder", &error))?;
    let apart = Config {
        data_dir: dir.path().to_owned(),
        ..config.clone()
    };
    let model_id = embedder.map(|embedder| format!("{MEASURED}{}", embedder.model_id()));
    let dimension = embedder.map(Embedder::dimension);
    let index = app::index::open(
        &apart,
        model_id.as_deref(),
        dimension,
        (app::Purpose::Serve, false),
    )
    .await?
    .map_err(|error| failed("cannot make an index", &error))?;
    let measured = measure(
        &Runner {
            index: index.as_ref(),
            embedder,
            answering: Answering {
                passages: usize::try_from(DEFAULT_MAX_PASSAGES).unwrap_or(1),
                min_similarity: DEFAULT_MIN_SIMILARITY as f32,
            },
        },
        &found,
    )
    .await;
    let closed = index.close().await;
    let report = RunReport {
        system: args.name.clone().unwrap_or_else(|| match embedder {
            Some(embedder) => embedder.model_id().to_owned(),
            None => "words alone".to_owned(),
        }),
        analysis: ANALYSIS,
        sets: measured?,
    };
    closed.map_err(|error| failed("cannot close the index", &error))?;
    print_line(report.as_text().trim_end());
    if let Some(path) = &args.json {
        write_json(path, &report)?;
    }
    Ok(())
}

/// Where the settings name a model that is not there, a search goes by words alone. Figures must not pass for the
/// model's, so here that is an error.
async fn load_embedder(config: &Config) -> Result<std::sync::Arc<dyn Embedder>, Failure> {
    app::embedder::load(config).await?.ok_or_else(|| {
        let settings = &config.embedding;
        let remedy = match settings.backend {
            EmbeddingBackend::Static => "frontdesk models distill makes one",
            _ => "scripts/fetch-model installs it",
        };
        Failure::Configuration(format!(
            "embedding.model_dir: there is no model in {}: {remedy}, and --words-only measures without any",
            settings.model_dir.display()
        ))
    })
}

async fn measure(runner: &Runner<'_>, found: &[Found]) -> Result<Vec<SetReport>, Failure> {
    let mut reports = Vec::new();
    for Found { name, set } in found {
        match set {
            Set::Passages(set) => {
                for (wording, suffix) in WORDINGS.into_iter().filter(|(wording, _)| set.has(*wording)) {
                    let name = format!("{name}{suffix}");
                    let progress = Progress::of(&name);
                    let measured = runner.measure(set, wording, &|share| progress.show(share)).await;
                    let measured = measured.map_err(|error| stopped(&name, &error))?;
                    reports.push(SetReport::of_passages(name, measured));
                }
            }
            Set::Faq(set) => {
                let progress = Progress::of(name);
                let measured = runner.measure_faq(set, &|share| progress.show(share)).await;
                let measured = measured.map_err(|error| stopped(name, &error))?;
                reports.push(SetReport::of_faq(name.clone(), measured));
            }
        }
    }
    Ok(reports)
}

fn stopped(set: &str, error: &EvalError) -> Failure {
    failed(format_args!("the set {set} cannot be measured"), error)
}

fn write_json(path: &Path, report: &RunReport) -> Result<(), Failure> {
    let text =
        serde_json::to_string_pretty(report).map_err(|error| failed("cannot write the report", &error))?;
    fs::write(path, text + "\n").map_err(|error| {
        Failure::Failed(format!(
            "cannot write {}: {}",
            path.display(),
            with_causes(&error)
        ))
    })
}

fn side_by_side(args: &CompareArgs) -> Result<(), Failure> {
    let mut columns = Vec::new();
    for path in &args.reports {
        let text = fs::read_to_string(path)
            .map_err(|error| Failure::Failed(format!("{} cannot be read: {error}", path.display())))?;
        columns.extend(compare::read(&text).map_err(|error| {
            Failure::Failed(format!(
                "{} is no report of `frontdesk eval run --json`: {error}",
                path.display()
            ))
        })?);
    }
    print_line(compare::tables(&columns).trim_end());
    Ok(())
}

/// How far a set is, on a terminal.
struct Progress<'a> {
    set: &'a str,
    /// None: nobody looks.
    shown: Option<AtomicU8>,
}

impl<'a> Progress<'a> {
    fn of(set: &'a str) -> Self {
        let is_watched = std::io::stderr().is_terminal();
        Self {
            set,
            shown: is_watched.then(|| AtomicU8::new(u8::MAX)),
        }
    }

    fn show(&self, share: f64) {
        let Some(shown) = &self.shown else { return };
        let percent = (share.clamp(0.0, 1.0) * 100.0) as u8;
        if shown.swap(percent, Ordering::Relaxed) != percent {
            let end = if percent == 100 { "\n" } else { "" };
            let _ = write!(std::io::stderr(), "\r{}: {percent} %{end}", self.set);
        }
    }
}
