//! The ledger and the budgets on every database there is: nothing is spent past a limit, nothing is held for ever, and
//! reports add up to what was booked.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use frontdesk::clock::{Clock, SystemClock};
use frontdesk::db::Db;
use frontdesk::error::Error;
use frontdesk::id::{ChatbotId, TenantId, UsageEventId};
use frontdesk::usage::report::{Filter, GroupBy, Report, report};
use frontdesk::usage::{self, Balance, Limit, Limits, Reservation, Spend, UsageEvent, UsageKind};
use frontdesk::{on, tenancy};

use crate::harness::databases::databases;

/// A tenant with one chatbot.
#[derive(Clone)]
struct Desk {
    db: Db,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
}

fn now() -> DateTime<Utc> {
    "2026-11-20T10:00:00Z".parse().expect("a time")
}

fn spend(tokens: i64, micro_usd: i64) -> Spend {
    Spend { tokens, micro_usd }
}

fn token_limits(tenant: Option<i64>, chatbot: Option<i64>) -> Limits {
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
    async fn open(db: &Db) -> Self {
        let (tenant, _) = tenancy::operator::create_tenant(db, &SystemClock, "acme")
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

    async fn with_another_chatbot(&self) -> Self {
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

    async fn reserve(
        &self,
        limits: &Limits,
        estimate: Spend,
        now: DateTime<Utc>,
    ) -> Result<Option<Reservation>, Error> {
        let mut write = self.db.write(self.tenant_id).await?;
        let reservation =
            usage::reserve(&mut write, limits, self.tenant_id, self.chatbot_id, estimate, now).await?;
        write.commit().await?;
        Ok(reservation)
    }

    async fn settle(&self, reservation: Option<Reservation>, events: &[UsageEvent], now: DateTime<Utc>) {
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

    async fn balances(&self, now: DateTime<Utc>) -> (Balance, Balance) {
        let mut conn = self.db.read(self.tenant_id).await.expect("a connection");
        let tenant = usage::balance(&mut conn, self.tenant_id, None, now)
            .await
            .expect("the tenant's balance");
        let chatbot = usage::balance(&mut conn, self.tenant_id, Some(self.chatbot_id), now)
            .await
            .expect("the chatbot's balance");
        (tenant, chatbot)
    }

    fn event(&self, prompt_tokens: i64, cost_micro_usd: i64) -> UsageEvent {
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
            cost_micro_usd,
            price_book_version: "1".to_owned(),
            local: false,
            reported: true,
            latency_ms: 12,
            created_at: now(),
        }
    }

    async fn report(&self, filter: &Filter, group_by: GroupBy) -> Report {
        let mut conn = self.db.read(self.tenant_id).await.expect("a connection");
        report(&mut conn, self.tenant_id, filter, group_by)
            .await
            .expect("a report")
    }
}

fn code(error: &Error) -> &'static str {
    match error {
        Error::BudgetExceeded { code, .. } => code,
        other => panic!("not a refused budget: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_turns_together_never_hold_more_than_the_limit() {
    for database in databases().await {
        let desk = Arc::new(Desk::open(&database.db).await);
        let limits = token_limits(Some(1_000), None);

        let turns = (0..40).map(|_| {
            let desk = Arc::clone(&desk);
            tokio::spawn(async move { desk.reserve(&limits, spend(100, 7), now()).await })
        });
        let mut held = Vec::new();
        for turn in turns.collect::<Vec<_>>() {
            match turn.await.expect("the turn runs") {
                Ok(reservation) => held.push(reservation.expect("there is a limit")),
                Err(error) => assert_eq!(code(&error), "token_budget_exceeded"),
            }
        }
        assert_eq!(held.len(), 10, "{}", database.engine);
        assert_eq!(desk.balances(now()).await.0.reserved, spend(1_000, 70));

        let settled = held.into_iter().map(|reservation| {
            let desk = Arc::clone(&desk);
            tokio::spawn(async move { desk.settle(Some(reservation), &[desk.event(80, 5)], now()).await })
        });
        for turn in settled.collect::<Vec<_>>() {
            turn.await.expect("the turn is settled");
        }

        let expected = Balance {
            used: spend(800, 50),
            reserved: spend(0, 0),
        };
        assert_eq!(
            desk.balances(now()).await,
            (expected, expected),
            "{}",
            database.engine
        );
        assert!(
            desk.reserve(&limits, spend(200, 0), now()).await.is_ok(),
            "what was not used is free again"
        );
        assert!(desk.reserve(&limits, spend(1, 0), now()).await.is_err());
    }
}

#[tokio::test]
async fn a_refusal_names_whose_limit_it_is_and_leaves_nothing_held() {
    for database in databases().await {
        let desk = Desk::open(&database.db).await;
        desk.settle(None, &[desk.event(90, 40)], now()).await;
        let by_cost = |micro_usd| Limits {
            chatbot: Limit {
                tokens: None,
                micro_usd: Some(micro_usd),
            },
            ..Limits::default()
        };

        for (limits, expected, holder) in [
            (
                token_limits(Some(100), Some(1_000)),
                "token_budget_exceeded",
                "tenant",
            ),
            (
                token_limits(Some(1_000), Some(100)),
                "token_budget_exceeded",
                "chatbot",
            ),
            (by_cost(45), "cost_budget_exceeded", "chatbot"),
            (token_limits(Some(5), None), "token_budget_exceeded", "tenant"),
        ] {
            let error = desk
                .reserve(&limits, spend(20, 10), now())
                .await
                .expect_err("it does not fit");

            assert_eq!(code(&error), expected, "{}", database.engine);
            assert!(
                error.to_string().contains(holder) && error.to_string().contains("2026-12-01"),
                "{error}"
            );
            let (tenant, chatbot) = desk.balances(now()).await;
            assert_eq!(
                (tenant.reserved, chatbot.reserved),
                (spend(0, 0), spend(0, 0)),
                "{}",
                database.engine
            );
        }
        assert!(
            desk.reserve(&by_cost(50), spend(20, 10), now()).await.is_ok(),
            "a limit may be used up"
        );
    }
}

#[tokio::test]
async fn a_refused_reservation_leaves_nothing_held_even_when_its_transaction_goes_on() {
    for database in databases().await {
        let desk = Desk::open(&database.db).await;
        desk.settle(None, &[desk.event(90, 0)], now()).await;
        let mut write = desk.db.write(desk.tenant_id).await.expect("a transaction");

        let refused = usage::reserve(
            &mut write,
            &token_limits(Some(1_000), Some(100)),
            desk.tenant_id,
            desk.chatbot_id,
            spend(20, 0),
            now(),
        )
        .await;
        write.commit().await.expect("the rest is stored");

        assert!(refused.is_err());
        assert_eq!(
            desk.balances(now()).await.0.reserved,
            spend(0, 0),
            "{}",
            database.engine
        );
    }
}

#[tokio::test]
async fn without_limits_nothing_is_held_but_everything_counts() {
    for database in databases().await {
        let desk = Desk::open(&database.db).await;
        let none = Limits::default();

        assert_eq!(
            desk.reserve(&none, spend(1_000_000, 1), now())
                .await
                .expect("no limit"),
            None
        );
        desk.settle(None, &[desk.event(60, 3), desk.event(30, 2)], now())
            .await;
        let mut by_this_machine = desk.event(5_000, 0);
        by_this_machine.local = true;
        desk.settle(None, &[by_this_machine], now()).await;

        assert_eq!(
            desk.balances(now()).await.0,
            Balance {
                used: spend(90, 5),
                reserved: spend(0, 0)
            },
            "{}",
            database.engine
        );
        let refused = desk
            .reserve(&token_limits(Some(100), None), spend(20, 0), now())
            .await;
        assert!(
            refused.is_err(),
            "a limit that is set in the middle of a month counts from its beginning"
        );
        let other = desk.with_another_chatbot().await;
        assert_eq!(
            other.balances(now()).await.1,
            Balance::default(),
            "each chatbot has its own"
        );
        assert_eq!(
            other.balances(now() + TimeDelta::days(11)).await.0,
            Balance::default(),
            "each month starts anew"
        );
    }
}

#[tokio::test]
async fn a_reservation_is_given_back_once_whoever_does_it() {
    for database in databases().await {
        let desk = Desk::open(&database.db).await;
        let limits = token_limits(None, Some(1_000));
        let reservation = desk
            .reserve(&limits, spend(100, 0), now())
            .await
            .expect("it fits")
            .expect("there is a limit");
        let other = desk
            .reserve(&limits, spend(50, 0), now())
            .await
            .expect("it fits")
            .expect("there is a limit");

        desk.settle(Some(reservation.clone()), &[desk.event(10, 0)], now())
            .await;
        desk.settle(Some(reservation.clone()), &[], now()).await;
        usage::release(&desk.db, reservation).await.expect("no effect");
        assert_eq!(
            desk.balances(now()).await.1,
            Balance {
                used: spend(10, 0),
                reserved: spend(50, 0)
            },
            "{}",
            database.engine
        );

        usage::release(&desk.db, other).await.expect("it is released");
        assert_eq!(desk.balances(now()).await.1.reserved, spend(0, 0));
    }
}

#[tokio::test]
async fn what_a_dead_turn_held_is_free_again_after_a_while() {
    for database in databases().await {
        let desk = Desk::open(&database.db).await;
        let limits = token_limits(Some(100), None);
        let dead = desk
            .reserve(&limits, spend(100, 0), now())
            .await
            .expect("it fits")
            .expect("there is a limit");

        assert_eq!(
            usage::release_expired_before(&desk.db, now() + TimeDelta::minutes(5))
                .await
                .expect("it runs"),
            0
        );
        assert!(
            desk.reserve(&limits, spend(1, 0), now()).await.is_err(),
            "a running turn keeps what it holds"
        );
        assert_eq!(
            usage::release_expired_before(&desk.db, now() + TimeDelta::hours(1))
                .await
                .expect("it runs"),
            1
        );
        assert_eq!(
            desk.balances(now()).await.0.reserved,
            spend(0, 0),
            "{}",
            database.engine
        );

        desk.settle(Some(dead), &[desk.event(70, 0)], now()).await;
        assert_eq!(
            desk.balances(now()).await.0,
            Balance {
                used: spend(70, 0),
                reserved: spend(0, 0)
            },
            "it was not dead: what it used counts"
        );
    }
}

#[tokio::test]
async fn a_turn_over_midnight_of_the_last_day_is_booked_in_the_new_month_and_freed_in_the_old_one() {
    for database in databases().await {
        let desk = Desk::open(&database.db).await;
        let (before, after) = (
            "2026-11-30T23:59:59Z".parse().expect("a time"),
            "2026-12-01T00:00:05Z".parse().expect("a time"),
        );
        let reservation = desk
            .reserve(&token_limits(Some(100), None), spend(100, 0), before)
            .await
            .expect("it fits");

        desk.settle(reservation, &[desk.event(30, 0)], after).await;

        assert_eq!(
            desk.balances(before).await.0,
            Balance::default(),
            "{}",
            database.engine
        );
        assert_eq!(
            desk.balances(after).await.0,
            Balance {
                used: spend(30, 0),
                reserved: spend(0, 0)
            }
        );
    }
}

#[tokio::test]
async fn reports_add_up_to_what_was_booked_by_whatever_they_are_grouped() {
    for database in databases().await {
        let desk = Desk::open(&database.db).await;
        let second = desk.with_another_chatbot().await;
        let stranger = Desk::open(&database.db).await;
        stranger
            .settle(None, &[stranger.event(1_000, 1_000)], now())
            .await;
        let late = UsageEvent {
            created_at: "2026-11-20T23:59:59.999999Z".parse().expect("a time"),
            channel: "widget".to_owned(),
            ..desk.event(20, 2)
        };
        let next_day = UsageEvent {
            created_at: "2026-11-21T00:00:00Z".parse().expect("a time"),
            model: "other".to_owned(),
            ..second.event(4, 1)
        };
        let embedding = UsageEvent {
            kind: UsageKind::Embedding,
            prompt_tokens: 0,
            embedding_tokens: 9,
            chatbot_id: None,
            ..desk.event(0, 0)
        };
        desk.settle(None, &[desk.event(100, 10), late, embedding], now())
            .await;
        second.settle(None, &[next_day], now()).await;
        let all = Filter::new(None, None, None).expect("everything");
        let (first_id, second_id) = (desk.chatbot_id.to_string(), second.chatbot_id.to_string());

        for (group_by, expected) in [
            (GroupBy::Day, vec![("2026-11-20", 120), ("2026-11-21", 4)]),
            (GroupBy::Model, vec![("other", 4), ("scripted", 120)]),
            (GroupBy::Channel, vec![("api", 104), ("widget", 20)]),
            (GroupBy::Chatbot, vec![("", 0), (&first_id, 120), (&second_id, 4)]),
        ] {
            let report = desk.report(&all, group_by).await;

            let lines: Vec<(&str, i64)> = report
                .lines
                .iter()
                .map(|line| (line.key.as_str(), line.prompt_tokens))
                .collect();
            assert_eq!(lines, expected, "{} {group_by:?}", database.engine);
            assert_eq!(
                (
                    report.total.prompt_tokens,
                    report.total.embedding_tokens,
                    report.total.cost_micro_usd,
                    report.total.calls
                ),
                (124, 9, 13, 4)
            );
        }
        let first_day = Filter::new(Some("2026-11-20"), Some("2026-11-20"), None).expect("a day");
        assert_eq!(
            desk.report(&first_day, GroupBy::Day).await.total.prompt_tokens,
            120,
            "{}",
            database.engine
        );
        let one_chatbot = Filter::new(None, None, Some(second.chatbot_id)).expect("a chatbot");
        assert_eq!(
            desk.report(&one_chatbot, GroupBy::Model)
                .await
                .total
                .prompt_tokens,
            4,
            "{}",
            database.engine
        );
        let foreign = Filter::new(None, None, Some(stranger.chatbot_id)).expect("a chatbot");
        assert_eq!(
            desk.report(&foreign, GroupBy::Model).await.total.calls,
            0,
            "{}",
            database.engine
        );
    }
}

#[tokio::test]
async fn limits_are_read_from_both_rows_and_another_tenants_chatbot_is_absent() {
    for database in databases().await {
        let desk = Desk::open(&database.db).await;
        let stranger = Desk::open(&database.db).await;
        let mut write = desk.db.write(desk.tenant_id).await.expect("a transaction");
        on!(write, c => sqlx::query("update chatbot set monthly_token_limit = 7, monthly_cost_limit_micro_usd = 8 where id = $1").bind(desk.chatbot_id).execute(c).await.map(drop)).expect("a limit");
        on!(write, c => sqlx::query("update tenant set monthly_token_limit = 9 where id = $1").bind(desk.tenant_id).execute(c).await.map(drop)).expect("a limit");

        let limits = usage::load_limits(&mut write, desk.tenant_id, desk.chatbot_id)
            .await
            .expect("limits");
        let foreign = usage::load_limits(&mut write, desk.tenant_id, stranger.chatbot_id).await;

        let expected = Limits {
            tenant: Limit {
                tokens: Some(9),
                micro_usd: None,
            },
            chatbot: Limit {
                tokens: Some(7),
                micro_usd: Some(8),
            },
        };
        assert_eq!(limits, expected, "{}", database.engine);
        assert!(matches!(foreign, Err(Error::NotFound("chatbot"))));
    }
}
