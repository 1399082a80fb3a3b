//! How a new generation answers the questions that the live one answers: those of the tenant's test sets, whose right
//! answers are known, and else the latest that visitors asked.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use retrieval::index::Audience;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{cuts, live, store};
use crate::app::App;
use crate::db::Conn;
use crate::error::{Error, Result};
use crate::evals;
use crate::http::access::Reach;
use crate::id::{ChatbotId, CutId, GenerationId, TenantId};
use crate::knowledge::degraded::Degradation;
use crate::knowledge::{self, Aim, Passage};
use crate::secrets::token_hash;

/// Questions of test sets that are asked, at most.
const MOST_QUESTIONS: usize = 500;

/// Questions of visitors that are asked, where there is no test set.
const LATEST_QUESTIONS: i64 = 50;

/// Passages that a question is answered with here.
const PASSAGES: usize = 10;

/// When a new generation is asked again whose model did not answer.
const MODEL_RETRY: Duration = Duration::from_secs(30);

/// A new generation against the live one, over the same questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = GenerationComparison)]
pub struct Comparison {
    /// Questions that were asked of both.
    pub questions: i64,
    /// Questions of them for which neither found anything: they tell nothing, and are not in the overlap.
    #[serde(default)]
    pub found_nothing: i64,
    /// Questions that were not asked; why, says `unfinished`.
    #[serde(default)]
    pub not_asked: i64,
    /// Why not all questions were asked; null: all were.
    #[serde(default)]
    pub unfinished: Option<Unfinished>,
    /// Share of the live one's ten best passages that are among the new one's ten best, on average; null without any.
    pub overlap_at_10: Option<f64>,
    /// Questions of them whose right documents or answers are known, from test sets.
    pub judged: i64,
    /// nDCG@10 of the live one and of the new one over these; null without any.
    pub live_ndcg_at_10: Option<f64>,
    pub new_ndcg_at_10: Option<f64>,
    /// Judged questions for which the new one is better, and worse.
    pub better: i64,
    pub worse: i64,
}

/// Why questions of a comparison were not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = GenerationComparisonUnfinished)]
#[serde(rename_all = "snake_case")]
pub enum Unfinished {
    /// A monthly limit was reached, and embedding questions costs.
    BudgetExceeded,
}

/// How both answered one question.
#[derive(Clone, Copy, Debug, Default, sqlx::FromRow)]
pub(super) struct Answer {
    /// None: it could not be asked any more.
    pub overlap: Option<f64>,
    /// Neither found anything.
    pub found_nothing: bool,
    pub live_ndcg: Option<f64>,
    pub new_ndcg: Option<f64>,
}

/// A question, and what is expected if that is known.
struct Asked {
    chatbot_id: ChatbotId,
    question: String,
    /// Access groups of the visitor.
    groups: Vec<String>,
    expected: Option<evals::Expected>,
}

impl Asked {
    /// What it is kept under: the same words that are expected to find something else are another question.
    fn hash(&self) -> String {
        let expected = serde_json::to_string(&self.expected).unwrap_or_default();
        let groups = self.groups.join(",");
        token_hash(&format!(
            "{}\n{expected}\n{groups}\n{}",
            self.chatbot_id, self.question
        ))
    }
}

/// What is compared with what answers.
pub(super) struct Candidate {
    pub tenant_id: TenantId,
    pub kept: Kept,
    pub aim: Aim,
    /// Only the questions of this chatbot concern it.
    pub chatbot_id: Option<ChatbotId>,
}

/// By what the answers are kept until all questions were asked.
pub(super) enum Kept {
    Generation(GenerationId),
    Cut(CutId),
}

impl Candidate {
    async fn list_answers(&self, conn: &mut Conn) -> Result<HashMap<String, Answer>> {
        let answers = match self.kept {
            Kept::Generation(id) => store::list_answers(conn, self.tenant_id, id).await?,
            Kept::Cut(id) => cuts::list_answers(conn, self.tenant_id, id).await?,
        };
        Ok(answers.into_iter().collect())
    }

    async fn keep(&self, app: &App, hash: &str, answer: Answer) -> Result<()> {
        let mut write = app.db.write(self.tenant_id).await?;
        match self.kept {
            Kept::Generation(id) => {
                store::insert_answer(&mut write, (self.tenant_id, id), hash, answer).await?;
            }
            Kept::Cut(id) => cuts::insert_answer(&mut write, (self.tenant_id, id), hash, answer).await?,
        }
        write.commit().await
    }
}

/// Asks both what was not asked yet, and keeps each question's answers; none: the turn is over before all were asked.
pub(super) async fn compare(
    app: &App,
    candidate: &Candidate,
    is_over: impl Fn() -> bool,
) -> Result<Option<Comparison>> {
    let tenant_id = candidate.tenant_id;
    let mut conn = app.db.read(tenant_id).await?;
    let live = Aim {
        space: live(app, &mut conn, tenant_id).await?.space,
        cut: None,
    };
    let questions = by_hash(list_questions(&mut conn, tenant_id, candidate.chatbot_id).await?);
    let mut answers = candidate.list_answers(&mut conn).await?;
    drop(conn);
    // Visitors go on asking: what was asked in earlier turns counts as well.
    let most = questions.len();
    let mut unfinished = None;
    for (hash, asked) in questions {
        if answers.len() >= most {
            break;
        }
        if answers.contains_key(&hash) {
            continue;
        }
        if is_over() {
            return Ok(None);
        }
        let answer = match ask(app, tenant_id, (&live, &candidate.aim), &asked).await {
            Ok(answer) => answer,
            // Its chatbot was deleted meanwhile.
            Err(Error::NotFound(_)) => Answer::default(),
            Err(Error::BudgetExceeded { .. }) => {
                unfinished = Some(Unfinished::BudgetExceeded);
                break;
            }
            Err(error) => return Err(error),
        };
        candidate.keep(app, &hash, answer).await?;
        answers.insert(hash, answer);
    }
    let not_asked = unfinished.map_or(0, |_| most.saturating_sub(answers.len()));
    Ok(Some(Comparison {
        not_asked: i64::try_from(not_asked).unwrap_or(i64::MAX),
        unfinished,
        ..Comparison::of(answers.values())
    }))
}

