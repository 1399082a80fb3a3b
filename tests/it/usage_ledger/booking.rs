//! What was spent counts, in its month, and reports add up to it.

use chrono::TimeDelta;
use frontdesk::error::Error;
use frontdesk::on;
use frontdesk::usage::report::{Filter, GroupBy};
use frontdesk::usage::{self, Balance, Limit, Limits, UsageEvent, UsageKind};

use super::{Desk, now, spend, token_limits};
use crate::harness::databases::databases;

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
            usage::book_lapsed_before(&desk.db, now() + TimeDelta::minutes(5))
                .await
                .expect("it runs"),
            0
        );
        assert!(
            desk.reserve(&limits, spend(1, 0), now()).await.is_err(),
            "a running turn keeps what it holds"
        );
        assert_eq!(
            usage::book_lapsed_before(&desk.db, now() + TimeDelta::hours(1))
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
async fn a_call_whose_turn_died_is_booked_once_as_it_was_reserved() {
    for database in databases().await {
        for limits in [Limits::default(), token_limits(Some(1_000), None)] {
            let desk = Desk::open(&database.db).await;
            let dead = desk
                .begin_call(&limits, spend(100, 7), now())
                .await
                .expect("it fits");
            let lapse = async |minutes: i64| {
                usage::book_lapsed_before(&desk.db, now() + TimeDelta::minutes(minutes))
                    .await
                    .expect("it runs")
            };

            assert_eq!(lapse(14).await, 0, "a turn may live as long");
            let (one, other) = tokio::join!(lapse(16), lapse(16));

            assert_eq!(one + other, 1, "{}", database.engine);
            let booked = Balance {
                used: spend(100, 7),
                reserved: spend(0, 0),
            };
            assert_eq!(
                desk.balances(now()).await,
                (booked, booked),
                "{}",
                database.engine
            );
            let all = Filter::new(None, None, None).expect("everything");
            let total = desk.report(&all, GroupBy::Day).await.total;
            assert_eq!(
                (
                    total.calls,
                    total.estimated_calls,
                    total.prompt_tokens,
                    total.cost_micro_usd
                ),
                (1, 1, 100, 7)
            );

            let late = now() + TimeDelta::minutes(17);
            desk.settle(Some(dead), &[desk.event(70, 5)], late).await;
            assert_eq!(
                desk.balances(now()).await.0,
                booked,
                "{}: it was not dead, and its call is in the books",
                database.engine
            );
        }
    }
}

#[tokio::test]
async fn a_turn_that_ends_in_time_is_booked_as_it_was_and_leaves_nothing_that_lapses() {
    for database in databases().await {
        for limits in [Limits::default(), token_limits(Some(1_000), None)] {
            let desk = Desk::open(&database.db).await;
            let (whole, refused) = (
                desk.begin_call(&limits, spend(100, 7), now()).await,
                desk.begin_call(&limits, spend(50, 3), now()).await,
            );

            let in_time = now() + TimeDelta::minutes(3);
            desk.settle(whole.ok(), &[desk.event(60, 4)], in_time).await;
            desk.settle(refused.ok(), &[], in_time).await;
            let lapsed = usage::book_lapsed_before(&desk.db, now() + TimeDelta::hours(1))
                .await
                .expect("it runs");

            assert_eq!(lapsed, 0, "{}", database.engine);
            assert_eq!(
                desk.balances(now()).await.0,
                Balance {
                    used: spend(60, 4),
                    reserved: spend(0, 0)
                },
                "{}",
                database.engine
            );
            let all = Filter::new(None, None, None).expect("everything");
            let total = desk.report(&all, GroupBy::Day).await.total;
            assert_eq!((total.calls, total.estimated_calls), (1, 0));
        }
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
