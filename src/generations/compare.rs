//! How a new generation answers the questions that the live one answers: those of the tenant's test sets, whose right
//! answers are known, and else the latest that visitors asked.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{live, store};
use crate::app::{App, Space};
use crate::error::{Error, Result};
use crate::evals;
use crate::http::access::Reach;
use crate::id::{ChatbotId, ChunkId, TenantId};
use crate::knowledge::{self, Passage, SearchFilter};

/// Questions of test sets that are asked, at most.
const MOST_QUESTIONS: usize = 500;

/// Questions of visitors that are asked, where there is no test set.
const LATEST_QUESTIONS: i64 = 50;

/// Passages that a question is answered with here.
const PASSAGES: usize = 10;

/// What the ledger names as the way in.
const CHANNEL: &str = "eval";

/// A new generation against the live one, over the same questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = GenerationComparison)]
pub struct Comparison {
    /// Questions that were asked of both.
    pub questions: i64,
    /// Share of the live one's ten best passages that are among the new one's ten best, on average; null without questions.
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

/// A question, and what is expected if that is known.
struct Asked {
    chatbot_id: ChatbotId,
    question: String,
    expected: Option<evals::Expected>,
}

/// Asks both.
pub(super) async fn compare(app: &App, tenant_id: TenantId, new: &Arc<Space>) -> Result<Comparison> {
    let mut conn = app.db.read(tenant_id).await?;
    let live = live(app, &mut conn, tenant_id).await?.space;
    let asked = list_questions(&mut conn, tenant_id).await?;
    drop(conn);
    let mut tally = Tally::default();
    for asked in asked {
        let both = async {
            let before = answer(app, tenant_id, &live, &asked).await?;
            Ok((before, answer(app, tenant_id, new, &asked).await?))
        };
        match both.await {
            Ok((before, after)) => tally.count(&asked, &before, &after),
            // Its chatbot was deleted meanwhile.
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(tally.comparison())
}

async fn list_questions(conn: &mut crate::db::Conn, tenant_id: TenantId) -> Result<Vec<Asked>> {
    let of_sets = evals::list_expected(conn, tenant_id, MOST_QUESTIONS).await?;
    if !of_sets.is_empty() {
        let known = of_sets.into_iter().map(|(chatbot_id, expected)| Asked {
            chatbot_id,
            question: expected.question.clone(),
            expected: Some(expected),
        });
        return Ok(known.collect());
    }
    let latest = store::list_latest_questions(conn, tenant_id, LATEST_QUESTIONS).await?;
    let asked = latest.into_iter().map(|(chatbot_id, question)| Asked {
        chatbot_id,
        question,
        expected: None,
    });
    Ok(asked.collect())
}

/// As a visitor without any access group is answered.
async fn answer(app: &App, tenant_id: TenantId, space: &Arc<Space>, asked: &Asked) -> Result<Vec<Passage>> {
    let place = (Reach::whole(tenant_id), asked.chatbot_id);
    let filter = SearchFilter::default();
    let found =
        knowledge::search_space(app, space, place, &asked.question, (PASSAGES, CHANNEL), filter).await?;
    Ok(found.passages)
}

#[derive(Default)]
struct Tally {
    comparison: Comparison,
    overlap: f64,
    live_ndcg: f64,
    new_ndcg: f64,
}

impl Tally {
    fn count(&mut self, asked: &Asked, before: &[Passage], after: &[Passage]) {
        self.comparison.questions += 1;
        self.overlap += overlap(before, after);
        let judge = |passages: &[Passage]| evals::ndcg_at_10(asked.expected.as_ref()?, passages);
        let (Some(live), Some(new)) = (judge(before), judge(after)) else {
            return;
        };
        self.comparison.judged += 1;
        self.live_ndcg += live;
        self.new_ndcg += new;
        self.comparison.better += i64::from(new > live);
        self.comparison.worse += i64::from(new < live);
    }

    fn comparison(self) -> Comparison {
        let mean = |sum: f64, count: i64| (count > 0).then(|| sum / count as f64);
        Comparison {
            overlap_at_10: mean(self.overlap, self.comparison.questions),
            live_ndcg_at_10: mean(self.live_ndcg, self.comparison.judged),
            new_ndcg_at_10: mean(self.new_ndcg, self.comparison.judged),
            ..self.comparison
        }
    }
}

/// Share of the first passages that are among the second; all where there are none.
fn overlap(before: &[Passage], after: &[Passage]) -> f64 {
    if before.is_empty() {
        return if after.is_empty() { 1.0 } else { 0.0 };
    }
    let found: HashSet<ChunkId> = after.iter().map(|passage| passage.chunk_id).collect();
    let both = before
        .iter()
        .filter(|passage| found.contains(&passage.chunk_id))
        .count();
    both as f64 / before.len() as f64
}
