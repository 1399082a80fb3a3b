//! What a document says of itself besides its text, as its row keeps it.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use ingest::{ExtractedDocument, LeftOut};
use retrieval::analysis::{Language, detect};
use sqlx::types::Json;

use crate::db::Write;
use crate::error::Result;
use crate::id::{DocumentId, TenantId};
use crate::on;

/// Facts for show. Each is the document's own claim, and absent when it makes none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// A BCP 47 tag.
    pub language: Option<String>,
    /// The language that the text shows.
    pub detected_language: Option<&'static str>,
    pub description: Option<String>,
    pub published_at: Option<DateTime<Utc>>,
    /// The path of sections above a page, outermost first.
    pub breadcrumbs: Vec<String>,
    pub page_count: Option<i64>,
    /// Pages that are pictures without text.
    pub scanned_pages: i64,
    /// Pictures and recordings in it that nobody read.
    pub left_out: Vec<LeftOut>,
}

impl Facts {
    /// Of a document that was read, or of the last part of it.
    pub(super) fn of(extracted: &ExtractedDocument) -> Self {
        let metadata = &extracted.metadata;
        Self {
            language: metadata.language.clone(),
            detected_language: detect(&extracted.text).map(Language::subtag),
            description: metadata.description.clone(),
            published_at: metadata.published_at.as_deref().and_then(read_time),
            breadcrumbs: metadata.breadcrumbs.clone(),
            page_count: extracted.page_count.map(i64::from),
            scanned_pages: i64::try_from(extracted.scanned_pages.len()).unwrap_or(i64::MAX),
            left_out: extracted.left_out.clone(),
        }
    }

    pub(super) fn stored_left_out(&self) -> Option<Json<&[LeftOut]>> {
        Some(Json(self.left_out.as_slice())).filter(|stored| !stored.0.is_empty())
    }

    pub(super) fn stored_breadcrumbs(&self) -> Option<Json<&[String]>> {
        Some(Json(self.breadcrumbs.as_slice())).filter(|stored| !stored.0.is_empty())
    }
}

/// Takes over what a page says of itself now although its text is the same; whether anything was new, of which the index is to
/// be told.
pub(super) async fn update(
    write: &mut Write,
    tenant_id: TenantId,
    id: DocumentId,
    facts: &Facts,
    now: DateTime<Utc>,
) -> Result<bool> {
    let changed = on!(write, c => sqlx::query(
        "update document
            set language = $3, description = $4, published_at = $5, breadcrumbs = $6, facets_told = null, updated_at = $7
          where tenant_id = $1
            and id = $2
            and (language is distinct from $3 or description is distinct from $4 or published_at is distinct from $5
                 or breadcrumbs is distinct from $6)",
    ).bind(tenant_id).bind(id).bind(&facts.language).bind(&facts.description).bind(facts.published_at)
     .bind(facts.stored_breadcrumbs()).bind(now).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(changed > 0)
}

/// A day is its first moment.
fn read_time(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(day.and_time(NaiveTime::MIN).and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_time_is_a_moment_a_day_or_nothing() {
        for (claim, moment) in [
            ("2024-05-01T10:00:00+02:00", Some("2024-05-01T08:00:00+00:00")),
            ("2024-05-01", Some("2024-05-01T00:00:00+00:00")),
            ("last spring", None),
        ] {
            assert_eq!(
                read_time(claim).map(|time| time.to_rfc3339()).as_deref(),
                moment,
                "{claim}"
            );
        }
    }
}
