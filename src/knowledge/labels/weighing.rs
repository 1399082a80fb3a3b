//! Words of documents are read by the rules of their language when they go into the index. Where it turns out to be another one, or
//! somebody corrects it, the chunks that are there already go in once more.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use retrieval::analysis::{Language, TextLanguages};
use retrieval::index::Facets;
use serde::{Deserialize, Serialize};

use super::telling::{self, Said, primary_language};
use crate::app::App;
use crate::db::{Conn, Write};
use crate::error::Result;
use crate::generations;
use crate::id::{ChatbotId, DocumentId, TenantId};
use crate::jobs::{self, Job, JobContext, Outcome, Priority};
use crate::knowledge::{cuts, stored_chunks};
use crate::on;

/// A document that took so long lets others have their turn.
const SLICE: Duration = Duration::from_secs(5 * 60);

/// Documents, the newest ones that are in the index, that tell which language most are in.
const SAMPLE: i64 = 100;

/// Puts the chunks of a document into the indexes anew, so that their words are read by the rules of its language.
#[derive(Debug, Serialize, Deserialize)]
pub struct WeighAnew {
    pub document_id: DocumentId,
    /// As [`rules`] says it.
    pub language: String,
    /// What stands before this position is done.
    pub from_position: i64,
}

impl Job for WeighAnew {
    const KIND: &'static str = "weigh_anew";
    const PRIORITY: Priority = Priority::Bulk;
    const TIMEOUT: Duration = Duration::from_secs(30 * 60);

    async fn run(self, app: App, context: JobContext) -> Outcome {
        Outcome::of_slice(weigh_anew(&app, &context, self).await)
    }
}

/// By the rules of which language words of a document with these facets are read, as `de`; empty: of none.
pub(super) fn rules(facets: &Facets) -> &'static str {
    rules_of(facets.language.as_deref().unwrap_or_default())
}

/// Like [`rules`], of a language by its tag.
pub(super) fn rules_of(tag: &str) -> &'static str {
    Language::from_tag(tag).map_or("", Language::subtag)
}

/// Queues that the words of a document are weighed anew, by the rules that go with what is said of it.
pub(super) async fn weigh_anew_later(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    said: &Said,
) -> Result<()> {
    let job = WeighAnew {
        document_id: said.id,
        language: rules(&said.facets).to_owned(),
        from_position: 0,
    };
    enqueue(app, write, tenant_id, &job).await
}

async fn enqueue(app: &App, write: &mut Write, tenant_id: TenantId, job: &WeighAnew) -> Result<()> {
    let key = format!("weigh_anew:{}", job.document_id);
    jobs::enqueue_once(app, write, tenant_id, job, &key, app.clock.now()).await
}

async fn weigh_anew(app: &App, context: &JobContext, job: WeighAnew) -> Result<()> {
    weigh(app, context.tenant()?, job, SLICE).await
}

/// Weighs the words of a document anew at once, however long it takes.
pub(in crate::knowledge) async fn weigh_now(
    app: &App,
    tenant_id: TenantId,
    document_id: DocumentId,
) -> Result<()> {
    let job = WeighAnew {
        document_id,
        language: String::new(),
        from_position: 0,
    };
    weigh(app, tenant_id, job, Duration::MAX).await
}

/// Goes on with a document for about `slice`, and queues what is left then.
async fn weigh(app: &App, tenant_id: TenantId, mut job: WeighAnew, slice: Duration) -> Result<()> {
    let ids = [job.document_id];
    let mut conn = app.db.read(tenant_id).await?;
    let said = telling::load(&mut conn, tenant_id, &ids).await?;
    let Some(said) = said.first().filter(|said| said.is_weighed_otherwise()) else {
        return Ok(());
    };
    if job.language != rules(&said.facets) {
        job.language = rules(&said.facets).to_owned();
        job.from_position = 0;
    }
    let portions = stored_chunks::list_portions_of(&mut conn, tenant_id, &ids).await?;
    drop(conn);
    let (started, mut is_whole) = (Instant::now(), true);
    'portions: for portion in portions {
        if portion.from_position < job.from_position {
            continue;
        }
        if started.elapsed() > slice {
            is_whole = false;
            break;
        }
        for space in generations::list_spaces(app, tenant_id).await? {
            let mut conn = app.db.read(tenant_id).await?;
            let chunks = stored_chunks::list(&mut conn, tenant_id, &portion).await?;
            drop(conn);
            if chunks.iter().any(|chunk| rules(chunk.facets()) != job.language) {
                // It is another one by now, and may be the former again before the end.
                is_whole = false;
                job.from_position = 0;
                break 'portions;
            }
            stored_chunks::put(app, tenant_id, &space, chunks).await?;
        }
        job.from_position = portion.to_position;
    }
    let mut write = app.db.write(tenant_id).await?;
    cuts::hold(&mut write, tenant_id, &ids).await?;
    for said in telling::load(&mut write, tenant_id, &ids).await? {
        if is_whole && job.language == rules(&said.facets) {
            note_weighed(&mut write, tenant_id, said.id, Some(&job.language)).await?;
        } else {
            enqueue(app, &mut write, tenant_id, &job).await?;
        }
    }
    write.commit().await?;
    app.wake_workers();
    Ok(())
}

