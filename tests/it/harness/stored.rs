//! What lies in the database, the index and the files, past the API.

use std::collections::BTreeSet;
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

/// A PDF file whose pages have these words; a page without any is a picture.
pub fn pdf(pages: &[Option<&str>]) -> Vec<u8> {
    let kids: Vec<String> = (0..pages.len())
        .map(|number| format!("{} 0 R", 5 + 2 * number))
        .collect();
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        format!(
            "<< /Type /Pages /Count {} /Kids [{}] >>",
            pages.len(),
            kids.join(" ")
        ),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_owned(),
        format!(
            "<< /Subtype /Image /Width 4 /Height 4 /BitsPerComponent 8 /ColorSpace /DeviceGray /Length 16 >>\nstream\n{}\nendstream",
            "x".repeat(16)
        ),
    ];
    for (number, words) in pages.iter().enumerate() {
        let content = match words {
            Some(words) => format!("BT /F1 11 Tf 72 700 Td ({words}) Tj ET"),
            None => "q 595 0 0 842 0 0 cm /Im Do Q".to_owned(),
        };
        objects.push(format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {} 0 R /Resources << /Font << /F1 3 0 R >> /XObject << /Im 4 0 R >> >> >>",
            6 + 2 * number
        ));
        objects.push(format!(
            "<< /Length {} >>\nstream\n{content}\nendstream",
            content.len()
        ));
    }
    let mut file = "%PDF-1.5\n".to_owned();
    let mut table = format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
    for (number, object) in objects.iter().enumerate() {
        table += &format!("{:010} 00000 n \n", file.len());
        file += &format!("{} 0 obj\n{object}\nendobj\n", number + 1);
    }
    let start = file.len();
    file += &format!(
        "{table}trailer\n<< /Size {} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n",
        objects.len() + 1
    );
    file.into_bytes()
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

/// What stands between these words anywhere in the database's files and the original files.
pub fn said_in_files(data_dir: &Path, before: &str, after: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(data_dir).expect("a folder");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.is_file());
    files.extend(stored_files(data_dir));
    let mut said = BTreeSet::new();
    for file in files {
        let bytes = std::fs::read(&file).expect("a file");
        let text = String::from_utf8_lossy(&bytes);
        let pieces = text.split(before).skip(1);
        said.extend(pieces.filter_map(|piece| Some(piece.split_once(after)?.0.to_owned())));
    }
    said
}

/// Leaves a page out of a source, as deleting its document does; the exclusion's id.
pub async fn exclude_page(tenant: &Tenant<'_>, source_id: &str, key: &str) -> String {
    let (id, source_id): (Uuid, Uuid) = (Uuid::now_v7(), source_id.parse().expect("an id"));
    let now = tenant.service.app.clock.now();
    let mut write = tenant
        .service
        .app
        .db
        .write(tenant.id)
        .await
        .expect("a transaction");
    on!(write, c => sqlx::query("insert into source_exclusion (id, tenant_id, source_id, item_key, title, created_at) values ($1, $2, $3, $4, $4, $5)")
        .bind(id).bind(tenant.id).bind(source_id).bind(key).bind(now).execute(c).await.map(drop))
    .expect("a row");
    write.commit().await.expect("committed");
    id.to_string()
}

/// How many rows a table has, of all tenants.
pub async fn count_rows(service: &TestApp, table: &str) -> i64 {
    let statement = format!("select count(*) from {table}");
    let mut conn = service.app.db.read(Scope::Operator).await.expect("a connection");
    on!(conn, c => sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(c).await).expect("a count")
}

/// Parts of texts of versions that wait to be whole, for [`count_rows`].
pub const WAITING_TEXT: &str = "document_text t where exists (select 1 from document_version v
    where v.document_id = t.document_id and v.number = t.version and v.state = 'waiting')";

/// Chunks that are ready of versions that wait to be whole.
pub async fn waiting_chunks(service: &TestApp) -> i64 {
    let statement =
        "select cast(coalesce(sum(ready_to), 0) as bigint) from document_version where state = 'waiting'";
    let mut conn = service.app.db.read(Scope::Operator).await.expect("a connection");
    on!(conn, c => sqlx::query_scalar(statement).fetch_one(c).await).expect("a count")
}

/// The jobs that are not at their end, each with what its last attempt failed with.
async fn unfinished_jobs(service: &TestApp) -> Vec<(String, String, Option<String>)> {
    let statement = "select kind, state, last_error from job where state <> 'done'";
    let mut conn = service.app.db.read(Scope::Operator).await.expect("a connection");
    on!(conn, c => sqlx::query_as(statement).fetch_all(c).await).expect("jobs")
}

/// Fails the test unless all chunks and texts are of versions that are shown.
pub async fn assert_nothing_staged(service: &TestApp) {
    let hidden_chunks = "chunk c where c.version <> coalesce((select v.number from document_version v
        where v.document_id = c.document_id and v.cut_id = coalesce(c.cut_id, c.source_id) and v.state = 'shown'), 0)";
    let hidden_text =
        "document_text t join document d on d.id = t.document_id where t.version <> d.text_version";
    for hidden in [
        "document_version where state <> 'shown'",
        hidden_chunks,
        hidden_text,
    ] {
        let unfinished = unfinished_jobs(service).await;
        assert_eq!(count_rows(service, hidden).await, 0, "{hidden}; {unfinished:?}");
    }
}

impl Tenant<'_> {
    /// Chunks in the index.
    pub async fn indexed_chunks(&self) -> i64 {
        let count = self
            .service
            .app
            .spaces
            .wanted()
            .index
            .count(retrieval::TenantId(self.id.0))
            .await
            .expect("the index answers");
        i64::try_from(count).expect("a small number")
    }

    /// The latest generation of its index.
    pub async fn generation(&self) -> String {
        let listed = self.get("/api/index/generations").await.expect(200).json();
        listed["items"][0]["id"].as_str().expect("an id").to_owned()
    }

    /// Fails the test unless index, rows and files agree about what this tenant, the only one, has.
    pub async fn check_stores_agree(&self) {
        let chunks = count_rows(self.service, "chunk").await;
        let unfinished = unfinished_jobs(self.service).await;
        assert_eq!(
            self.indexed_chunks().await,
            chunks,
            "index and rows; {unfinished:?}"
        );
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
