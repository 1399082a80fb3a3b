//! The rows behind what the index finds: they decide what may be told.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use chrono::{DateTime, Utc};
use ingest::Format;
use retrieval::confidence::Confidence;
use retrieval::fuse::Hit;
use retrieval::index::{Audience, Candidates};
use retrieval::operators::{Query, Refusal};
use retrieval::question::Judged;

use super::Passage;
use super::choice::Choice;
use super::explain::{StageItem, StageName, Trace};
use crate::db::Conn;
use crate::error::Result;
use crate::http::access::Reach;
use crate::id::{ChatbotId, ChunkId, DocumentId};
use crate::knowledge::passages;

/// Formats of documents that consist of rows or objects, each a block of lines that name their values.
const OF_RECORDS: [Format; 5] = [
    Format::Csv,
    Format::Xlsx,
    Format::Ods,
    Format::Json,
    Format::Jsonl,
];

/// Rows that are read at once behind the first ones.
const SPARE_ROWS: usize = 64;

/// What turns hits into passages.
pub(super) struct Rows<'a> {
    pub(super) reach: Reach,
    pub(super) chatbot_id: ChatbotId,
    pub(super) query: &'a Query,
    pub(super) audience: Audience,
    /// Whether candidates that were looked up may be read: further searches bring them again.
    pub(super) readable: HashMap<retrieval::ChunkId, bool>,
    /// Hits that were offered: further searches bring them again.
    pub(super) offered: HashSet<retrieval::ChunkId>,
    /// When the version of each document was indexed that its first passage is of: one question meets no other one.
    pub(super) versions: HashMap<DocumentId, DateTime<Utc>>,
}

impl Rows<'_> {
    /// Keeps the candidates that the asker may read now: of a version that is on its way, or of a document that was deleted,
    /// the index has points and nobody knows them.
    pub(super) async fn keep_readable(&mut self, conn: &mut Conn, candidates: &mut Candidates) -> Result<()> {
        let ids = candidates.hits.iter().map(|hit| hit.chunk_id);
        let new: Vec<ChunkId> = ids
            .filter(|id| !self.readable.contains_key(id))
            .map(|id| ChunkId(id.0))
            .collect();
        let place = (self.reach.tenant_id, self.chatbot_id);
        let readable = passages::list_readable(conn, place, &self.audience, &new).await?;
        let known = new
            .iter()
            .map(|id| (retrieval::ChunkId(id.0), readable.contains(id)));
        self.readable.extend(known);
        candidates
            .hits
            .retain(|hit| self.readable.get(&hit.chunk_id).copied().unwrap_or_default());
        Ok(())
    }

    /// Offers `choice` the passages behind what was found that may be told and are what was asked for, the best first and
    /// behind those that were offered before.
    pub(super) async fn offer(
        &mut self,
        conn: &mut Conn,
        judged: &Judged<'_>,
        choice: &mut Choice<'_>,
        trace: &mut Trace,
    ) -> Result<()> {
        let new: Vec<Hit> = judged
            .hits
            .iter()
            .filter(|hit| self.offered.insert(hit.chunk_id))
            .copied()
            .collect();
        let highest = choice.lowest_score();
        // Nearly every hit still has its row, so the first ones are mostly all that it takes.
        let (first, spare) = new.split_at(new.len().min(choice.pool()));
        for hits in std::iter::once(first).chain(spare.chunks(SPARE_ROWS)) {
            if hits.is_empty() || !choice.wants_more() {
                break;
            }
            let started = Instant::now();
            let mut open = self.read(conn, hits, judged).await?;
            for passage in &mut open {
                passage.score = passage.score.min(highest);
            }
            trace.add(StageName::Rows, started, || {
                open.iter().map(by_confidence).collect()
            });
            trace.add(StageName::Index, Instant::now(), || {
                open.iter().map(by_side).collect()
            });
            trace.add(StageName::Fuse, Instant::now(), || {
                open.iter().map(by_score).collect()
            });
            choice.add(self.as_asked(open, trace), trace);
        }
        Ok(())
    }

    /// What the query's operators let through.
    fn as_asked(&self, passages: Vec<Passage>, trace: &mut Trace) -> Vec<Passage> {
        let started = Instant::now();
        let (mut asked, mut refused) = (Vec::with_capacity(passages.len()), Vec::new());
        for passage in passages {
            match refusal(self.query, &passage) {
                Some(refusal) => refused.push(StageItem::left_out(passage.chunk_id, reason(refusal))),
                None => asked.push(passage),
            }
        }
        trace.add(StageName::Operators, started, || {
            asked.iter().map(by_score).chain(refused).collect()
        });
        asked
    }

    /// The passages of those hits that have a row which the asker may read.
    async fn read(&mut self, conn: &mut Conn, hits: &[Hit], judged: &Judged<'_>) -> Result<Vec<Passage>> {
        let ids: Vec<ChunkId> = hits.iter().map(|hit| ChunkId(hit.chunk_id.0)).collect();
        let place = (self.reach.tenant_id, self.chatbot_id);
        let rows = passages::find_passages(conn, place, &ids).await?;
        let mut row_of: HashMap<ChunkId, passages::PassageRow> =
            rows.into_iter().map(|row| (row.id, row)).collect();
        let open = hits.iter().filter_map(|hit| {
            let row = row_of.remove(&ChunkId(hit.chunk_id.0))?;
            // The index was asked for the same. It may not know yet what changed a moment ago.
            let first = self.versions.entry(row.document_id).or_insert(row.indexed_at);
            (*first == row.indexed_at && row.is_open_to(&self.audience)).then_some((hit, row))
        });
        let open: Vec<(&Hit, passages::PassageRow)> = open.collect();
        let texts = open.iter().flat_map(|(_, row)| {
            let [title, heading] = names(row);
            [title, heading, &row.text]
        });
        let reading = judged.reading(texts);
        let judged = open.into_iter().map(|(hit, row)| {
            let confidence = reading.confidence(hit, &names(&row), &row.text);
            passage(hit, confidence, row)
        });
        Ok(judged.collect())
    }
}

