//! Recurring work: once per due time, however many processes look and whatever the clock does.

use chrono::TimeDelta;
use frontdesk::app::App;
use frontdesk::db::Scope;
use frontdesk::jobs::runner::JobKinds;
use frontdesk::jobs::schedule::fire_due;
use frontdesk::on;

use crate::harness::app::TestApp;

/// How often upkeep was queued so far.
async fn upkeeps(app: &App) -> i64 {
    let mut conn = app.db.read(Scope::Operator).await.expect("a connection");
    on!(conn, c => sqlx::query_scalar("select count(*) from job where kind = 'upkeep'").fetch_one(c).await)
        .expect("a count")
}

/// All processes look at the same time, several times; what was queued is carried out in between.
async fn look(service: &TestApp, replica: &App) {
    for _ in 0..3 {
        let looks = [&service.app, replica, &service.app, replica].map(fire_due);
        for look in futures::future::join_all(looks).await {
            look.expect("the schedules can be read");
        }
        service.drain_jobs().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_schedule_fires_once_per_due_time_across_processes() {
    let service = TestApp::start().await;
    let replica = service.replica(JobKinds::default()).await;
    look(&service, &replica).await;
    assert_eq!(
        upkeeps(&service.app).await,
        0,
        "the first look only notes when it is due"
    );

    for round in 1..=3 {
        service.clock.advance(TimeDelta::minutes(5));
        look(&service, &replica).await;

        assert_eq!(upkeeps(&service.app).await, round);
    }
}

#[tokio::test]
async fn due_times_that_nobody_was_there_for_fire_once() {
    let service = TestApp::start().await;
    let replica = service.replica(JobKinds::default()).await;
    look(&service, &replica).await;

    service.clock.advance(TimeDelta::hours(30));
    look(&service, &replica).await;

    assert_eq!(upkeeps(&service.app).await, 1);
}

#[tokio::test]
async fn a_clock_that_ran_ahead_and_was_set_right_stops_no_schedule() {
    let service = TestApp::start().await;
    let replica = service.replica(JobKinds::default()).await;
    look(&service, &replica).await;
    service.clock.advance(TimeDelta::days(400));
    look(&service, &replica).await;
    let before = upkeeps(&service.app).await;

    service.clock.advance(TimeDelta::days(-400));
    look(&service, &replica).await;
    assert_eq!(
        upkeeps(&service.app).await,
        before,
        "being set right is no due time"
    );
    service.clock.advance(TimeDelta::minutes(5));
    look(&service, &replica).await;

    assert_eq!(upkeeps(&service.app).await, before + 1);
}
