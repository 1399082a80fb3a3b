//! What can be typed after `frontdesk eval`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum EvalCommand {
    /// Measure retrieval on a test set, or on all below a folder
    ///
    /// A test set is a folder in the layout of BEIR (corpus.jsonl, queries.jsonl, and qrels/test.tsv or qrels.tsv), or one of
    /// fixed answers (faqs.jsonl, queries.jsonl). Each is put into an index with the configured embedding model, asked, and
    /// taken away again. The index is of the kind that index.backend names: an embedded one is made for it and removed, on a
    /// server it lies beside those that are served. Nothing that they know is touched, and they may be asked meanwhile.
    Run(RunArgs),
    /// Put reports of several runs side by side, as Markdown
    Compare(CompareArgs),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RunArgs {
    /// The folder of a set, or one with sets below it
    pub dir: PathBuf,
    /// How many folders below that one a set may lie
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    pub depth: usize,
    /// Write the report here, with the result of every question
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// What to call what is measured, in the report; without this, as the embedding model is called
    #[arg(long)]
    pub name: Option<String>,
    /// Measure the search by words, without an embedding model
    #[arg(long)]
    pub words_only: bool,
    /// Leave out sets of fixed answers, which ask no index
    #[arg(long)]
    pub passages_only: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CompareArgs {
    /// What `eval run --json` wrote, a column each
    #[arg(required = true, value_name = "FILE")]
    pub reports: Vec<PathBuf>,
}