/// A passage's title and heading.
fn names(row: &passages::PassageRow) -> [&str; 2] {
    [&row.title, row.heading.as_deref().unwrap_or_default()]
}

fn by_side(passage: &Passage) -> StageItem {
    let scores = [
        ("similarity", passage.similarity),
        ("keyword_score", passage.keyword_score),
    ];
    StageItem::new(passage.chunk_id, scores)
}

fn by_score(passage: &Passage) -> StageItem {
    StageItem::new(passage.chunk_id, [("score", Some(passage.score))])
}

fn by_confidence(passage: &Passage) -> StageItem {
    let confidence = passage.confidence.map(|confidence| confidence.value);
    StageItem::new(passage.chunk_id, [("confidence", confidence)])
}

pub(super) fn by_tokens(passage: &Passage) -> StageItem {
    let scores = [
        ("score", Some(passage.score)),
        ("tokens", Some(passage.count_prompt_tokens() as f32)),
    ];
    StageItem::new(passage.chunk_id, scores)
}

fn refusal(query: &Query, passage: &Passage) -> Option<Refusal> {
    let heading = passage.heading.as_deref().unwrap_or_default();
    query.refusal(&[&passage.text, heading, &passage.title])
}

const fn reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::PhraseMissing => "phrase_missing",
        Refusal::Excluded => "excluded",
    }
}

fn passage(hit: &Hit, confidence: Option<Confidence>, row: passages::PassageRow) -> Passage {
    Passage {
        chunk_id: row.id,
        document_id: row.document_id,
        source_id: row.source_id,
        cut: row.cut,
        position: row.position,
        indexed_at: row.indexed_at,
        dated: row.dated,
        title: row.title,
        file_name: row.file_name,
        has_records: OF_RECORDS.iter().any(|format| format.as_str() == row.format),
        url: row.url,
        text: row.text,
        heading: row.heading,
        page: row.page,
        start: row.start_char,
        end: row.end_char,
        score: hit.score,
        similarity: hit.similarity,
        keyword_score: hit.keyword_score,
        confidence,
        prompt_tokens: row.prompt_token_count,
        is_context: false,
    }
}

/// A passage that nobody looked for.
pub(super) fn around(row: passages::PassageRow) -> Passage {
    let hit = Hit {
        chunk_id: retrieval::ChunkId(row.id.0),
        score: 0.0,
        similarity: None,
        keyword_score: None,
    };
    Passage {
        is_context: true,
        ..passage(&hit, None, row)
    }
}
