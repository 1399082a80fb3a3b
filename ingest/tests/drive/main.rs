//! Reading Google Drive, against a Drive of the test's own.

mod following;
mod reading;

#[path = "../../../tests/it/harness/drive/mod.rs"]
mod fake;

use std::sync::Arc;
use std::time::Duration;

use fake::FakeDrive;
use ingest::loader::drive::{
    AccessTokens, Drive, DriveError, DriveOptions, Grant, Scope, ServiceAccountKey, TokenEndpoint, Tree,
};

/// Pauses are short here; how long they are is tested where they are made.
const OPTIONS: DriveOptions = DriveOptions {
    first_pause: Duration::from_millis(2),
    attempts: 4,
    patience: Duration::from_secs(5),
};

#[expect(clippy::disallowed_methods, reason = "the tests' own server is on loopback")]
fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

fn endpoint(fake: &FakeDrive) -> Arc<TokenEndpoint> {
    let clock = fake.clone();
    let endpoint = TokenEndpoint::new(
        client(),
        fake.token_url().parse().expect("an address"),
        fake::CLIENT_ID.to_owned(),
        fake::CLIENT_SECRET.to_owned(),
        Arc::new(move || clock.now()),
    );
    Arc::new(endpoint.with_first_pause(OPTIONS.first_pause))
}

fn drive_with(fake: &FakeDrive, grant: Grant) -> Drive {
    let tokens = Arc::new(AccessTokens::new(endpoint(fake), grant));
    let base_url = fake.base_url().parse().expect("an address");
    Drive::new(client(), base_url, tokens, OPTIONS)
}

fn drive(fake: &FakeDrive) -> Drive {
    let key = ServiceAccountKey::parse(&fake.service_account()).expect("a key");
    drive_with(fake, Grant::ServiceAccount(Box::new(key)))
}

/// The content of a file, read whole, with the name it has in the form it came in.
async fn read(drive: &Drive, id: &str) -> Result<(String, Vec<u8>), DriveError> {
    let file = drive.file(id).await?;
    let mut download = drive.open(&file, 1_000_000).await?;
    let mut bytes = Vec::new();
    while let Some(part) = download.next().await? {
        bytes.extend_from_slice(&part);
    }
    Ok((download.file_name().to_owned(), bytes))
}

fn scope(folder: &str) -> Scope {
    Scope {
        folders: vec![folder.to_owned()],
        files: Vec::new(),
    }
}

/// Asks until the tree knows everything.
async fn settle(drive: &Drive, tree: &mut Tree) -> Result<(), DriveError> {
    loop {
        let questions = tree.questions(4);
        if questions.is_empty() {
            tree.prune();
            return Ok(());
        }
        for question in questions {
            let answer = drive.answer(&question).await?;
            tree.answer(&question, answer);
        }
    }
}

/// The ids of what is in scope.
fn found(tree: &Tree) -> Vec<&str> {
    tree.documents()
        .into_iter()
        .map(|node| node.id.as_str())
        .collect()
}
