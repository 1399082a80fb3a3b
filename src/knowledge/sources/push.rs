//! Documents that programs put into a source and take out again, by names of their own.

use serde_json::json;

use super::{Source, SourceKind, find, hold};
use crate::app::App;
use crate::db::Conn;
use crate::error::{Error, Result};
use crate::http::access::{Actor, Reach};
use crate::id::SourceId;
use crate::jobs::Priority;
use crate::knowledge::files::clean_name;
use crate::knowledge::upload::{self, Matching, NewFile, Place, Recorded, Told};
use crate::knowledge::{self, Document, indexing};
use crate::tenancy::audit::{self, Change, Origin};
use ingest::Format;

/// Longest name of a document in characters.
const MAX_EXTERNAL_ID_CHARS: usize = 500;

/// What came of putting a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    New,
    Changed,
    /// The same was there already.
    Unchanged,
}

/// Refuses early what no body could make right: what is absent, another kind of source, a bad name.
pub(super) async fn check(conn: &mut Conn, reach: Reach, id: SourceId, external_id: &str) -> Result<()> {
    let source = find(conn, reach, id).await?;
    check_pushed(&source)?;
    check_external_id(external_id)
}

/// Puts a document, or its new version. `format` is known, or else told from the content. The same again is no work.
pub(super) async fn put(
    app: &App,
    reach: Reach,
    id: SourceId,
    (file, format): (NewFile, Option<Format>),
    told: Told,
    actor: &Actor,
    origin: &Origin,
) -> Result<(Document, Put)> {
    let mut judged = upload::judge(app, vec![file], format).await?;
    let file = judged
        .pop()
        .ok_or_else(|| Error::internal("one file was judged"))?;
    if let Some(refusal) = upload::refuse(&file) {
        return Err(refusal);
    }
    let placed = upload::place(app, reach.tenant_id, file, told).await?;
    let file_key = placed.file_key.clone();
    let recorded = record(app, reach, id, placed, actor, origin).await;
    upload::commit(app, recorded, &[file_key]).await
}

/// Writes the rows.
async fn record(
    app: &App,
    reach: Reach,
    id: SourceId,
    placed: upload::Placed,
    actor: &Actor,
    origin: &Origin,
) -> Result<Recorded<(Document, Put)>> {
    let tenant_id = reach.tenant_id;
    let mut write = app.db.write(tenant_id).await?;
    // Held: two first versions of one document at once must not both think they are new.
    let source = hold(&mut write, reach, id).await?;
    check_pushed(&source)?;
    let place = Place {
        tenant_id,
        chatbot_id: source.chatbot_id,
        source_id: id,
        matching: Matching::ByName,
        now: app.clock.now(),
    };
    let mut superfluous = Vec::new();
    let (document, effect) = upload::store_one(&mut write, &place, placed, &mut superfluous).await?;
    let put = match effect {
        upload::Effect::Nothing => {
            return Ok(Recorded {
                write,
                outcome: (document, Put::Unchanged),
                superfluous,
            });
        }
        upload::Effect::New => Put::New,
        upload::Effect::Changed => Put::Changed,
    };
    indexing::enqueue(
        app,
        &mut write,
        tenant_id,
        &[(document.id, document.file_key.clone())],
        Priority::Normal,
    )
    .await?;
    upload::check_count(app, &mut write, tenant_id, source.chatbot_id).await?;
    let change = Change {
        action: "document.push",
        object_kind: "document",
        object_id: document.id.to_string(),
        before: None,
        after: Some(json!({ "source_id": id, "external_id": document.external_id, "title": document.title })),
    };
    audit::record(&mut write, tenant_id, actor, origin, change, place.now).await?;
    Ok(Recorded {
        write,
        outcome: (document, put),
        superfluous,
    })
}

/// Takes a document out: out of answers at once.
pub(super) async fn delete(
    app: &App,
    reach: Reach,
    id: SourceId,
    external_id: &str,
    actor: &Actor,
    origin: &Origin,
) -> Result<()> {
    let mut conn = app.db.read(reach.tenant_id).await?;
    check(&mut conn, reach, id, external_id).await?;
    let document = knowledge::store::find_by_external_id(&mut conn, reach.tenant_id, id, external_id)
        .await?
        .ok_or(Error::NotFound("document"))?;
    drop(conn);
    knowledge::delete_document(app, reach, document.id, actor, origin).await
}

/// What the file is called for show: the last part of the document's name, which may look like a path or an address.
pub(super) fn file_name_of(external_id: &str, format: Option<Format>) -> String {
    let name = clean_name(external_id.trim_end_matches('/'));
    let ending = match format {
        // Of plain text, only the name tells which kind.
        Some(Format::Markdown) => ".md",
        Some(Format::Csv) => ".csv",
        Some(Format::Html) => ".html",
        Some(Format::Text) => ".txt",
        _ => "",
    };
    if name.to_ascii_lowercase().ends_with(ending) {
        return name;
    }
    let kept: String = name.chars().take(200 - ending.len()).collect();
    format!("{kept}{ending}")
}

fn check_pushed(source: &Source) -> Result<()> {
    if source.kind() == SourceKind::Push {
        return Ok(());
    }
    Err(Error::conflict(
        "source_not_pushed",
        format!(
            "documents are put into sources of kind push only; this one is of kind {}",
            source.kind().name()
        ),
    ))
}

fn check_external_id(external_id: &str) -> Result<()> {
    let length = external_id.chars().count();
    if length == 0 || length > MAX_EXTERNAL_ID_CHARS || external_id.contains('\0') {
        return Err(Error::invalid(
            "invalid_external_id",
            "external_id",
            format!(
                "a document's name must have 1 to {MAX_EXTERNAL_ID_CHARS} characters, none of them U+0000"
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_called_after_the_last_part_of_its_documents_name() {
        for (external_id, format, expected) in [
            ("returns/domestic", Some(Format::Markdown), "domestic.md"),
            ("https://shop.example/help/", Some(Format::Html), "help.html"),
            ("price list.CSV", Some(Format::Csv), "price list.CSV"),
            ("contract", Some(Format::Pdf), "contract"),
            ("../..", None, "document"),
            ("42", Some(Format::Text), "42.txt"),
        ] {
            assert_eq!(file_name_of(external_id, format), expected, "{external_id}");
        }
        assert_eq!(
            file_name_of(&"x".repeat(900), Some(Format::Text)).chars().count(),
            200
        );
    }
}
