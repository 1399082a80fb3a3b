//! Which making of a model's index documents are put into, in the rows. Processes of two releases whose rules of words differ, or of
//! two configurations, have an index each: the one that a start noted last holds, and who has another one leaves filling to others.
//! A start notes only an index that its process can fill, see [`Standing`].
//!
//! A release that is taken back leaves processes behind whose index is not the noted one. Each process looks every minute, and says
//! now and then that it has the noted one; where nobody said so for an hour, who looks next has its own noted. As long as somebody has
//! the noted one nobody else's is, so that two never take turns.

use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{AssertSqlSafe, QueryBuilder};
use tokio_util::sync::CancellationToken;

use super::App;
use super::space::Space;
use crate::db::{Db, ROWS_AT_ONCE, Scope, Write};
use crate::error::Result;
use crate::id::TenantId;
use crate::knowledge::versions::is_shown;
use crate::on;

/// How often a process looks.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How often a process says that it has the noted making.
const SAID_EVERY: TimeDelta = TimeDelta::minutes(5);

/// A making that nobody said to have for so long is given up.
const GIVEN_UP_AFTER: TimeDelta = TimeDelta::hours(1);

/// The advisory lock of whoever notes an index, and shared by those who begin what it would have to leave. Any number that no other
/// lock of this database has.
const NOTING: i64 = 0x6d61_6b69_6e67;

/// What a process can do for an index, and so what it may say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has workers and the model: a start notes the index, and the process says that it has it.
    Fills,
    /// It has workers: it notes the index where nobody has the noted one any more, so that their work on it goes on.
    Works,
    /// It notes the index where none is noted.
    Answers,
}

/// What the row of a space says of its index.
#[derive(PartialEq, sqlx::FromRow)]
struct Noted {
    making: Option<String>,
    making_since: Option<DateTime<Utc>>,
    making_used_at: Option<DateTime<Utc>>,
}

impl App {
    /// Looks after what documents are put into, until the process stops.
    pub(crate) async fn keep_makings(&self, stop: CancellationToken) {
        loop {
            tokio::select! { () = tokio::time::sleep(LOOK_EVERY) => {}, () = stop.cancelled() => return }
            self.look_at_makings().await;
        }
    }

    /// Of each index on a server: says that this process has the making that documents are put into, or has its own noted where nobody
    /// has that one any more.
    pub async fn look_at_makings(&self) {
        for space in self.spaces.list_on_servers() {
            let standing = self.spaces.standing(&space);
            if let Err(error) = look_at(&self.db, &space, standing, self.clock.now()).await {
                tracing::warn!(error = ?error, space = space.name, "it cannot be told whether documents are put into this index: the next look will");
            }
        }
    }

    /// Finds out whether the index of a space is the one that documents were put into. If not, and if this process can fill it, all
    /// that it held counts as missing.
    pub(crate) async fn note_making(&self, space: &Space) -> Result<()> {
        let now = self.clock.now();
        space.waits_to_be_noted.store(!space.is_open, Ordering::Relaxed);
        match self.spaces.standing(space) {
            Standing::Fills => note(&self.db, space, now).await,
            _ if !space.is_on_server => note(&self.db, space, now).await,
            standing => look_at(&self.db, space, standing, now).await,
        }
    }

    /// Leaves work on the index of a space to processes that have the one which documents are put into: no attempt counts.
    pub(crate) async fn check_noted(&self, space: &Space) -> Result<()> {
        let noted = find(&self.db, &space.name).await?;
        space.check_making(noted.making.as_deref())
    }

    /// Whether documents have been put into the index of this space for at least so long.
    pub(crate) async fn is_noted_for(&self, space: &Space, at_least: Duration) -> Result<bool> {
        let noted = find(&self.db, &space.name).await?;
        let is_old = |since: DateTime<Utc>| {
            (self.clock.now() - since)
                .to_std()
                .is_ok_and(|age| age >= at_least)
        };
        Ok(noted.making == space.index.generation() && noted.making_since.is_some_and(is_old))
    }
}

