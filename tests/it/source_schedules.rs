//! Sources that are read by themselves: at their time, once across processes, through changes of the clock.

use chrono::{DateTime, TimeDelta, Utc};
use frontdesk::app::App;
use frontdesk::db::Scope;
use frontdesk::jobs::runner::JobKinds;
use frontdesk::knowledge::sources::operator::{fire_due, mend_due_times};
use frontdesk::on;
use serde_json::{Value, json};

use crate::harness::app::{Chatbot, TestApp};

/// Makes a source with this schedule; its first run is cancelled. Its id.
async fn scheduled(desk: &Chatbot<'_, '_>, schedule: Value) -> String {
    let (source, _) = desk.aborted_source("https://shop.example/").await;
    desk.tenant
        .patch(&format!("/api/sources/{source}"), json!({ "schedule": schedule }))
        .await
        .expect(200);
    source
}

async fn source(desk: &Chatbot<'_, '_>, id: &str) -> Value {
    desk.tenant
        .get(&format!("/api/sources/{id}"))
        .await
        .expect(200)
        .json()
}

fn next_run_at(source: &Value) -> DateTime<Utc> {
    source["next_run_at"]
        .as_str()
        .expect("a due time")
        .parse()
        .expect("a time")
}

/// How many runs schedules began.
async fn fired(app: &App) -> i64 {
    let mut conn = app.db.read(Scope::Operator).await.expect("a connection");
    on!(conn, c => sqlx::query_scalar("select count(*) from sync_run where cause = 'schedule'").fetch_one(c).await)
        .expect("a count")
}

/// Several processes look at once, several times.
async fn look(apps: &[&App]) {
    for _ in 0..3 {
        let looks = apps.iter().chain(apps).map(|app| fire_due(app));
        for look in futures::future::join_all(looks).await {
            look.expect("the schedules can be read");
        }
    }
}

/// Ends the run that is open.
async fn cancel(desk: &Chatbot<'_, '_>, id: &str) {
    desk.tenant
        .post(&format!("/api/sources/{id}/cancel"), json!({}))
        .await
        .expect(200);
}

/// Moves the clock to `time`.
fn go_to(service: &TestApp, time: DateTime<Utc>) {
    use frontdesk::clock::Clock as _;
    service.clock.advance(time - service.clock.now());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_source_is_read_once_per_due_time_across_processes() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = scheduled(&desk, json!({ "every_minutes": 60 })).await;
    let replica = service.replica(JobKinds::default()).await;
    let apps = [&service.app, &replica];

    look(&apps).await;
    assert_eq!(fired(&service.app).await, 0, "not due yet");
    for round in 1..=3 {
        let due = next_run_at(&source(&desk, &id).await);
        go_to(&service, due);
        look(&apps).await;

        let now = source(&desk, &id).await;
        assert_eq!(fired(&service.app).await, round);
        assert_eq!(
            (&now["state"], &now["last_run"]["cause"]),
            (&json!("queued"), &json!("schedule"))
        );
        let pause = next_run_at(&now) - due;
        assert!(
            pause >= TimeDelta::minutes(54) && pause <= TimeDelta::minutes(66),
            "{pause}"
        );
        cancel(&desk, &id).await;
    }
}

#[tokio::test]
async fn times_that_nobody_was_there_for_fire_once() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = scheduled(
        &desk,
        json!({ "cron": "0 3 * * *", "time_zone": "Europe/Berlin" }),
    )
    .await;

    service.clock.advance(TimeDelta::days(5));
    look(&[&service.app]).await;

    assert_eq!(fired(&service.app).await, 1);
    let wait = next_run_at(&source(&desk, &id).await)
        - "2026-11-26T02:00:00Z".parse::<DateTime<Utc>>().expect("a time");
    assert!(
        wait >= TimeDelta::zero() && wait <= TimeDelta::minutes(10),
        "{wait}"
    );
}

#[tokio::test]
async fn what_is_paused_or_still_being_read_waits_for_the_next_time() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = scheduled(&desk, json!({ "every_minutes": 60 })).await;
    let path = format!("/api/sources/{id}");
    acme.post(&format!("{path}/pause"), json!({})).await.expect(200);

    service.clock.advance(TimeDelta::minutes(70));
    look(&[&service.app]).await;
    assert_eq!(fired(&service.app).await, 0, "paused");

    acme.post(&format!("{path}/resume"), json!({})).await.expect(200);
    look(&[&service.app]).await;
    assert_eq!(fired(&service.app).await, 0, "its time has passed");
    acme.post(&format!("{path}/sync"), json!({})).await.expect(202);
    service.clock.advance(TimeDelta::minutes(70));
    look(&[&service.app]).await;
    assert_eq!(fired(&service.app).await, 0, "still being read");

    cancel(&desk, &id).await;
    service.clock.advance(TimeDelta::minutes(70));
    look(&[&service.app]).await;
    assert_eq!(fired(&service.app).await, 1);
}

#[tokio::test]
async fn a_suspended_tenants_sources_are_left_alone() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    scheduled(&desk, json!({ "every_minutes": 60 })).await;
    let suspended = frontdesk::tenancy::TenantState::Suspended;
    frontdesk::tenancy::operator::set_state(&service.app.db, service.clock.as_ref(), acme.id, suspended)
        .await
        .expect("suspended");

    service.clock.advance(TimeDelta::minutes(70));
    look(&[&service.app]).await;

    assert_eq!(fired(&service.app).await, 0);
}

#[tokio::test]
async fn a_clock_that_ran_ahead_and_was_set_right_stops_no_source() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = scheduled(&desk, json!({ "cron": "0 3 * * *" })).await;
    service.clock.advance(TimeDelta::days(400));
    look(&[&service.app]).await;
    cancel(&desk, &id).await;
    assert_eq!(fired(&service.app).await, 1);

    service.clock.advance(TimeDelta::days(-400));
    mend_due_times(&service.app).await.expect("mended");
    look(&[&service.app]).await;
    assert_eq!(fired(&service.app).await, 1, "being set right is no due time");
    service.clock.advance(TimeDelta::days(1));
    look(&[&service.app]).await;

    assert_eq!(fired(&service.app).await, 2);
}

#[tokio::test]
async fn many_sources_of_one_time_are_all_read_and_not_in_one_second() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let mut due = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let id = scheduled(&desk, json!({ "cron": "0 3 * * *" })).await;
        due.insert(next_run_at(&source(&desk, &id).await));
    }
    assert!(due.len() > 10, "{due:?}");

    service.clock.advance(TimeDelta::days(1));
    look(&[&service.app]).await;

    assert_eq!(fired(&service.app).await, 20);
}
