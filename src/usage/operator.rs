//! Work across tenants: giving back what crashed turns still hold.

use chrono::{DateTime, Utc};

use super::{Reservation, store};
use crate::app::App;
use crate::db::{Db, Scope};
use crate::error::Result;
use crate::on;

/// Reservations in one transaction, so that it stays short.
const BATCH: i64 = 200;

/// Gives back every reservation that has expired; returns how many. Safe to run anywhere at any time.
pub async fn release_expired(app: &App) -> Result<u64> {
    release_expired_before(&app.db, app.clock.now()).await
}

/// Like [`release_expired`], for what has expired at `now`.
pub async fn release_expired_before(db: &Db, now: DateTime<Utc>) -> Result<u64> {
    let mut released = 0;
    loop {
        let mut write = db.write(Scope::Operator).await?;
        let expired: Vec<Reservation> = on!(write, c => sqlx::query_as(
            "delete from reservation
              where id in (select id from reservation where expires_at < $1 order by expires_at, id limit $2)
              returning id, tenant_id, chatbot_id, period, tokens, micro_usd",
        ).bind(now).bind(BATCH).fetch_all(c).await)?;
        for reservation in &expired {
            store::give_back(&mut write, reservation, store::Held::BOTH).await?;
        }
        write.commit().await?;
        released += expired.len() as u64;
        if expired.len() < BATCH as usize {
            return Ok(released);
        }
    }
}
