//! SQL of the ledger and the budgets.

use std::sync::LazyLock;

use sqlx::types::Json;
use sqlx::{AssertSqlSafe, FromRow};
use uuid::Uuid;

use super::export::LedgerLine;
use super::report::{Filter, GroupBy, ReportLine};
use super::{Balance, Limit, Limits, Reservation, Spend, UsageEvent};
use crate::db::{Conn, Write};
use crate::error::Result;
use crate::id::{ChatbotId, TenantId};
use crate::on;

/// Parameters of one event, the tenant apart.
const VALUES_PER_EVENT: usize = 18;

/// Events in one statement. A turn has two.
const EVENTS_PER_INSERT: usize = 4;

/// In whose budgets a reservation is held.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    pub(super) tenant: bool,
    pub(super) chatbot: bool,
}

impl Held {
    pub(super) const BOTH: Self = Self {
        tenant: true,
        chatbot: true,
    };
}

#[derive(FromRow)]
struct LimitsRow {
    tenant_tokens: Option<i64>,
    tenant_micro_usd: Option<i64>,
    chatbot_tokens: Option<i64>,
    chatbot_micro_usd: Option<i64>,
}

/// The limits on the rows of the tenant and the chatbot. They are those rooms' columns; read here together because
/// every turn needs both, in one statement.
pub(super) async fn find_limits(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
) -> Result<Option<Limits>> {
    let row: Option<LimitsRow> = on!(conn, c => sqlx::query_as(
        "select t.monthly_token_limit as tenant_tokens,
                t.monthly_cost_limit_micro_usd as tenant_micro_usd,
                b.monthly_token_limit as chatbot_tokens,
                b.monthly_cost_limit_micro_usd as chatbot_micro_usd
           from chatbot b
           join tenant t on t.id = b.tenant_id
          where b.tenant_id = $1
            and b.id = $2
            and b.deleted_at is null",
    ).bind(tenant_id).bind(chatbot_id).fetch_optional(c).await)?;
    Ok(row.map(|row| Limits {
        tenant: Limit {
            tokens: row.tenant_tokens,
            micro_usd: row.tenant_micro_usd,
        },
        chatbot: Limit {
            tokens: row.chatbot_tokens,
            micro_usd: row.chatbot_micro_usd,
        },
    }))
}

/// The limits on the tenant's row alone.
pub(super) async fn find_tenant_limit(conn: &mut Conn, tenant_id: TenantId) -> Result<Option<Limit>> {
    let row: Option<(Option<i64>, Option<i64>)> = on!(conn, c => sqlx::query_as("select monthly_token_limit, monthly_cost_limit_micro_usd from tenant where id = $1")
            .bind(tenant_id).fetch_optional(c).await)?;
    Ok(row.map(|(tokens, micro_usd)| Limit { tokens, micro_usd }))
}

/// Adds the reservation to what both holders hold, each only where its limit allows it, in one statement.
///
/// The tenant's row comes first everywhere, so that two turns never wait for each other's.
pub(super) async fn hold(conn: &mut Conn, reservation: &Reservation, limits: &Limits) -> Result<Held> {
    let holders: Vec<Uuid> = on!(conn, c => sqlx::query_scalar(
        "insert into budget (tenant_id, holder_id, period, used_tokens, used_micro_usd, reserved_tokens, reserved_micro_usd)
         values ($1, $1, $3, 0, 0, $4, $5), ($1, $2, $3, 0, 0, $4, $5)
         on conflict (tenant_id, holder_id, period) do update
            set reserved_tokens = budget.reserved_tokens + excluded.reserved_tokens,
                reserved_micro_usd = budget.reserved_micro_usd + excluded.reserved_micro_usd
          where budget.used_tokens + budget.reserved_tokens <= case when excluded.holder_id = $1 then $6 else $8 end - excluded.reserved_tokens
            and budget.used_micro_usd + budget.reserved_micro_usd <= case when excluded.holder_id = $1 then $7 else $9 end - excluded.reserved_micro_usd
         returning holder_id",
    ).bind(reservation.tenant_id.0).bind(reservation.chatbot_id.0).bind(&reservation.period)
     .bind(reservation.tokens).bind(reservation.micro_usd)
     .bind(limits.tenant.tokens.unwrap_or(i64::MAX)).bind(limits.tenant.micro_usd.unwrap_or(i64::MAX))
     .bind(limits.chatbot.tokens.unwrap_or(i64::MAX)).bind(limits.chatbot.micro_usd.unwrap_or(i64::MAX))
     .fetch_all(c).await)?;
    Ok(Held {
        tenant: holders.contains(&reservation.tenant_id.0),
        chatbot: holders.contains(&reservation.chatbot_id.0),
    })
}