/// Each question once, in their order.
fn by_hash(questions: Vec<Asked>) -> Vec<(String, Asked)> {
    let mut seen = HashSet::new();
    let hashed = questions.into_iter().map(|asked| (asked.hash(), asked));
    hashed.filter(|(hash, _)| seen.insert(hash.clone())).collect()
}

/// The questions of the tenant, or of this chatbot of it.
async fn list_questions(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: Option<ChatbotId>,
) -> Result<Vec<Asked>> {
    let of_sets = evals::list_expected(conn, (tenant_id, chatbot_id), MOST_QUESTIONS).await?;
    if !of_sets.is_empty() {
        let known = of_sets.into_iter().map(|(chatbot_id, expected)| Asked {
            chatbot_id,
            question: expected.question.clone(),
            groups: expected.groups.clone(),
            expected: Some(expected),
        });
        return Ok(known.collect());
    }
    let latest = store::list_latest_questions(conn, (tenant_id, chatbot_id), LATEST_QUESTIONS).await?;
    let asked = latest.into_iter().map(|latest| Asked {
        chatbot_id: latest.chatbot_id,
        question: latest.content,
        groups: latest.access_groups.map(|groups| groups.0).unwrap_or_default(),
        expected: None,
    });
    Ok(asked.collect())
}

async fn ask(app: &App, tenant_id: TenantId, (live, new): (&Aim, &Aim), asked: &Asked) -> Result<Answer> {
    // The new one has to show what its model finds. The live one may have none any more: then words are what it answers by.
    let (after, is_by_words) = answer(app, tenant_id, new, asked).await?;
    if is_by_words {
        return Err(Error::Unavailable {
            code: "embedding_unavailable",
            message: "the embedding model of the new generation does not answer".into(),
            retry_after: MODEL_RETRY,
            source: None,
        });
    }
    let (before, _) = answer(app, tenant_id, live, asked).await?;
    let judge = |passages: &[Passage]| evals::ndcg_at_10(asked.expected.as_ref()?, passages);
    Ok(Answer {
        overlap: Some(overlap(&before, &after)),
        found_nothing: before.is_empty() && after.is_empty(),
        live_ndcg: judge(&before),
        new_ndcg: judge(&after),
    })
}

/// As a visitor of these access groups is answered; true: the model did not answer.
async fn answer(app: &App, tenant_id: TenantId, aim: &Aim, asked: &Asked) -> Result<(Vec<Passage>, bool)> {
    let place = (Reach::whole(tenant_id), asked.chatbot_id);
    let question = (asked.question.as_str(), Audience::Groups(asked.groups.clone()));
    let found = knowledge::search_aimed(app, aim, place, question, PASSAGES).await?;
    Ok((found.passages, found.degraded.contains(&Degradation::WORDS_ALONE)))
}

impl Comparison {
    fn of<'a>(answers: impl Iterator<Item = &'a Answer>) -> Self {
        let mut comparison = Self::default();
        let (mut overlaps, mut live_sum, mut new_sum) = (0.0, 0.0, 0.0);
        for answer in answers {
            let Some(overlap) = answer.overlap else { continue };
            comparison.questions += 1;
            if answer.found_nothing {
                comparison.found_nothing += 1;
            } else {
                overlaps += overlap;
            }
            let (Some(live), Some(new)) = (answer.live_ndcg, answer.new_ndcg) else {
                continue;
            };
            comparison.judged += 1;
            live_sum += live;
            new_sum += new;
            comparison.better += i64::from(new > live);
            comparison.worse += i64::from(new < live);
        }
        let mean = |sum: f64, count: i64| (count > 0).then(|| sum / count as f64);
        comparison.overlap_at_10 = mean(overlaps, comparison.questions - comparison.found_nothing);
        comparison.live_ndcg_at_10 = mean(live_sum, comparison.judged);
        comparison.new_ndcg_at_10 = mean(new_sum, comparison.judged);
        comparison
    }
}

/// Share of the first passages that are among the second; none where there are none.
fn overlap(before: &[Passage], after: &[Passage]) -> f64 {
    if before.is_empty() {
        return 0.0;
    }
    let is_found = |passage: &&Passage| after.iter().any(|other| is_same(passage, other));
    before.iter().filter(is_found).count() as f64 / before.len() as f64
}

/// The same chunk; of another cut, one that tells some of the same.
fn is_same(passage: &Passage, other: &Passage) -> bool {
    let shares_a_span =
        passage.document_id == other.document_id && passage.start < other.end && other.start < passage.end;
    passage.chunk_id == other.chunk_id || (passage.cut != other.cut && shares_a_span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_for_which_neither_found_anything_are_counted_and_are_no_agreement() {
        let answer = |overlap, found_nothing| Answer {
            overlap: Some(overlap),
            found_nothing,
            ..Answer::default()
        };

        let compared = Comparison::of([answer(0.5, false), answer(0.0, true)].iter());
        assert_eq!((compared.questions, compared.found_nothing), (2, 1));
        assert_eq!(compared.overlap_at_10, Some(0.5));

        let nothing = Comparison::of([answer(0.0, true)].iter());
        assert_eq!(nothing.overlap_at_10, None);
    }
}
