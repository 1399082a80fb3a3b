//! What the index and the rows have to offer for a question, before a reranker looks at it. Where the index does not answer,
//! the rows are read instead.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use retrieval::index::{Candidates, Filter, IndexError, SearchQuery};
use retrieval::question::{ModelTraits, Question};

use super::boosts::Boosts;
use super::choice::{Choice, Wanted};
use super::explain::{StageName, Trace};
use super::rows::Rows;
use super::{Search, SearchFilter, index_error, without_index};
use crate::app::{App, Space};
use crate::error::Result;
use crate::http::access::Reach;
use crate::id::CutId;
use crate::knowledge::degraded::Degradation;
use crate::knowledge::labels::primary_language;
use crate::rest::Concerns;

/// Candidates asked of the index beyond the wanted passages: some may have lost their rows.
const SPARE_CANDIDATES: usize = 8;

/// Candidates at which a search gives up looking behind those that have no rows.
const MOST_CANDIDATES: usize = 4096;

/// Candidates of each side that are looked through for a phrase, or for what does not say an excluded word.
const MOST_LOOKED_THROUGH: usize = 400;

/// The candidates of a search, the best first.
pub(super) async fn gather<'a>(
    app: &App,
    reach: Reach,
    search: Search<'a>,
    degraded: &mut Vec<Degradation>,
    trace: &mut Trace,
) -> Result<Choice<'a>> {
    let space = search.embedded.space.clone();
    let model = ModelTraits {
        languages: space.embedder.as_ref().and_then(|embedder| embedder.languages()),
        unrelated: match &search.embedded.vector {
            Some(_) => space.unrelated(&app.db, app.clock.now()).await,
            None => None,
        },
    };
    let question = Question::of(&search.query.text, model);
    let settings = search.settings;
    let reranked = app.reranker.as_ref().filter(|_| settings.rerank);
    let wanted = Wanted {
        limit: search.limit,
        reranked: reranked.map(|_| app.config.rerank.top_n),
        without_repetitions: search.filter.without_repetitions,
    };
    let mut choice = Choice::new(settings, Boosts::of(settings, app.clock.now()), wanted);
    let has_operators = search.query.has_operators();
    let mut gathering = Gathering {
        app,
        space: &space,
        reads_rows: search.reads_rows,
        is_spared: search.embedded.is_spared,
        rows: Rows {
            app,
            reach,
            chatbot_id: search.chatbot_id,
            query: search.query,
            audience: search.filter.audience.clone(),
            offered: HashSet::new(),
            versions: HashMap::new(),
        },
        query: question.query(
            search.embedded.vector.take(),
            index_filter(&search.cuts, search.filter),
            choice.pool() + SPARE_CANDIDATES,
        ),
        question,
    };
    let most = if has_operators {
        MOST_LOOKED_THROUGH.max(gathering.query.limit)
    } else {
        MOST_CANDIDATES
    };
    loop {
        let were_all = gathering.look(&mut choice, degraded, trace).await?;
        if choice.is_enough() || were_all {
            break;
        }
        if gathering.query.limit >= most {
            // What holds a phrase stands far in front among what has its words.
            if gathering.asks_for_phrases() {
                gathering.look(&mut choice, degraded, trace).await?;
            }
            break;
        }
        // A new version that is being indexed stands in front of the old one, which still answers: look behind it.
        gathering.query.limit = gathering.query.limit.saturating_mul(4).min(most);
    }
    Ok(choice)
}

/// A search that goes on until there is enough.
struct Gathering<'a> {
    app: &'a App,
    space: &'a Space,
    reads_rows: bool,
    /// The question has no vector, since the index rested.
    is_spared: bool,
    question: Question,
    rows: Rows<'a>,
    query: SearchQuery,
}

impl Gathering<'_> {
    /// Takes in what the query finds and was not looked at before. Whether that was all there is.
    async fn look(
        &mut self,
        choice: &mut Choice<'_>,
        degraded: &mut Vec<Degradation>,
        trace: &mut Trace,
    ) -> Result<bool> {
        let started = Instant::now();
        let (candidates, were_all) = self.ask(degraded).await?;
        trace.add(StageName::Index, started, Vec::new);
        let started = Instant::now();
        let judged = self.question.judge(&candidates);
        trace.add(StageName::Fuse, started, Vec::new);
        self.rows.offer(&judged, choice, trace).await?;
        Ok(were_all)
    }

    /// What the index finds, or else what is found in the rows, and whether there is no more.
    async fn ask(&self, degraded: &mut Vec<Degradation>) -> Result<(Candidates, bool)> {
        let asker = self.rows.reach.tenant_id;
        let error = match self.space.index_rest.trial(asker, self.app.clock.now()) {
            None => None,
            Some(trial) => {
                let tenant_id = retrieval::TenantId(asker.0);
                match self.space.index.search(tenant_id, self.query.clone()).await {
                    Ok(candidates) => {
                        trial.succeeded();
                        if self.is_spared {
                            Degradation::WORDS_ALONE.note(degraded);
                        }
                        let were_all = candidates.hits.len() < self.query.limit;
                        return Ok((candidates, were_all));
                    }
                    Err(error @ IndexError::Unavailable { .. }) => {
                        let concerns = match error.concerns_everybody() {
                            true => Concerns::Everybody,
                            false => Concerns::Tenant,
                        };
                        trial.failed(self.app.clock.now(), None, concerns);
                        Some(error)
                    }
                    Err(error) => return Err(index_error(error)),
                }
            }
        };
        if let Some(error) = &error {
            tracing::warn!(error = ?error, "the index does not answer: words are looked for in the rows");
        }
        if !self.reads_rows {
            return Err(index_error(error.unwrap_or_else(at_rest)));
        }
        Degradation::INDEX_UNAVAILABLE.note(degraded);
        let place = (asker, self.rows.chatbot_id);
        let found = without_index::search(self.app, place, &self.query).await?;
        Ok((found, true))
    }

    /// Turns to what the query's phrases alone find; false: there are none.
    fn asks_for_phrases(&mut self) -> bool {
        let phrases: Vec<&str> = self.rows.query.phrases().collect();
        if phrases.is_empty() {
            return false;
        }
        self.query.text = phrases.join(" ");
        self.query.vector = None;
        true
    }
}

fn at_rest() -> IndexError {
    IndexError::Unavailable {
        reason: "it failed a moment ago and is left alone".to_owned(),
        source: None,
    }
}

/// What the index is asked for.
fn index_filter(cuts: &[CutId], filter: SearchFilter) -> Filter {
    let languages = |tags: Vec<String>| tags.iter().filter_map(|tag| primary_language(tag)).collect();
    Filter {
        sources: cuts.iter().map(|cut| cut.in_index()).collect(),
        documents: filter
            .document_ids
            .map(|ids| ids.into_iter().map(|id| retrieval::DocumentId(id.0)).collect()),
        languages: filter.languages.map(languages),
        tags: filter.tags,
        since: filter.since.map(|since| since.timestamp()),
        until: filter.until.map(|until| until.timestamp()),
        audience: filter.audience,
    }
}
