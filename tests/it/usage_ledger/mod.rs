//! The ledger and the budgets on every database there is: nothing is spent past a limit, nothing is held for ever, and
//! reports add up to what was booked.

mod abandoned;
mod booking;
mod reserving;
mod sequences;

use chrono::{DateTime, Utc};
use frontdesk::clock::{Clock, SystemClock};
use frontdesk::db::Db;
use frontdesk::error::Error;
use frontdesk::id::{ChatbotId, TenantId, UsageEventId};
use frontdesk::usage::report::{Filter, GroupBy, Report, report};
use frontdesk::usage::{self, Balance, Limit, Limits, Reservation, Spend, UsageEvent, UsageKind};
use frontdesk::{on, tenancy};

/// A tenant with one chatbot.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) db: Db,
    pub(super) tenant_id: TenantId,
    pub(super) chatbot_id: ChatbotId,
}

pub(super) fn now() -> DateTime<Utc> {
    "2026-11-20T10:00:00Z".parse().expect("a time")
}

pub(super) fn spend(tokens: i64, micro_usd: i64) -> Spend {
    Spend { tokens, micro_usd }
}

pub(super) fn token_limits(tenant: Option<i64>, chatbot: Option<i64>) -> Limits {
    Limits {
        tenant: Limit {
            tokens: tenant,
            micro_usd: None,
        },
        chatbot: Limit {
            tokens: chatbot,
            micro_usd: None,
        },
    }
}

impl Desk {
    pub(super) async fn open(db: &Db) -> Self {
        let (tenant, _) =
            tenancy::operator::create_tenant(db, &SystemClock, "acme", tenancy::Caps::default())
                .await
                .expect("a tenant");
        Self {
            db: db.clone(),
            tenant_id: tenant.id,
            chatbot_id: ChatbotId::new(),
        }
        .with_another_chatbot()
        .await
    }

    pub(super) async fn with_another_chatbot(&self) -> Self {
        let chatbot_id = ChatbotId::new();
        let mut write = self.db.write(self.tenant_id).await.expect("a transaction");
        on!(write, c => sqlx::query(
            "insert into chatbot (id, tenant_id, name, prompt, no_answer_text, max_passages, min_similarity, allowed_origins, created_at, updated_at)
             values ($1, $2, 'desk', '', 'no', 5, 0.2, $3, $4, $4)",
        ).bind(chatbot_id).bind(self.tenant_id).bind(sqlx::types::Json(Vec::<String>::new())).bind(SystemClock.now()).execute(c).await.map(drop))
        .expect("a chatbot");
        write.commit().await.expect("it is stored");
        Self {
            chatbot_id,
            ..self.clone()
        }
    }

    pub(super) async fn reserve(
        &self,
        limits: &Limits,
        estimate: Spend,
        now: DateTime<Utc>,
    ) -> Result<Option<Reservation>, Error> {
        let mut write = self.db.write(self.tenant_id).await?;
        let reservation =
            usage::reserve(&mut write, limits, self.holders(), estimate, Vec::new(), now).await?;
        write.commit().await?;
        Ok(reservation)
    }

    /// Reserves for a call that begins, and that may take all of it.
    pub(super) async fn begin_call(
        &self,
        limits: &Limits,
        estimate: Spend,
        now: DateTime<Utc>,
    ) -> Result<Reservation, Error> {
        let call = UsageEvent {
            estimated: true,
            ..self.event(estimate.tokens, estimate.micro_usd)
        };
        let mut write = self.db.write(self.tenant_id).await?;
        let reservation =
            usage::reserve(&mut write, limits, self.holders(), estimate, vec![call], now).await?;
        write.commit().await?;
        Ok(reservation.expect("there is a call"))
    }

    fn holders(&self) -> (TenantId, ChatbotId) {
        (self.tenant_id, self.chatbot_id)
    }

    pub(super) async fn settle(
        &self,
        reservation: Option<Reservation>,
        events: &[UsageEvent],
        now: DateTime<Utc>,
    ) {
        let mut write = self.db.write(self.tenant_id).await.expect("a transaction");
        usage::settle(
            &mut write,
            self.tenant_id,
            self.chatbot_id,
            reservation,
            events,
            now,
        )
        .await
        .expect("it is settled");
        write.commit().await.expect("it is stored");
    }

    pub(super) async fn balances(&self, now: DateTime<Utc>) -> (Balance, Balance) {
        let mut conn = self.db.read(self.tenant_id).await.expect("a connection");
        let tenant = usage::balance(&mut conn, self.tenant_id, None, now)
            .await
            .expect("the tenant's balance");
        let chatbot = usage::balance(&mut conn, self.tenant_id, Some(self.chatbot_id), now)
            .await
            .expect("the chatbot's balance");
        (tenant, chatbot)
    }

    pub(super) fn event(&self, prompt_tokens: i64, cost_micro_usd: i64) -> UsageEvent {
        UsageEvent {
            id: UsageEventId::new(),
            tenant_id: self.tenant_id,
            chatbot_id: Some(self.chatbot_id),
            conversation_id: None,
            message_id: None,
            channel: "api".to_owned(),
            kind: UsageKind::Chat,
            model: "scripted".to_owned(),
            prompt_tokens,
            completion_tokens: 0,
            cached_tokens: 0,
            embedding_tokens: 0,
            audio_seconds: 0,
            cost_micro_usd,
            price_book_version: "1".to_owned(),
            local: false,
            reported: true,
            estimated: false,
            latency_ms: 12,
            created_at: now(),
        }
    }

    pub(super) async fn report(&self, filter: &Filter, group_by: GroupBy) -> Report {
        let mut conn = self.db.read(self.tenant_id).await.expect("a connection");
        report(&mut conn, self.tenant_id, filter, group_by)
            .await
            .expect("a report")
    }
}

pub(super) fn code(error: &Error) -> &'static str {
    match error {
        Error::BudgetExceeded { code, .. } => code,
        other => panic!("not a refused budget: {other:?}"),
    }
}