/// The tenant's documents of which the index has words by other rules than those of their language, though nobody is at it.
pub(in crate::knowledge) async fn list_weighed_otherwise(
    app: &App,
    tenant_id: TenantId,
) -> Result<HashSet<DocumentId>> {
    let mut conn = app.db.read(tenant_id).await?;
    let mut otherwise = list_otherwise(&mut conn, tenant_id).await?;
    if otherwise.is_empty() {
        return Ok(otherwise);
    }
    let at_work: Vec<WeighAnew> = jobs::list_open(&mut conn, tenant_id).await?;
    at_work.iter().for_each(|job| {
        otherwise.remove(&job.document_id);
    });
    // Somebody may just have come to an end with one.
    let still = list_otherwise(&mut conn, tenant_id).await?;
    otherwise.retain(|id| still.contains(id));
    Ok(otherwise)
}

/// The languages of a chatbot's documents that are in the index.
pub(in crate::knowledge) async fn languages_of(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
) -> Result<TextLanguages> {
    // From one to the next in the index on them: there are many documents, and few languages.
    let all: Vec<String> = on!(conn, c => sqlx::query_scalar(
        "with recursive known (tag) as (
            select min(words_language) from document where tenant_id = $1 and chatbot_id = $2
            union all
            select (select min(d.words_language) from document d
                     where d.tenant_id = $1 and d.chatbot_id = $2 and d.words_language > known.tag)
              from known
             where known.tag is not null
         )
         select tag from known where tag is not null",
    ).bind(tenant_id).bind(chatbot_id).fetch_all(&mut *c).await)?;
    let newest: Vec<String> = on!(conn, c => sqlx::query_scalar(
        "select words_language from document
          where tenant_id = $1 and chatbot_id = $2 and words_language is not null
          order by id desc limit $3",
    ).bind(tenant_id).bind(chatbot_id).bind(SAMPLE).fetch_all(c).await)?;
    let language = |tag: &String| Language::from_tag(tag);
    let all: BTreeSet<Language> = all.iter().filter_map(language).collect();
    let newest: Vec<Option<Language>> = newest.iter().map(language).collect();
    Ok(TextLanguages::new(all.into_iter().collect(), &newest))
}

async fn list_otherwise(conn: &mut Conn, tenant_id: TenantId) -> Result<HashSet<DocumentId>> {
    let unequal: Vec<(DocumentId, Option<String>, String)> = on!(conn, c => sqlx::query_as(
        "select id, words_language, coalesce(language, detected_language, '')
           from document
          where tenant_id = $1
            and indexed_at is not null
            and (words_language is null or words_language <> coalesce(language, detected_language, ''))",
    ).bind(tenant_id).fetch_all(c).await)?;
    let otherwise = unequal.into_iter().filter(|(_, words, language)| {
        let language = primary_language(language).unwrap_or_default();
        words.as_deref().map(rules_of) != Some(rules_of(&language))
    });
    Ok(otherwise.map(|(id, ..)| id).collect())
}

/// Notes by which rules the index has all words of a document; none: not by the same.
pub(super) async fn note_weighed(
    write: &mut Write,
    tenant_id: TenantId,
    id: DocumentId,
    rules: Option<&str>,
) -> Result<()> {
    let update = write.put("update document set words_language = $3 where tenant_id = $1 and id = $2");
    update.bind(tenant_id).bind(id).bind(rules).run().await
}
