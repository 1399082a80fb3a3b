use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};

use super::*;

struct File {
    writer: SqliteWriter,
    options: SqliteConnectOptions,
    _folder: tempfile::TempDir,
}

async fn file() -> File {
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
