//! Whoever stops waiting for a connection leaves none behind in which a transaction is open.

use std::time::Duration;

use frontdesk::db::Scope;
use frontdesk::on;

use crate::harness::databases::databases;

#[tokio::test]
async fn a_read_that_nobody_waits_for_any_more_spoils_no_later_write() {
    for database in databases().await {
        let db = &database.db;
        for micros in 0..400 {
            let read = tokio::time::timeout(Duration::from_micros(micros), db.read(Scope::Operator));
            drop(read.await);
        }

        for _ in 0..40 {
            let mut write = db.write(Scope::Operator).await.expect("a transaction");
            on!(write, c => sqlx::query("delete from job").execute(c).await.map(drop))
                .unwrap_or_else(|error| panic!("{}: {error}", database.engine));
            write.commit().await.expect("committed");
        }
    }
}