/// Whether the service has had an index of this space.
pub(super) async fn was_made(db: &Db, space: &str) -> Result<bool> {
    let mut conn = db.read(Scope::Operator).await?;
    let making: Option<Option<String>> = on!(conn, c => sqlx::query_scalar("select making from embedding_space where name = $1")
        .bind(space).fetch_optional(c).await)?;
    Ok(making.flatten().is_some())
}

async fn find(db: &Db, space: &str) -> Result<Noted> {
    let mut conn = db.read(Scope::Operator).await?;
    Ok(
        on!(conn, c => sqlx::query_as("select making, making_since, making_used_at from embedding_space where name = $1")
        .bind(space).fetch_one(c).await)?,
    )
}

/// Says that this process has the noted making of a space, or notes its own where nobody has that one any more, as far as its
/// `standing` lets it. Where none is noted, it notes its own in any case.
pub(super) async fn look_at(db: &Db, space: &Space, standing: Standing, now: DateTime<Utc>) -> Result<()> {
    let noted = find(db, &space.name).await?;
    if noted.making.is_none() {
        return note_over(db, space, Some(&noted), now).await.map(drop);
    }
    // Another process may have named the very same index anew.
    let had_it = !space.is_of_another_making(noted.making.as_deref());
    let looked_up = space.index.look_up_generation().await;
    if !had_it {
        looked_up?;
    }
    let has_it = !space.is_of_another_making(noted.making.as_deref());
    if standing == Standing::Answers {
        return Ok(());
    }
    let was_said = |since: TimeDelta| noted.making_used_at.is_some_and(|said_at| said_at > now - since);
    if has_it {
        return match was_said(SAID_EVERY) || standing == Standing::Works {
            true => Ok(()),
            false => say(db, space, now).await,
        };
    }
    if had_it && standing == Standing::Fills {
        // What was noted is gone: somebody who may not note it made it anew.
        return note_over(db, space, Some(&noted), now).await.map(drop);
    }
    if was_said(GIVEN_UP_AFTER) {
        return Ok(());
    }
    if let Err(error) = space.index.check().await {
        tracing::warn!(error = ?error, space = space.name, "no process has the index any more that documents were put into last, and that of this process does not answer: where it is gone, this process has to be restarted");
        return Ok(());
    }
    if note_over(db, space, Some(&noted), now).await? {
        tracing::warn!(
            space = space.name,
            "no process has the index any more that documents were put into last: they are put into that of this process"
        );
    }
    Ok(())
}

/// Says that a process has the noted making.
async fn say(db: &Db, space: &Space, now: DateTime<Utc>) -> Result<()> {
    let mut write = db.write(Scope::Operator).await?;
    on!(write, c => sqlx::query("update embedding_space set making_used_at = $3 where name = $1 and making = $2")
        .bind(&space.name).bind(space.index.generation()).bind(now).execute(c).await.map(drop))?;
    write.commit().await
}

/// Notes the index of a space as the one that documents are put into. Where it was another one, something was lost, and all that
/// tenants had in it who may be concerned counts as missing.
pub(super) async fn note(db: &Db, space: &Space, now: DateTime<Utc>) -> Result<()> {
    note_over(db, space, None, now).await.map(drop)
}

