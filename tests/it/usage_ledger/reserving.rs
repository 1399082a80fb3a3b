//! Nothing is spent past a limit, and nothing is held for ever.

use std::sync::Arc;

use frontdesk::usage::{self, Balance, Limit, Limits};

use super::{Desk, code, now, spend, token_limits};
use crate::harness::databases::databases;

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
            (desk.tenant_id, desk.chatbot_id),
            spend(20, 0),
            Vec::new(),
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
