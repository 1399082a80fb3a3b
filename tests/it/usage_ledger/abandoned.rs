//! Calls that a dead process had noted are booked once, by whoever finds its journal.

use frontdesk::usage::journal::{Journal, book_abandoned};
use frontdesk::usage::report::{Filter, GroupBy};
use frontdesk::usage::{self, Balance, Limits, UsageEvent};
use tempfile::TempDir;

use super::{Desk, now, spend};
use crate::harness::databases::databases;

/// A process that died with this call under way.
fn die_with(call: &UsageEvent) -> TempDir {
    let data = TempDir::new().expect("a temporary folder");
    let journal = Journal::open(data.path()).expect("a journal");
    let _never_struck_out = journal.enter(call).expect("noted");
    data
}

fn files(data: &TempDir) -> usize {
    std::fs::read_dir(data.path().join("calls"))
        .expect("readable")
        .count()
}

#[tokio::test]
async fn a_call_that_a_dead_process_had_noted_is_booked_once() {
    for database in databases().await {
        let desk = Desk::open(&database.db).await;
        let call = UsageEvent {
            estimated: true,
            ..desk.event(40, 3)
        };
        let data = die_with(&call);

        let (one, other) = tokio::join!(
            book_abandoned(&desk.db, data.path()),
            book_abandoned(&desk.db, data.path())
        );
        let again = book_abandoned(&desk.db, data.path()).await.expect("it runs");

        assert_eq!(
            (one.expect("it runs") + other.expect("it runs"), again),
            (1, 0),
            "{}",
            database.engine
        );
        let booked = Balance {
            used: spend(40, 3),
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
        assert_eq!((total.calls, total.estimated_calls), (1, 1));
        assert_eq!(files(&data), 0, "nothing is left of the dead");
    }
}

#[tokio::test]
async fn a_call_that_was_booked_or_reserved_before_its_process_died_is_not_booked_again() {
    for database in databases().await {
        let desk = Desk::open(&database.db).await;
        let (booked, reserved) = (desk.event(40, 3), desk.event(7, 1));
        desk.settle(None, std::slice::from_ref(&booked), now()).await;
        let mut write = desk.db.write(desk.tenant_id).await.expect("a transaction");
        let holders = (desk.tenant_id, desk.chatbot_id);
        let calls = vec![reserved.clone()];
        let _lapses = usage::reserve(&mut write, &Limits::default(), holders, spend(0, 0), calls, now())
            .await
            .expect("no limit");
        write.commit().await.expect("stored");

        for call in [&booked, &reserved] {
            let data = die_with(call);
            let again = book_abandoned(&desk.db, data.path()).await.expect("it runs");
            assert_eq!(again, 0, "{}", database.engine);
        }
        let lapsed = now() + chrono::TimeDelta::hours(1);
        usage::book_lapsed_before(&desk.db, lapsed)
            .await
            .expect("it runs");

        assert_eq!(
            desk.balances(now()).await.0.used,
            spend(47, 4),
            "{}",
            database.engine
        );
    }
}

#[tokio::test]
async fn the_journal_of_a_living_process_is_its_own_and_what_is_struck_out_is_gone() {
    for database in databases().await {
        let desk = Desk::open(&database.db).await;
        let data = TempDir::new().expect("a temporary folder");
        let journal = Journal::open(data.path()).expect("a journal");
        let done = journal.enter(&desk.event(40, 3)).expect("noted");
        done.strike();
        let under_way = journal.enter(&desk.event(5, 1)).expect("noted");
        let second = journal.enter(&desk.event(6, 1)).expect("noted");

        let living = book_abandoned(&desk.db, data.path()).await.expect("it runs");
        second.strike();
        drop((journal, under_way));
        let dead = book_abandoned(&desk.db, data.path()).await.expect("it runs");

        assert_eq!((living, dead), (0, 1), "{}", database.engine);
        assert_eq!(
            desk.balances(now()).await.0.used,
            spend(5, 1),
            "{}",
            database.engine
        );
    }
}

#[tokio::test]
async fn what_a_dead_process_left_of_a_tenant_that_is_gone_or_in_no_order_stops_nobody() {
    for database in databases().await {
        let desk = Desk::open(&database.db).await;
        let strangers = UsageEvent {
            tenant_id: frontdesk::id::TenantId::new(),
            ..desk.event(40, 3)
        };
        let data = die_with(&strangers);
        std::fs::write(data.path().join("calls/torn"), b"{\"id\": \n").expect("written");

        let booked = book_abandoned(&desk.db, data.path()).await.expect("it runs");

        assert_eq!((booked, files(&data)), (0, 0), "{}", database.engine);
    }
}