/// Takes the reservation out of what its holders hold.
pub(super) async fn give_back(conn: &mut Conn, reservation: &Reservation, held: Held) -> Result<()> {
    let holder = |held: bool, id: Uuid| held.then_some(id);
    on!(conn, c => sqlx::query(
        "update budget
            set reserved_tokens = reserved_tokens - $5,
                reserved_micro_usd = reserved_micro_usd - $6
          where tenant_id = $1
            and period = $4
            and (holder_id = $2 or holder_id = $3)",
    ).bind(reservation.tenant_id).bind(holder(held.tenant, reservation.tenant_id.0)).bind(holder(held.chatbot, reservation.chatbot_id.0))
     .bind(&reservation.period).bind(reservation.tokens).bind(reservation.micro_usd).execute(c).await.map(drop))?;
    Ok(())
}

pub(super) async fn insert_reservation(write: &mut Write, reservation: &Reservation) -> Result<()> {
    let insert = write.put(
        "insert into reservation (id, tenant_id, chatbot_id, period, tokens, micro_usd, calls, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
    );
    insert
        .bind(reservation.id)
        .bind(reservation.tenant_id)
        .bind(reservation.chatbot_id)
        .bind(&reservation.period)
        .bind(reservation.tokens)
        .bind(reservation.micro_usd)
        .bind(Json(&reservation.calls.0))
        .bind(reservation.expires_at)
        .run()
        .await
}

/// Deletes the reservation, whether or not it is there.
pub(super) async fn forget_reservation(write: &mut Write, reservation: &Reservation) -> Result<()> {
    let delete = write.put("delete from reservation where tenant_id = $1 and id = $2");
    delete
        .bind(reservation.tenant_id)
        .bind(reservation.id)
        .run()
        .await
}

