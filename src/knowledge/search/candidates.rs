//! What the index and the rows have to offer for a question, before a reranker looks at it. Where the index does not answer,
//! the rows are read instead.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use retrieval::analysis::{self, TextLanguages};
use retrieval::index::{Candidates, Filter, IndexError, SearchQuery};
use retrieval::question::{ModelTraits, Question};

use super::boosts::Boosts;
use super::choice::{Choice, Wanted};
use super::explain::{StageName, Trace};
use super::rows::Rows;
use super::{Search, SearchFilter, without_index};
use crate::app::{App, Space};
use crate::db::Conn;
use crate::error::{Error, Result};
use crate::http::access::Reach;
use crate::id::CutId;
use crate::knowledge::degraded::Degradation;
use crate::knowledge::labels::{languages_of, primary_language};
use crate::rest::Concerns;

/// Candidates asked of the index beyond the wanted passages: some may have lost their rows.
const SPARE_CANDIDATES: usize = 8;

/// Candidates of each side at which a search gives up looking behind those that nobody may read.
const MOST_CANDIDATES: usize = 4096;

/// Readable candidates of each side that are looked through for a phrase, or for what does not say an excluded word.
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
    let languages = match analysis::detect(&search.query.text) {
        Some(_) => TextLanguages::default(),
        None => {
            let mut conn = app.db.read(reach.tenant_id).await?;
            languages_of(&mut conn, reach.tenant_id, search.chatbot_id).await?
        }
    };
    let question = Question::of(&search.query.text, model, &languages);
    let settings = search.settings;
    let reranked = app.reranker.as_ref().filter(|_| settings.rerank);
    let wanted = Wanted {
        limit: search.limit,
        reranked: reranked.map(|_| app.config.rerank.top_n),
        without_repetitions: search.filter.without_repetitions,
        threshold: search.threshold,
    };
    let mut choice = Choice::new(settings, Boosts::of(settings, app.clock.now()), wanted);
    let mut gathering = Gathering {
        app,
        space: &space,
        reads_rows: search.reads_rows,
        is_spared: search.embedded.is_spared,
        rows: Rows {
            reach,
            chatbot_id: search.chatbot_id,
            query: search.query,
            audience: search.filter.audience.clone(),
            readable: HashMap::new(),
            offered: HashSet::new(),
            versions: HashMap::new(),
        },
        query: question.query(
            search.embedded.vector.clone(),
            index_filter(&search.cuts, search.filter),
            choice.pool() + SPARE_CANDIDATES,
        ),
        question,
        unreadable: 0,
        is_crowded: false,
    };
    loop {
        let were_all = gathering.look(&mut choice, degraded, trace).await?;
        if choice.is_enough() || were_all {
            return Ok(choice);
        }
        if gathering.may_look_behind() {
            // What nobody may read stands in front, as a new version does that is being indexed: look behind it.
            gathering.query.limit = gathering.query.limit.saturating_mul(4).min(gathering.most());
        } else if !gathering.turns_to_phrases() {
            break;
        }
    }
    if gathering.is_crowded {
        Degradation::INDEX_INCOMPLETE.note(degraded);
        gathering.look_into_rows(&mut choice, trace).await?;
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
    /// How many of the last candidates nobody may read, and whether they were most of them.
    unreadable: usize,
    is_crowded: bool,
}

