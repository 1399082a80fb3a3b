//! The ledger as CSV, page by page, so that memory stays flat however long it is.
//!
//! The rule against formula injection: a text cell that starts with `=`, `+`, `-`, `@`, a tab or a carriage return
//! gets an apostrophe in front. Numbers stay numbers.

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use futures::Stream;
use sqlx::FromRow;
use uuid::Uuid;

use super::report::Filter;
use super::store;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::id::{ChatbotId, ConversationId, MessageId, TenantId, UsageEventId};

/// Lines read and sent at once.
const PAGE: i64 = 1000;

const COLUMNS: [&str; 18] = [
    "id",
    "created_at",
    "channel",
    "kind",
    "model",
    "chatbot_id",
    "conversation_id",
    "message_id",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "embedding_tokens",
    "cost_micro_usd",
    "price_book_version",
    "reported",
    "latency_ms",
    "audio_seconds",
    "estimated",
];

/// One line of the ledger, as it was booked.
#[derive(Clone, Debug, FromRow)]
pub(super) struct LedgerLine {
    id: UsageEventId,
    chatbot_id: Option<ChatbotId>,
    conversation_id: Option<ConversationId>,
    message_id: Option<MessageId>,
    channel: String,
    kind: String,
    model: String,
    prompt_tokens: i64,
    completion_tokens: i64,
    cached_tokens: i64,
    embedding_tokens: i64,
    audio_seconds: i64,
    cost_micro_usd: i64,
    price_book_version: String,
    reported: bool,
    estimated: bool,
    latency_ms: i64,
    created_at: DateTime<Utc>,
}

/// The header and then the tenant's lines, oldest first, in pieces of CSV. No connection is held between two pieces.
/// `held` lives as long as the stream.
pub(super) fn stream<H: Send + 'static>(
    db: Db,
    tenant_id: TenantId,
    filter: Filter,
    held: H,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    enum At {
        Header,
        After(Uuid),
        End,
    }
    futures::stream::try_unfold((At::Header, held), move |(at, held)| {
        let db = db.clone();
        async move {
            let after = match at {
                At::Header => return Ok(Some((header()?, (At::After(Uuid::nil()), held)))),
                At::After(id) => id,
                At::End => return Ok(None),
            };
            let lines =
                store::list_events(&mut db.read(tenant_id).await?, tenant_id, &filter, after, PAGE).await?;
            let Some(last) = lines.last() else { return Ok(None) };
            let next = if lines.len() < PAGE as usize {
                At::End
            } else {
                At::After(last.id.0)
            };
            Ok(Some((rows(&lines)?, (next, held))))
        }
    })
}

fn header() -> Result<Bytes> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(COLUMNS).map_err(Error::internal)?;
    finish(writer)
}

fn rows(lines: &[LedgerLine]) -> Result<Bytes> {
    let mut writer = csv::Writer::from_writer(Vec::with_capacity(lines.len() * 256));
    for line in lines {
        let id = |id: Option<Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
        writer
            .write_record([
                line.id.to_string(),
                line.created_at.to_rfc3339_opts(SecondsFormat::Micros, true),
                text_cell(&line.channel),
                text_cell(&line.kind),
                text_cell(&line.model),
                id(line.chatbot_id.map(|id| id.0)),
                id(line.conversation_id.map(|id| id.0)),
                id(line.message_id.map(|id| id.0)),
                line.prompt_tokens.to_string(),
                line.completion_tokens.to_string(),
                line.cached_tokens.to_string(),
                line.embedding_tokens.to_string(),
                line.cost_micro_usd.to_string(),
                text_cell(&line.price_book_version),
                line.reported.to_string(),
                line.latency_ms.to_string(),
                line.audio_seconds.to_string(),
                line.estimated.to_string(),
            ])
            .map_err(Error::internal)?;
    }
    finish(writer)
}

fn finish(writer: csv::Writer<Vec<u8>>) -> Result<Bytes> {
    writer
        .into_inner()
        .map(Bytes::from)
        .map_err(|error| Error::internal(error.into_error()))
}

/// A text as a cell that no spreadsheet takes for a formula.
fn text_cell(text: &str) -> String {
    // The wide forms too: spreadsheets of East Asia read them alike.
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '＝', '＋', '－', '＠']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(model: &str) -> LedgerLine {
        LedgerLine {
            id: UsageEventId(Uuid::from_u128(1)),
            chatbot_id: None,
            conversation_id: None,
            message_id: None,
            channel: "api".to_owned(),
            kind: "chat".to_owned(),
            model: model.to_owned(),
            prompt_tokens: -5,
            completion_tokens: 7,
            cached_tokens: 0,
            embedding_tokens: 0,
            audio_seconds: 0,
            cost_micro_usd: 12,
            price_book_version: "1".to_owned(),
            reported: true,
            estimated: false,
            latency_ms: 3,
            created_at: DateTime::UNIX_EPOCH,
        }
    }

    fn read(bytes: &[u8]) -> Vec<csv::StringRecord> {
        let mut text = header().expect("a header").to_vec();
        text.extend_from_slice(bytes);
        csv::Reader::from_reader(text.as_slice())
            .into_records()
            .collect::<Result<_, _>>()
            .expect("valid CSV")
    }

    #[test]
    fn a_text_that_looks_like_a_formula_is_only_text() {
        for model in [
            "=1+1", "+1", "-1", "@sum(a1)", "\t=1", "\r=1", "＝1+1", "＋1", "－1", "＠a",
        ] {
            let records = read(&rows(&[line(model)]).expect("CSV"));
            assert_eq!(records[0].get(4), Some(format!("'{model}").as_str()));
        }
    }

    #[test]
    fn numbers_and_ordinary_text_stay_as_they_are() {
        let records = read(&rows(&[line("gpt, \"big\"\nmodel"), line("b")]).expect("CSV"));

        assert_eq!(records.len(), 2);
        assert_eq!(records[0].get(4), Some("gpt, \"big\"\nmodel"));
        assert_eq!(records[0].get(8), Some("-5"), "a number is never quoted as text");
        assert_eq!(records[0].get(1), Some("1970-01-01T00:00:00.000000Z"));
    }
}
