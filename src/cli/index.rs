//! `frontdesk index`: whether the index holds what the rows say, and putting it right.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Failure, failed, print_line};
use crate::app::{App, StartError};
use crate::config::Config;
use crate::generations;
use crate::id::TenantId;
use crate::knowledge::verify::{self, Findings};

#[derive(Debug, Subcommand)]
pub(super) enum IndexCommand {
    /// Compare the index with the rows: what is missing in it, differs, or belongs to nothing
    ///
    /// Changes nothing. An embedded index belongs to one process: stop the server first.
    Verify(IndexArgs),
    /// Put right what verify finds: what is missing or differs is embedded again, what belongs to nothing is removed
    Repair(IndexArgs),
}

#[derive(Debug, Args)]
pub(super) struct IndexArgs {
    /// Only this tenant
    #[arg(long, value_name = "ID")]
    pub tenant: Option<TenantId>,
    /// Print a list of {"tenant_id", "embedding", "chunks", "points", "missing", "different", "stray"}
    #[arg(long)]
    pub json: bool,
}

/// What one index holds of one tenant, beside its rows.
#[derive(Serialize)]
struct Line {
    tenant_id: TenantId,
    /// The embedding model, with the length of its vectors.
    embedding: String,
    #[serde(flatten)]
    findings: Findings,
}

/// Carries out one of them in this process. The embedded index belongs to one process: while a server runs, it checks
/// itself every hour.
pub(super) async fn index(config: Config, command: IndexCommand) -> Result<(), Failure> {
    let (args, heals) = match &command {
        IndexCommand::Verify(args) => (args, false),
        IndexCommand::Repair(args) => (args, true),
    };
    let app = match App::build(config).await {
        Ok(app) => app,
        Err(StartError::InUse { dir }) => {
            return Err(Failure::InUse(format!(
                "{dir} is in use by a server, and an embedded index belongs to one process: stop the server first; \
                 while it runs it compares the counts every hour, some of the chunks in turn, and mends what differs by itself"
            )));
        }
        Err(error) => return Err(error.into()),
    };
    let compared = compare(&app, args, heals).await;
    app.close().await;
    let lines = compared?;
    if args.json {
        let text = serde_json::to_string(&lines).map_err(|error| failed("cannot print", &error))?;
        print_line(&text);
    } else {
        lines.iter().for_each(|line| print_line(&line.as_text(heals)));
        print_line(&summary(&lines, heals));
    }
    let differ = lines.iter().any(|line| !line.findings.agree());
    match differ && !heals {
        true => Err(Failure::Differs(
            "the index does not hold what the rows say: frontdesk index repair puts it right".to_owned(),
        )),
        false => Ok(()),
    }
}

async fn compare(app: &App, args: &IndexArgs, heals: bool) -> Result<Vec<Line>, Failure> {
    let mut lines = Vec::new();
    let all = generations::operator::list_filled(app).await?;
    for (tenant_id, name) in all {
        if args.tenant.is_some_and(|wanted| wanted != tenant_id) {
            continue;
        }
        let space = app.space(&name).await?;
        let findings = verify::compare(app, tenant_id, &space, heals).await?;
        lines.push(Line {
            tenant_id,
            embedding: name,
            findings,
        });
    }
    Ok(lines)
}

impl Line {
    fn as_text(&self, heals: bool) -> String {
        let Findings {
            chunks,
            points,
            missing,
            different,
            stray,
        } = self.findings;
        let verdict = match (self.findings.agree(), heals) {
            (true, _) => "agree".to_owned(),
            (false, false) => format!("{missing} missing, {different} different, {stray} stray"),
            (false, true) => format!("{missing} put in, {different} put in anew, {stray} removed"),
        };
        format!(
            "tenant {}  {}  {chunks} chunks, {points} points: {verdict}",
            self.tenant_id, self.embedding
        )
    }
}

fn summary(lines: &[Line], heals: bool) -> String {
    let differing = lines.iter().filter(|line| !line.findings.agree()).count();
    let done = if heals { "mended" } else { "differing" };
    format!("{} compared, {differing} {done}", lines.len())
}
