//! Work across tenants: what turns that died held is free again, and the calls they had begun are booked.

use chrono::{DateTime, Utc};

use super::{CLOSE_TO_LAPSING, RESERVATION_LIFETIME, Reservation, book};
use crate::app::App;
use crate::db::{Db, Scope};
use crate::error::Result;
use crate::on;

/// Reservations in one transaction, so that it stays short.
const BATCH: i64 = 200;

/// Books what every lapsed reservation was made for; returns how many lapsed. Safe to run anywhere at any time: whoever
/// deletes a reservation books its calls.
pub async fn book_lapsed(app: &App) -> Result<u64> {
    book_lapsed_before(&app.db, app.clock.now()).await
}

/// Like [`book_lapsed`], at the start of the only process that works on this database: nobody's turn is alive.
pub async fn book_all_lapsed(app: &App) -> Result<u64> {
    match &app.db {
        Db::Sqlite { .. } => {
            let after_all = app.clock.now() + RESERVATION_LIFETIME + CLOSE_TO_LAPSING;
            book_lapsed_before(&app.db, after_all).await
        }
        Db::Postgres(_) => book_lapsed(app).await,
    }
}

/// Like [`book_lapsed`], for what has lapsed at `now`.
pub async fn book_lapsed_before(db: &Db, now: DateTime<Utc>) -> Result<u64> {
    let (mut lapsed, mut calls) = (0, 0);
    loop {
        let mut write = db.write(Scope::Operator).await?;
        let batch: Vec<Reservation> = on!(write, c => sqlx::query_as(
            "delete from reservation
              where id in (select id from reservation where expires_at < $1 order by expires_at, id limit $2)
              returning id, tenant_id, chatbot_id, period, tokens, micro_usd, calls, expires_at",
        ).bind(now).bind(BATCH).fetch_all(c).await)?;
        for reservation in &batch {
            let holders = (reservation.tenant_id, reservation.chatbot_id);
            // In the month in which the calls were made.
            book(
                &mut write,
                holders,
                &reservation.period,
                &reservation.calls,
                reservation.spend(),
            )
            .await?;
        }
        write.commit().await?;
        lapsed += batch.len() as u64;
        calls += batch
            .iter()
            .map(|reservation| reservation.calls.len())
            .sum::<usize>();
        if batch.len() < BATCH as usize {
            break;
        }
    }
    if calls > 0 {
        tracing::warn!(
            calls,
            "calls whose process ended are booked as they were reserved"
        );
    }
    Ok(lapsed)
}
