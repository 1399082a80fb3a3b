//! What lies in the database, the index and the files, past the API.

use std::path::{Path, PathBuf};

use frontdesk::db::Scope;
use frontdesk::on;
use serde_json::Value;
use uuid::Uuid;

use super::app::{Tenant, TestApp};

/// A fixture's bytes.
pub fn fixture(path: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A Markdown page of sections that each make a chunk of their own.
pub fn page_about(sections: &[&str]) -> String {
    sections
        .iter()
        .map(|word| {
            format!(
                "## About {word}\n\n{}\n\n",
                format!("{word} matters. ").repeat(90)
            )
        })
        .collect()
}

/// The ids of the documents of an upload.
pub fn ids(taken: &Value) -> Vec<String> {
    taken["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| item["id"].as_str().expect("an id").to_owned())
        .collect()
}

/// All original files in the data folder, half-received ones too.
pub fn stored_files(data_dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![data_dir.join("files")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files
}

/// How many rows a table has, of all tenants.
pub async fn count_rows(service: &TestApp, table: &str) -> i64 {
    let statement = format!("select count(*) from {table}");
    let mut conn = service.app.db.read(Scope::Operator).await.expect("a connection");
    on!(conn, c => sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(c).await).expect("a count")
}

impl Tenant<'_> {
    /// Chunks in the index.
    pub async fn indexed_chunks(&self) -> i64 {
        let count = self
            .service
            .app
            .index
            .count(retrieval::TenantId(self.id.0))
            .await
            .expect("the index answers");
        i64::try_from(count).expect("a small number")
    }

    /// Fails the test unless index, rows and files agree about what this tenant, the only one, has.
    pub async fn check_stores_agree(&self) {
        let chunks = count_rows(self.service, "chunk").await;
        assert_eq!(self.indexed_chunks().await, chunks, "index and rows");
        let mut conn = self
            .service
            .app
            .db
            .read(Scope::Operator)
            .await
            .expect("a connection");
        let mut named: Vec<String> =
            on!(conn, c => sqlx::query_scalar("select file_key from document").fetch_all(c).await)
                .expect("keys");
        let mut there: Vec<String> = stored_files(&self.service.data_dir())
            .iter()
            .map(|path| {
                let mut parts = path
                    .components()
                    .rev()
                    .map(|part| part.as_os_str().to_string_lossy().into_owned());
                let (file, folder) = (parts.next().expect("a name"), parts.next().expect("a folder"));
                assert!(
                    Uuid::try_parse(&file).is_ok(),
                    "{} is no generated name",
                    path.display()
                );
                format!("{folder}/{file}")
            })
            .collect();
        named.sort();
        there.sort();
        assert_eq!(there, named, "files and rows");
    }
}
