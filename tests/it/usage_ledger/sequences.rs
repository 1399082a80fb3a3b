//! Whatever turns do one after another, the month's sums are what a simple account of it says.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use frontdesk::usage::{self, Balance, Limits, Reservation, Spend};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::{Desk, code, now, spend};
use crate::harness::databases::databases;

const SEQUENCES: usize = 12;
const LIMIT: i64 = 1_000;

/// One thing that happens; numbers choose among the chatbots and among what is held.
#[derive(Clone, Debug)]
enum Step {
    Reserve {
        desk: usize,
        wish: Spend,
    },
    Settle {
        held: usize,
        cost: Spend,
    },
    /// With what was settled or released before: nothing may come of it.
    SettleAgain {
        cost: Spend,
    },
    Release {
        held: usize,
    },
    /// All turns die; upkeep comes when what they held has lapsed, and books it.
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    let amount = || (0..400_i64, 0..90_i64).prop_map(|(tokens, micro_usd)| spend(tokens, micro_usd));
    prop_oneof![
        4 => (0..2_usize, amount()).prop_map(|(desk, wish)| Step::Reserve { desk, wish }),
        3 => (any::<usize>(), amount()).prop_map(|(held, cost)| Step::Settle { held, cost }),
        1 => amount().prop_map(|cost| Step::SettleAgain { cost }),
        2 => any::<usize>().prop_map(|held| Step::Release { held }),
        1 => Just(Step::Expire),
    ]
}

/// What the books should say: of the tenant, and of each chatbot.
#[derive(Default)]
struct Account {
    used: [Spend; 2],
    held: Vec<(usize, Reservation)>,
    done: Vec<(usize, Reservation)>,
}

impl Account {
    fn of(&self, desk: Option<usize>) -> Balance {
        let is_its = |index: usize| desk.is_none_or(|desk| desk == index);
        let used = (0..2)
            .filter(|index| is_its(*index))
            .map(|index| self.used[index]);
        let held = self.held.iter().filter(|(index, _)| is_its(*index));
        Balance {
            used: used.fold(Spend::default(), Spend::plus),
            reserved: held
                .map(|(_, held)| spend(held.tokens, held.micro_usd))
                .fold(Spend::default(), Spend::plus),
        }
    }
}

#[tokio::test]
async fn after_any_sequence_of_steps_the_sums_are_those_of_the_steps() {
    let mut runner = TestRunner::deterministic();
    for database in databases().await {
        for _ in 0..SEQUENCES {
            let steps = prop::collection::vec(step(), 1..40)
                .new_tree(&mut runner)
                .expect("a sequence")
                .current();
            let first = Desk::open(&database.db).await;
            let desks = [first.with_another_chatbot().await, first];
            walk(&desks, &steps).await;
        }
    }
}

async fn walk(desks: &[Desk; 2], steps: &[Step]) {
    let mut limits = Limits::default();
    limits.tenant.tokens = Some(LIMIT);
    let mut account = Account::default();
    let mut time = now();
    for step in steps {
        take(desks, &limits, &mut account, &mut time, step).await;
        let mut seen = HashMap::new();
        for (index, desk) in desks.iter().enumerate() {
            let (tenant, chatbot) = desk.balances(time).await;
            assert_eq!(tenant, account.of(None), "{step:?} of {steps:?}");
            seen.insert(index, chatbot);
        }
        for (index, chatbot) in seen {
            assert_eq!(chatbot, account.of(Some(index)), "{step:?} of {steps:?}");
        }
    }
}

async fn take(
    desks: &[Desk; 2],
    limits: &Limits,
    account: &mut Account,
    time: &mut DateTime<Utc>,
    step: &Step,
) {
    match step {
        Step::Reserve { desk, wish } => {
            let taken = account.of(None);
            let fits = taken.used.tokens + taken.reserved.tokens + wish.tokens <= LIMIT;
            match desks[*desk].begin_call(limits, *wish, *time).await {
                Ok(held) => {
                    assert!(fits, "{wish:?} was reserved beside {taken:?}");
                    account.held.push((*desk, held));
                }
                Err(error) => {
                    assert!(!fits, "{wish:?} was refused beside {taken:?}");
                    assert_eq!(code(&error), "token_budget_exceeded");
                }
            }
        }
        Step::Settle { held, cost } if !account.held.is_empty() => {
            let (desk, reservation) = account.held.swap_remove(held % account.held.len());
            let event = desks[desk].event(cost.tokens, cost.micro_usd);
            desks[desk]
                .settle(Some(reservation.clone()), &[event], *time)
                .await;
            account.used[desk] = account.used[desk].plus(*cost);
            account.done.push((desk, reservation));
        }
        Step::SettleAgain { cost } => {
            let Some((desk, reservation)) = account.done.last().cloned() else {
                return;
            };
            let event = desks[desk].event(cost.tokens, cost.micro_usd);
            desks[desk].settle(Some(reservation), &[event], *time).await;
        }
        Step::Release { held } if !account.held.is_empty() => {
            let (desk, reservation) = account.held.swap_remove(held % account.held.len());
            for _ in 0..2 {
                usage::release(&desks[desk].db, reservation.clone())
                    .await
                    .expect("it is given back");
            }
            account.done.push((desk, reservation));
        }
        Step::Expire => {
            // So small a part of the month that none ends.
            *time += TimeDelta::hours(1);
            usage::book_lapsed_before(&desks[0].db, *time)
                .await
                .expect("the upkeep works");
            for (desk, dead) in &account.held {
                account.used[*desk] = account.used[*desk].plus(spend(dead.tokens, dead.micro_usd));
            }
            account.done.append(&mut account.held);
        }
        Step::Settle { .. } | Step::Release { .. } => {}
    }
}
