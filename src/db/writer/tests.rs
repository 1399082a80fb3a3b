use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};

use super::*;

struct File {
    writer: SqliteWriter,
    options: SqliteConnectOptions,
    _folder: tempfile::TempDir,
}

/// Far more than any statement of these tests takes that ends by itself.
const LIMIT: Duration = Duration::from_secs(60);

/// A statement that does not end by itself.
const ENDLESS: &str = "insert into line
    with recursive counted (n) as (select 1 union all select n + 1 from counted) select 'endless' from counted where n < 0";

async fn file() -> File {
    file_with_limit(LIMIT).await
}

/// A file on which no statement takes longer than `limit`.
async fn file_with_limit(limit: Duration) -> File {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("test.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let mut connection = options.connect().await.expect("the file opens");
    connection
        .execute("create table line (text text unique)")
        .await
        .expect("a table");
    let connection = WatchedConnection::new(connection, limit).await.expect("watched");
    File {
        writer: SqliteWriter::new(connection),
        options,
        _folder: folder,
    }
}

impl File {
    /// What a reader sees: committed lines only.
    async fn lines(&self) -> Vec<String> {
        let mut reader = self.options.connect().await.expect("the file opens");
        sqlx::query_scalar("select text from line order by rowid")
            .fetch_all(&mut reader)
            .await
            .expect("lines")
    }
}

async fn write(writer: &SqliteWriter, text: &str) -> SqliteWrite {
    let mut write = writer.begin().await.expect("a turn");
    sqlx::query("insert into line values ($1)")
        .bind(text.to_owned())
        .execute(write.connection().await.expect("open"))
        .await
        .expect("written");
    write.settle();
    write
}

#[tokio::test]
async fn a_commit_alone_is_seen_at_once() {
    let file = file().await;

    write(&file.writer, "one")
        .await
        .commit()
        .await
        .expect("committed");

    assert_eq!(file.lines().await, ["one"]);
}

#[tokio::test]
async fn what_is_dropped_takes_back_only_itself() {
    let file = file().await;
    let first = write(&file.writer, "first").await;
    let (dropping, last) = (file.writer.clone(), file.writer.clone());
    let second = tokio::spawn(async move { drop(write(&dropping, "second").await) });
    let third = tokio::spawn(async move { write(&last, "third").await.commit().await });
    tokio::task::yield_now().await;

    first.commit().await.expect("committed with those that wait");
    second.await.expect("dropped");
    third.await.expect("no panic").expect("committed");

    assert_eq!(file.lines().await, ["first", "third"]);
}

#[tokio::test]
async fn every_commit_of_a_crowd_is_told_after_it_can_be_seen() {
    let file = file().await;
    let crowd: Vec<_> = (0..200)
        .map(|number| {
            let writer = file.writer.clone();
            tokio::spawn(async move { write(&writer, &number.to_string()).await.commit().await })
        })
        .collect();

    for member in crowd {
        member.await.expect("no panic").expect("committed");
    }

    assert_eq!(file.lines().await.len(), 200);
}

#[tokio::test]
async fn a_failed_statement_leaves_the_others_of_its_group() {
    let file = file().await;
    let first = write(&file.writer, "same").await;
    let writer = file.writer.clone();
    let second = tokio::spawn(async move {
        let mut write = write(&writer, "of the second").await;
        let again = sqlx::query("insert into line values ('same')")
            .execute(write.connection().await.expect("open"))
            .await;
        assert!(again.is_err(), "the line of the first is there");
    });
    tokio::task::yield_now().await;

    first.commit().await.expect("committed");
    second.await.expect("no panic");

    assert_eq!(file.lines().await, ["same"]);
}

#[tokio::test]
async fn one_who_goes_away_while_waiting_holds_nobody_up() {
    let file = file().await;
    let first = write(&file.writer, "first").await;
    let writer = file.writer.clone();
    let waiting = tokio::spawn(async move { writer.begin().await.map(drop) });
    tokio::task::yield_now().await;
    waiting.abort();

    first.commit().await.expect("committed");

    assert_eq!(file.lines().await, ["first"]);
    write(&file.writer, "second")
        .await
        .commit()
        .await
        .expect("the writer is free");
}

/// Begins a statement that does not end by itself, and waits for it.
async fn write_endlessly(writer: &SqliteWriter) -> Result<(), sqlx::Error> {
    let mut write = writer.begin().await?;
    write.connection().await?.execute(ENDLESS).await.map(drop)
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_cut_off_and_the_next_transaction_is_none_the_worse() {
    let file = file_with_limit(Duration::from_millis(200)).await;

    let cut_off = write_endlessly(&file.writer).await.expect_err("it is cut off");

    let code = cut_off.as_database_error().and_then(|error| error.code());
    assert_eq!(code.as_deref(), Some("9"), "{cut_off}");
    let next = write(&file.writer, "next").await;
    next.commit().await.expect("committed");
    assert_eq!(file.lines().await, ["next"]);
}

#[tokio::test]
async fn a_statement_whose_caller_left_hands_the_writer_on_long_before_its_time() {
    let file = file().await;
    let left = timeout(Duration::from_millis(50), write_endlessly(&file.writer)).await;
    assert!(left.is_err(), "it is endless");

    let next = write(&file.writer, "next").await;

    next.commit().await.expect("committed");
    assert_eq!(file.lines().await, ["next"]);
}

#[tokio::test]
async fn those_who_were_to_be_committed_with_a_statement_that_is_cut_off_are_told() {
    let file = file_with_limit(Duration::from_millis(200)).await;
    let first = write(&file.writer, "first").await;
    let writer = file.writer.clone();
    let endless = tokio::spawn(async move { write_endlessly(&writer).await });
    tokio::task::yield_now().await;

    let lost = first.commit().await;

    assert!(endless.await.expect("no panic").is_err());
    assert!(
        matches!(
            lost,
            Err(Error::Unavailable {
                code: "database_unavailable",
                ..
            })
        ),
        "{lost:?}"
    );
    assert_eq!(file.lines().await, [""; 0]);
}

#[tokio::test]
async fn whether_a_turn_is_to_be_had_is_tried_once_for_all_who_ask() {
    let file = file().await;
    file.writer.check().await.expect("nobody has the writer");
    tokio::time::sleep(CHECK_LIFE).await;
    let held = write(&file.writer, "held").await;
    // Time that nobody spends: it is known how much of it went by.
    tokio::time::pause();
    let started = tokio::time::Instant::now();

    let asked = futures::future::join_all((0..20).map(|_| file.writer.check())).await;

    assert!(asked.iter().all(Result::is_err), "{asked:?}");
    assert!(started.elapsed() < TURN_LIMIT * 2, "each waited by itself");
    tokio::time::resume();
    held.commit().await.expect("committed");
    tokio::time::sleep(CHECK_LIFE).await;
    file.writer.check().await.expect("the writer is free again");
}
