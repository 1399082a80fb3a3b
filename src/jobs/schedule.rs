//! Recurring upkeep: each schedule fires once per due time, on whichever replica sees it first.

use chrono::{DateTime, Utc};
use croner::Cron;

use super::operator;
use crate::app::App;
use crate::db::Scope;
use crate::error::{Error, Result};
use crate::on;

/// Queues the jobs of all schedules that are due. Moving a schedule to its next time and queueing its job is one
/// transaction, and the move succeeds only from the time that was read: two replicas cannot both fire it.
pub async fn fire_due(app: &App) -> Result<()> {
    let now = app.clock.now();
    for schedule in operator::SCHEDULES {
        let mut conn = app.db.read(Scope::Operator).await?;
        let row: Option<(DateTime<Utc>, String)> = on!(conn, c => sqlx::query_as("select next_run_at, cron from schedule where name = $1").bind(schedule.name).fetch_optional(c).await)?;
        drop(conn);
        let next = next_after(schedule.cron, now)?;
        let Some((due_at, _)) = row.filter(|(_, cron)| cron == schedule.cron) else {
            let mut write = app.db.write(Scope::Operator).await?;
            on!(write, c => sqlx::query(
                "insert into schedule (name, cron, next_run_at) values ($1, $2, $3)
                 on conflict (name) do update set cron = excluded.cron, next_run_at = excluded.next_run_at where schedule.cron <> excluded.cron",
            ).bind(schedule.name).bind(schedule.cron).bind(next).execute(c).await.map(drop))?;
            write.commit().await?;
            continue;
        };
        // A due time behind the next one was set by a clock that ran ahead: waiting for it could take years.
        if due_at > now && due_at <= next {
            continue;
        }
        let is_due = due_at <= now;
        let mut write = app.db.write(Scope::Operator).await?;
        let won: Option<String> = on!(write, c => sqlx::query_scalar(
            "update schedule set next_run_at = $3, last_run_at = coalesce($4, last_run_at) where name = $1 and next_run_at = $2 returning name",
        ).bind(schedule.name).bind(due_at).bind(next).bind(is_due.then_some(now)).fetch_optional(c).await)?;
        if won.is_some() {
            if is_due {
                (schedule.enqueue)(app, &mut write, now).await?;
            }
            write.commit().await?;
            app.wake_workers();
        }
    }
    Ok(())
}

fn next_after(cron: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
    let cron: Cron = cron
        .parse()
        .map_err(|error| Error::internal(format!("schedule {cron:?}: {error}")))?;
    cron.find_next_occurrence(&now, false)
        .map_err(|error| Error::internal(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schedule_has_a_next_time() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("a valid time");

        for schedule in operator::SCHEDULES {
            assert!(
                next_after(schedule.cron, now).expect("a valid cron text") > now,
                "{}",
                schedule.name
            );
        }
    }
}
