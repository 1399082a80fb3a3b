//! `frontdesk index`: whether the index holds what the rows say, and putting it right.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Failure, failed, print_line};
use crate::app::{App, StartError};
use crate::config::Config;
use crate::generations;
use crate::id::{DocumentId, TenantId};
use crate::knowledge::operator::{FileFindings, compare_files};
use crate::knowledge::verify::Findings;
use crate::tenancy;

#[derive(Debug, Subcommand)]
pub(super) enum IndexCommand {
    /// Compare index and files with the rows: what is missing, differs, or belongs to nothing
    ///
    /// Changes nothing that anybody is answered with. What is being built beside it, with another embedding model, is named
    /// and counts as no difference. An embedded index belongs to one process: stop the server first.
    Verify(IndexArgs),
    /// Put right what verify finds: what is missing or differs is embedded again, what belongs to nothing is removed
    ///
    /// An index that was lost is filled again. What is being built beside it is left to the server. The files of documents that are
    /// gone can only be named: upload them again, or let their source be read again.
    Repair(IndexArgs),
}

#[derive(Debug, Args)]
pub(super) struct IndexArgs {
    /// Only this tenant
    #[arg(long, value_name = "ID")]
    pub tenant: Option<TenantId>,
    /// Print a list of {"tenant_id", "embedding", "state", "is_filled", "chunks", "points", "missing", "different", "stray"}
    #[arg(long)]
    pub json: bool,
}

/// What one index holds of one tenant, beside its rows.
#[derive(Serialize)]
struct Line {
    tenant_id: TenantId,
    /// The embedding model, with the length of its vectors.
    embedding: String,
    /// Where its generation stands: `live`, or one of those beside it.
    state: String,
    /// False: chunks are on their way into it, or will be when the service runs.
    is_filled: bool,
    #[serde(flatten)]
    findings: Findings,
    #[serde(skip)]
    is_being_built: bool,
}

/// Carries out one of them in this process. The embedded index belongs to one process: while a server runs, it checks
/// itself every hour.
pub(super) async fn index(config: Config, command: IndexCommand) -> Result<(), Failure> {
    let (args, heals) = match &command {
        IndexCommand::Verify(args) => (args, false),
        IndexCommand::Repair(args) => (args, true),
    };
    let mut found = look(&config, args.tenant, heals).await?;
    if heals && !found.damage.is_empty() {
        // What was found damaged is put aside when it is opened again.
        found = look(&config, args.tenant, heals).await?;
    }
    let Found { lines, damage, files } = found;
    if args.json {
        let text = serde_json::to_string(&lines).map_err(|error| failed("cannot print", &error))?;
        print_line(&text);
    } else {
        lines.iter().for_each(|line| print_line(&line.as_text(heals)));
        print_line(&summary(&lines, heals));
        print_line(&summary_of_files(&files, heals));
    }
    let mut problems = Vec::new();
    if !damage.is_empty() {
        problems.push(format!(
            "a part of the index is damaged: {}: frontdesk index repair puts it aside and fills it again from the rows",
            damage.join("; ")
        ));
    } else if lines.iter().any(Line::differs) && !heals {
        problems.push(
            "the index does not hold what the rows say: frontdesk index repair puts it right".to_owned(),
        );
    }
    if !files.lost.is_empty() {
        problems.push(about_lost(&files.lost));
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Failure::Differs(problems.join("; "))),
    }
}

/// Lost files that are named one by one.
const NAMED: usize = 20;

/// Nothing but their documents can bring these files back.
fn about_lost(lost: &[(TenantId, DocumentId)]) -> String {
    let named: Vec<String> = lost
        .iter()
        .take(NAMED)
        .map(|(tenant_id, id)| format!("document {id} of tenant {tenant_id}"))
        .collect();
    let others = match lost.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "files are gone: of {}{others}: put them back from a copy of the data folder, upload the documents again, or let their source be read again",
        named.join(", ")
    )
}

fn summary_of_files(files: &FileFindings, heals: bool) -> String {
    let FileFindings { lost, stray } = files;
    let done = if heals { "removed" } else { "of nothing" };
    format!("files: {} lost, {stray} {done}", lost.len())
}

/// What was found, and put right.
struct Found {
    lines: Vec<Line>,
    /// Parts of the index that are not what was written.
    damage: Vec<String>,
    files: FileFindings,
}

async fn look(config: &Config, tenant: Option<TenantId>, heals: bool) -> Result<Found, Failure> {
    let built = match heals {
        true => App::build_to_repair(config.clone()).await,
        false => App::build_to_look(config.clone()).await,
    };
    let app = match built {
        Ok(app) => app,
        Err(StartError::InUse { dir }) => {
            return Err(Failure::InUse(format!(
                "{dir} is in use by a server, and an embedded index belongs to one process: stop the server first; \
                 while it runs it compares the counts every hour, some of the chunks in turn, and mends what differs by itself"
            )));
        }
        Err(error) => return Err(error.into()),
    };
    let lines = compare(&app, tenant, heals).await;
    let damage = app.spaces.find_damage().await;
    let files = compare_files(&app, tenant, heals).await;
    app.close().await;
    Ok(Found {
        lines: lines?,
        files: files?,
        damage: damage.map_err(|error| failed("cannot read the index", &error))?,
    })
}

async fn compare(app: &App, tenant: Option<TenantId>, heals: bool) -> Result<Vec<Line>, Failure> {
    if let Some(tenant_id) = tenant {
        tenancy::get(app, tenant_id).await?;
    }
    let all = generations::operator::compare(app, tenant, heals).await?;
    let lines = all.into_iter().map(|compared| Line {
        is_being_built: compared.is_being_built(),
        is_filled: compared.is_filled,
        findings: compared.findings,
        tenant_id: compared.generation.tenant_id,
        embedding: compared.generation.space,
        state: compared.generation.state,
    });
    Ok(lines.collect())
}

impl Line {
    /// What is built beside what answers lacks nothing that anybody misses.
    const fn differs(&self) -> bool {
        !self.findings.agree() && !self.is_being_built
    }

    fn as_text(&self, heals: bool) -> String {
        let Findings {
            chunks,
            points,
            missing,
            different,
            stray,
        } = self.findings;
        let verdict = if self.findings.agree() {
            "agree".to_owned()
        } else if self.is_being_built {
            format!("being built beside what answers, {missing} of {chunks} missing")
        } else if heals {
            format!("{missing} put in, {different} put in anew, {stray} removed")
        } else if self.is_filled {
            format!("{missing} missing, {different} different, {stray} stray")
        } else {
            format!("being filled, {missing} of {chunks} missing, {different} different, {stray} stray")
        };
        format!(
            "tenant {}  {}  {chunks} chunks, {points} points: {verdict}",
            self.tenant_id, self.embedding
        )
    }
}

fn summary(lines: &[Line], heals: bool) -> String {
    let differing = lines.iter().filter(|line| line.differs()).count();
    let done = if heals { "mended" } else { "differing" };
    format!("{} compared, {differing} {done}", lines.len())
}