/// As [`note`], unless the row says something else by now than was `seen`. Whether it was noted.
async fn note_over(db: &Db, space: &Space, seen: Option<&Noted>, now: DateTime<Utc>) -> Result<bool> {
    let Some(making) = space.index.generation() else {
        return Ok(false);
    };
    let mut write = db.write(Scope::Operator).await?;
    hold_noting(&mut write, "pg_advisory_xact_lock").await?;
    // Whoever begins a tenant's first generation refers to this row: either this sees the generation, or that one sees what this notes.
    let lock = if write.is_postgres() { "for update" } else { "" };
    let present: Noted = on!(write, c => sqlx::query_as(AssertSqlSafe(format!(
        "select making, making_since, making_used_at from embedding_space where name = $1 {lock}"
    ))).bind(&space.name).fetch_one(c).await)?;
    if seen.is_some_and(|seen| *seen != present) {
        return Ok(false);
    }
    let known = present.making;
    on!(write, c => sqlx::query(
        "update embedding_space
            set making = $2,
                making_since = case when making = $2 then coalesce(making_since, $3) else $3 end,
                making_used_at = $3
          where name = $1",
    ).bind(&space.name).bind(&making).bind(now).execute(c).await.map(drop))?;
    if known.as_ref() == Some(&making) {
        write.commit().await?;
        return Ok(true);
    }
    let mut concerned = list_tenants(&mut write, &space.name).await?;
    if let Some(known) = &known {
        concerned.retain(|tenant_id| space.has_lost(*tenant_id, Some(known.as_str())));
    }
    if known.is_some() {
        on!(write, c => sqlx::query("update generation set reclaimed_at = null where space = $1 and state = 'retired'")
            .bind(&space.name).execute(c).await.map(drop))?;
        // What is waiting to be whole may have been in what was lost as well. Who shows it locks its row before those of generations:
        // in another order two would wait for each other.
        for tenants in concerned.chunks(ROWS_AT_ONCE) {
            leave_waiting(&mut write, tenants).await?;
        }
    }
    for tenants in concerned.chunks(ROWS_AT_ONCE) {
        mark_empty(&mut write, &space.name, tenants).await?;
    }
    write.commit().await?;
    if !concerned.is_empty() {
        tracing::warn!(
            space = space.name,
            tenants = concerned.len(),
            "the search index does not hold all that these tenants' documents were put into: it is filled again, and until then their answers say that some are not found"
        );
    }
    Ok(true)
}

/// Nobody notes another index until the transaction ends. The first that it does: whoever notes one waits for those who share this, and
/// then for what they hold.
pub(crate) async fn share_noting(write: &mut Write) -> Result<()> {
    hold_noting(write, "pg_advisory_xact_lock_shared").await
}

/// Takes the lock of noting, where several processes can write.
async fn hold_noting(write: &mut Write, function: &str) -> Result<()> {
    if !write.is_postgres() {
        return Ok(());
    }
    let statement = AssertSqlSafe(format!("select {function}($1)"));
    Ok(on!(write, c => sqlx::query(statement).bind(NOTING).execute(c).await.map(drop))?)
}

/// The tenants who have something in this space.
async fn list_tenants(write: &mut Write, space: &str) -> Result<Vec<TenantId>> {
    Ok(on!(write, c => sqlx::query_scalar(
        "select distinct tenant_id from generation where space = $1 and state <> 'retired'",
    ).bind(space).fetch_all(c).await)?)
}

/// What these tenants' generations in this space held is to be put in again.
async fn mark_empty(write: &mut Write, space: &str, tenants: &[TenantId]) -> Result<()> {
    Ok(on!(write, c => {
        let mut query = QueryBuilder::new("update generation set is_filled = ");
        query.push_bind(false).push(concat!(
            ", filled_to = null, losses = losses + 1, place_document = null, done_count = 0, verified_to = null,
               chunk_count = (select count(*) from chunk c where c.tenant_id = generation.tenant_id and ", is_shown!("c"), ")
             where state <> 'retired' and space = ",
        ));
        query.push_bind(space).push(" and tenant_id in (");
        let mut list = query.separated(", ");
        tenants.iter().for_each(|tenant_id| {
            list.push_bind(*tenant_id);
        });
        query.push(")");
        query.build().execute(c).await.map(drop)
    })?)
}

async fn leave_waiting(write: &mut Write, tenants: &[TenantId]) -> Result<()> {
    Ok(on!(write, c => {
        let mut query = QueryBuilder::new(
            "update document_version set state = 'left' where state = 'waiting' and tenant_id in (",
        );
        let mut list = query.separated(", ");
        tenants.iter().for_each(|tenant_id| {
            list.push_bind(*tenant_id);
        });
        query.push(")");
        query.build().execute(c).await.map(drop)
    })?)
}