/// Deletes the reservation. False when it is gone already: whoever deleted it gave its share back.
pub(super) async fn delete_reservation(conn: &mut Conn, reservation: &Reservation) -> Result<bool> {
    let deleted = on!(conn, c => sqlx::query("delete from reservation where tenant_id = $1 and id = $2")
        .bind(reservation.tenant_id).bind(reservation.id).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(deleted == 1)
}

/// Adds `spent` to the month of both holders and takes `freed` out of what they hold.
pub(super) async fn book(
    write: &mut Write,
    (tenant_id, chatbot_id): (TenantId, ChatbotId),
    period: &str,
    spent: Spend,
    freed: Spend,
) -> Result<()> {
    let upsert = write.put(
        "insert into budget (tenant_id, holder_id, period, used_tokens, used_micro_usd, reserved_tokens, reserved_micro_usd)
         values ($1, $1, $3, $4, $5, 0, 0), ($1, $2, $3, $4, $5, 0, 0)
         on conflict (tenant_id, holder_id, period) do update
            set used_tokens = budget.used_tokens + excluded.used_tokens,
                used_micro_usd = budget.used_micro_usd + excluded.used_micro_usd,
                reserved_tokens = budget.reserved_tokens - $6,
                reserved_micro_usd = budget.reserved_micro_usd - $7",
    );
    upsert
        .bind(tenant_id.0)
        .bind(chatbot_id.0)
        .bind(period)
        .bind(spent.tokens)
        .bind(spent.micro_usd)
        .bind(freed.tokens)
        .bind(freed.micro_usd)
        .run()
        .await
}

/// Writes ledger lines of one tenant.
pub(super) async fn insert_events(
    write: &mut Write,
    tenant_id: TenantId,
    events: &[UsageEvent],
) -> Result<()> {
    for events in events.chunks(EVENTS_PER_INSERT) {
        let mut insert = write.put(&INSERT_TEXTS[events.len() - 1]).bind(tenant_id);
        for event in events {
            insert = insert
                .bind(event.id)
                .bind(event.chatbot_id)
                .bind(event.conversation_id)
                .bind(event.message_id)
                .bind(&event.channel)
                .bind(event.kind.name())
                .bind(&event.model)
                .bind(event.prompt_tokens)
                .bind(event.completion_tokens)
                .bind(event.cached_tokens)
                .bind(event.embedding_tokens)
                .bind(event.cost_micro_usd)
                .bind(&event.price_book_version)
                .bind(event.reported)
                .bind(event.estimated)
                .bind(event.latency_ms)
                .bind(event.created_at)
                .bind(event.audio_seconds);
        }
        insert.run().await?;
    }
    Ok(())
}

/// The inserts of one event and of more, each a text that stays prepared.
static INSERT_TEXTS: LazyLock<Vec<String>> =
    LazyLock::new(|| (1..=EVENTS_PER_INSERT).map(insert_text).collect());

/// One insert of `rows` events: the tenant is the first parameter, then 18 for each row.
fn insert_text(rows: usize) -> String {
    let mut text = String::from(
        "insert into usage_event (tenant_id, id, chatbot_id, conversation_id, message_id, channel, kind, model, prompt_tokens, completion_tokens,
                cached_tokens, embedding_tokens, cost_micro_usd, price_book_version, reported, estimated, latency_ms, created_at, audio_seconds)
         values ",
    );
    for row in 0..rows {
        text.push_str(if row == 0 { "($1" } else { ", ($1" });
        for column in 0..VALUES_PER_EVENT {
            text.push_str(", $");
            text.push_str(&(2 + row * VALUES_PER_EVENT + column).to_string());
        }
        text.push(')');
    }
    text
}

/// What the month of `period` says of the tenant and of the chatbot; nothing is zero.
pub(super) async fn find_balances(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
    period: &str,
) -> Result<(Balance, Balance)> {
    let rows: Vec<(Uuid, i64, i64, i64, i64)> = on!(conn, c => sqlx::query_as(
        "select holder_id, used_tokens, used_micro_usd, reserved_tokens, reserved_micro_usd
           from budget
          where tenant_id = $1
            and holder_id in ($1, $2)
            and period = $3",
    ).bind(tenant_id.0).bind(chatbot_id.0).bind(period).fetch_all(c).await)?;
    let of = |holder: Uuid| {
        let row = rows.iter().find(|row| row.0 == holder);
        row.map_or_else(
            Balance::default,
            |&(_, used_tokens, used_micro_usd, reserved_tokens, reserved_micro_usd)| Balance {
                used: Spend {
                    tokens: used_tokens,
                    micro_usd: used_micro_usd,
                },
                reserved: Spend {
                    tokens: reserved_tokens,
                    micro_usd: reserved_micro_usd,
                },
            },
        )
    };
    Ok((of(tenant_id.0), of(chatbot_id.0)))
}