impl Gathering<'_> {
    /// Takes in what the query finds and was not looked at before. Whether that was all there is.
    ///
    /// What nobody may read is left out before anything is judged: it says nothing of what the others are worth. Where that
    /// leaves few to judge by, nothing is taken in yet if one may look behind them.
    async fn look(
        &mut self,
        choice: &mut Choice<'_>,
        degraded: &mut Vec<Degradation>,
        trace: &mut Trace,
    ) -> Result<bool> {
        let started = Instant::now();
        let (mut candidates, were_all) = self.ask(degraded).await?;
        trace.add(StageName::Index, started, Vec::new);
        let mut conn = self.app.db.read(self.rows.reach.tenant_id).await?;
        let started = Instant::now();
        let found = candidates.hits.len();
        self.rows.keep_readable(&mut conn, &mut candidates).await?;
        trace.add(StageName::Rows, started, Vec::new);
        self.unreadable = found - candidates.hits.len();
        self.is_crowded = self.unreadable > candidates.hits.len();
        if self.is_crowded && !were_all && self.may_look_behind() {
            return Ok(false);
        }
        self.offer(&mut conn, &candidates, choice, trace).await?;
        Ok(were_all)
    }

    /// Judges the candidates, and offers `choice` the passages behind them.
    async fn offer(
        &mut self,
        conn: &mut Conn,
        candidates: &Candidates,
        choice: &mut Choice<'_>,
        trace: &mut Trace,
    ) -> Result<()> {
        let started = Instant::now();
        let judged = self.question.judge(candidates);
        trace.add(StageName::Fuse, started, Vec::new);
        self.rows.offer(conn, &judged, choice, trace).await
    }

    /// Candidates of each side that are asked for at most.
    fn most(&self) -> usize {
        match self.rows.query.has_operators() {
            // What nobody may read is not looked through.
            true => (MOST_LOOKED_THROUGH + self.unreadable).min(MOST_CANDIDATES),
            false => MOST_CANDIDATES,
        }
    }

    fn may_look_behind(&self) -> bool {
        self.query.limit < self.most()
    }

    /// Looks for the words in the rows, where what nobody may read hides in the index what stands behind it.
    async fn look_into_rows(&mut self, choice: &mut Choice<'_>, trace: &mut Trace) -> Result<()> {
        if !self.reads_rows {
            return Ok(());
        }
        let place = (self.rows.reach.tenant_id, self.rows.chatbot_id);
        let candidates = match without_index::search(self.app, place, &self.query).await {
            Ok(candidates) => candidates,
            // What the index found is told all the same.
            Err(Error::Unavailable { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut conn = self.app.db.read(place.0).await?;
        self.offer(&mut conn, &candidates, choice, trace).await
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
                        let were_all = self.question.are_all(&candidates, self.query.limit);
                        return Ok((candidates, were_all));
                    }
                    Err(error @ (IndexError::Unavailable { .. } | IndexError::Damaged { .. })) => {
                        let concerns = match error.concerns_everybody() {
                            true => Concerns::Everybody,
                            false => Concerns::Tenant,
                        };
                        trial.failed(self.app.clock.now(), None, concerns);
                        Some(error)
                    }
                    // It would answer: this is no reason to leave it alone.
                    Err(error @ IndexError::Overloaded) => Some(error),
                    Err(error) => return Err(Error::from(error)),
                }
            }
        };
        if let Some(error) = &error {
            tracing::warn!(error = ?error, "the index gave no answer: words are looked for in the rows");
        }
        if !self.reads_rows {
            return Err(Error::from(error.unwrap_or_else(at_rest)));
        }
        let is_overloaded = matches!(error, Some(IndexError::Overloaded));
        match is_overloaded {
            true => Degradation::INDEX_OVERLOADED.note(degraded),
            false => Degradation::INDEX_UNAVAILABLE.note(degraded),
        }
        let place = (asker, self.rows.chatbot_id);
        match without_index::search(self.app, place, &self.query).await {
            Ok(found) => Ok((found, true)),
            Err(Error::Unavailable { .. }) if is_overloaded => Err(Error::from(IndexError::Overloaded)),
            Err(error) => Err(error),
        }
    }

    /// Turns to what the query's phrases alone find: what holds one stands far in front among what has its words. False: there
    /// are none, or it did so before.
    fn turns_to_phrases(&mut self) -> bool {
        let phrases: Vec<&str> = self.rows.query.phrases().collect();
        let phrases = phrases.join(" ");
        if phrases.is_empty() || phrases == self.query.text {
            return false;
        }
        self.query.text = phrases;
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