/// What the month of `period` says of one holder; nothing is zero.
pub(super) async fn find_balance(
    conn: &mut Conn,
    tenant_id: TenantId,
    holder_id: Uuid,
    period: &str,
) -> Result<Balance> {
    let row: Option<(i64, i64, i64, i64)> = on!(conn, c => sqlx::query_as(
        "select used_tokens, used_micro_usd, reserved_tokens, reserved_micro_usd
           from budget
          where tenant_id = $1
            and holder_id = $2
            and period = $3",
    ).bind(tenant_id).bind(holder_id).bind(period).fetch_optional(c).await)?;
    Ok(row.map_or_else(
        Balance::default,
        |(used_tokens, used_micro_usd, reserved_tokens, reserved_micro_usd)| Balance {
            used: Spend {
                tokens: used_tokens,
                micro_usd: used_micro_usd,
            },
            reserved: Spend {
                tokens: reserved_tokens,
                micro_usd: reserved_micro_usd,
            },
        },
    ))
}

/// Sums of the ledger by what `filter` and `group_by` say, ordered by key.
pub(super) async fn sum_events(
    conn: &mut Conn,
    tenant_id: TenantId,
    filter: &Filter,
    group_by: GroupBy,
) -> Result<Vec<ReportLine>> {
    // The engines keep times and ids in different forms.
    let key = match (group_by, conn.is_postgres()) {
        (GroupBy::Day, true) => "to_char(created_at at time zone 'utc', 'YYYY-MM-DD')",
        (GroupBy::Day, false) => "substr(created_at, 1, 10)",
        (GroupBy::Chatbot, true) => "coalesce(cast(chatbot_id as text), '')",
        (GroupBy::Chatbot, false) => "coalesce(lower(hex(chatbot_id)), '')",
        (GroupBy::Model, _) => "model",
        (GroupBy::Channel, _) => "channel",
    };
    let text = format!(
        "select {key} as key,
                cast(sum(prompt_tokens) as bigint) as prompt_tokens,
                cast(sum(completion_tokens) as bigint) as completion_tokens,
                cast(sum(cached_tokens) as bigint) as cached_tokens,
                cast(sum(embedding_tokens) as bigint) as embedding_tokens,
                cast(sum(audio_seconds) as bigint) as audio_seconds,
                cast(sum(cost_micro_usd) as bigint) as cost_micro_usd,
                count(*) as calls,
                cast(sum(case when estimated then 1 else 0 end) as bigint) as estimated_calls
           from usage_event
          where tenant_id = $1
            and created_at >= $2
            and created_at < $3
            and ($4 is null or chatbot_id = $4)
          group by 1
          order by 1"
    );
    Ok(on!(conn, c => sqlx::query_as(AssertSqlSafe(text))
        .bind(tenant_id).bind(filter.from).bind(filter.until).bind(filter.chatbot_id).fetch_all(c).await)?)
}

/// The next `limit` lines of the ledger after the line `after`, oldest first.
pub(super) async fn list_events(
    conn: &mut Conn,
    tenant_id: TenantId,
    filter: &Filter,
    after: Uuid,
    limit: i64,
) -> Result<Vec<LedgerLine>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select id, chatbot_id, conversation_id, message_id, channel, kind, model, prompt_tokens, completion_tokens, cached_tokens,
                embedding_tokens, audio_seconds, cost_micro_usd, price_book_version, reported, estimated, latency_ms, created_at
           from usage_event
          where tenant_id = $1
            and id > $2
            and created_at >= $3
            and created_at < $4
            and ($5 is null or chatbot_id = $5)
          order by id
          limit $6",
    ).bind(tenant_id).bind(after).bind(filter.from).bind(filter.until).bind(filter.chatbot_id).bind(limit).fetch_all(c).await)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_every_row_has_its_own_parameter() {
        let text = insert_text(3);

        let numbers: Vec<usize> = text
            .split('$')
            .skip(1)
            .map(|rest| {
                rest.split([',', ')'])
                    .next()
                    .and_then(|digits| digits.parse().ok())
                    .expect("a number")
            })
            .collect();

        let own: Vec<usize> = numbers.iter().copied().filter(|number| *number != 1).collect();
        assert_eq!(own, (2..2 + 3 * VALUES_PER_EVENT).collect::<Vec<_>>());
        assert_eq!(numbers.len() - own.len(), 3, "each row has the tenant");
    }
}
