//! Carries out a run: asks one question after the other the way visitors' questions are asked, and keeps what came of each,
//! so that a run whose process died goes on where it was. Each is asked as a visitor of its access groups.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use retrieval::index::Audience;
use retrieval::operators::Query;
use serde::{Deserialize, Serialize};

use super::store::{self, Ending};
use super::{EvalQuestion, EvalResult, EvalSummary, GivenAnswer, Setup, judging};
use crate::app::App;
use crate::chat::{self, AnswerSource, Thread, TurnRequest};
use crate::chatbots::{self, Chatbot};
use crate::db::Write;
use crate::error::{Error, Result};
use crate::http::access::Reach;
use crate::id::{ChatbotId, DocumentId, EvalRunId, TenantId};
use crate::jobs::{Failure, Job, JobContext, Outcome, Priority};
use crate::knowledge::{self, Purpose, SearchFilter, Trace};
use crate::llm::QUOTA_EXHAUSTED;

/// Passages that a question's ranking of documents is made of. What the chatbot would say is told by those that a chat reads.
const PASSAGES: usize = 100;

/// Documents of it that are kept.
const KEPT: usize = 10;

/// So long a run asks before others have their turn.
const TURN: Duration = Duration::from_secs(60);

/// What the ledger names as the way in.
const CHANNEL: &str = "eval";

/// Asks the questions of a run.
#[derive(Debug, Serialize, Deserialize)]
pub struct RunEval {
    pub chatbot_id: ChatbotId,
    pub run_id: EvalRunId,
}

/// How far one turn of a run came.
enum Progress {
    Finished,
    Unfinished,
}

impl Job for RunEval {
    const KIND: &'static str = "run_eval";
    const PRIORITY: Priority = Priority::Bulk;
    const TIMEOUT: Duration = Duration::from_secs(30 * 60);

    async fn run(self, app: App, context: JobContext) -> Outcome {
        match run(&app, &context, &self).await {
            Ok(Progress::Unfinished) => Outcome::TurnOver,
            // Waiting does not bring the month's budget back.
            Err(Error::BudgetExceeded { message, .. }) => Outcome::Fail {
                reason: message.into_owned(),
            },
            ended => ended.map(drop).into(),
        }
    }

    fn on_failed<'a>(
        self,
        _app: &'a App,
        write: &'a mut Write,
        tenant_id: Option<TenantId>,
        failure: Failure<'a>,
        now: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let Some(tenant_id) = tenant_id else { return Ok(()) };
            store::finish_run(write, tenant_id, self.run_id, Ending::Failed(failure.reason), now).await
        })
    }
}

async fn run(app: &App, context: &JobContext, job: &RunEval) -> Result<Progress> {
    let started = Instant::now();
    let tenant_id = context.tenant()?;
    let reach = Reach::whole(tenant_id);
    let chatbot = chatbots::get(app, reach, job.chatbot_id).await?;
    let mut conn = app.db.read(tenant_id).await?;
    let Some(open) = store::find_open_run(&mut conn, tenant_id, job.run_id).await? else {
        return Ok(Progress::Finished);
    };
    drop(conn);
    let mut setup = match open.setup {
        Some(noted) => noted.0,
        None => {
            let setup = Setup::now(app, tenant_id, job.chatbot_id).await?;
            let mut write = app.db.write(tenant_id).await?;
            store::set_setup(&mut write, tenant_id, job.run_id, &setup).await?;
            write.commit().await?;
            setup
        }
    };
    let asked = usize::try_from(open.done_count).unwrap_or_default();
    for (position, question) in open.questions.iter().enumerate().skip(asked) {
        if started.elapsed() >= TURN {
            return Ok(Progress::Unfinished);
        }
        let result = ask(app, reach, &chatbot, question, open.with_answers).await?;
        let mut write = app.db.write(tenant_id).await?;
        if !store::insert_result(&mut write, tenant_id, job.run_id, position as i64, &result).await? {
            return Ok(Progress::Finished);
        }
        write.commit().await?;
    }
    let results = store::list_results(&mut app.db.read(tenant_id).await?, tenant_id, job.run_id).await?;
    let ending = Ending::Done(EvalSummary::of(&results));
    setup.is_ended_with(&Setup::now(app, tenant_id, job.chatbot_id).await?);
    let mut write = app.db.write(tenant_id).await?;
    store::set_setup(&mut write, tenant_id, job.run_id, &setup).await?;
    store::finish_run(&mut write, tenant_id, job.run_id, ending, app.clock.now()).await?;
    write.commit().await?;
    Ok(Progress::Finished)
}

async fn ask(
    app: &App,
    reach: Reach,
    chatbot: &Chatbot,
    question: &EvalQuestion,
    with_answer: bool,
) -> Result<EvalResult> {
    let expected = &question.expected;
    let started = Instant::now();
    let query = Query::said(&expected.question);
    let filter = SearchFilter {
        audience: Audience::Groups(expected.groups.clone()),
        ..SearchFilter::default()
    };
    let (place, wanted) = ((reach, chatbot.id), (PASSAGES, Purpose::Eval));
    let found = knowledge::search(app, place, &query, wanted, filter, Trace::default()).await?;
    let told = found
        .told
        .ok_or_else(|| Error::internal("a run asks what a chat is told"))?;
    let latency = started.elapsed().saturating_sub(told.took);
    let ranking = judging::ranking(&found.passages);
    let right = judging::right_documents(expected, &found.passages);
    let (answer, failure) = match with_answer {
        true => answer_or_failure(app, reach, chatbot, question).await?,
        false => (None, None),
    };
    Ok(EvalResult {
        question_id: question.id,
        question: expected.question.clone(),
        conversation_id: question.conversation_id,
        answerable: expected.answerable,
        expected: Some(expected.clone()),
        rank: ranking
            .iter()
            .position(|id| right.contains(id))
            .map(|position| position as i64 + 1),
        measures: expected.answerable.then(|| judging::measure(&ranking, &right)),
        is_first_right: judging::is_first_right(expected, told.first()),
        found: ranking.into_iter().take(KEPT).collect(),
        confidence: told.confidence().map(|confidence| f64::from(confidence.value)),
        is_answered: told.is_enough(),
        latency_ms: latency.as_secs_f64() * 1e3,
        degraded: !found.degraded.is_empty(),
        answer,
        failure,
    })
}

/// What the chatbot says, or why it says nothing to this question; what holds for all questions fails.
async fn answer_or_failure(
    app: &App,
    reach: Reach,
    chatbot: &Chatbot,
    question: &EvalQuestion,
) -> Result<(Option<GivenAnswer>, Option<String>)> {
    match answer(app, reach, chatbot, question).await {
        Ok(answer) => Ok((Some(answer), None)),
        Err(Error::Upstream { code, message, .. }) if code != QUOTA_EXHAUSTED => {
            Ok((None, Some(message.into_owned())))
        }
        Err(error) => Err(error),
    }
}

/// A turn of its own: nothing of it stays in a conversation, and it is booked like any other.
async fn answer(app: &App, reach: Reach, chatbot: &Chatbot, question: &EvalQuestion) -> Result<GivenAnswer> {
    let request = TurnRequest {
        reach,
        chatbot_id: chatbot.id,
        thread: Thread::Stateless(Vec::new()),
        question: question.expected.question.clone(),
        audience: Audience::Groups(question.expected.groups.clone()),
        streamed: false,
        channel: CHANNEL,
        origin: None,
    };
    let answer = chat::start(app, request).await?.finish().await?;
    let mut cited: Vec<DocumentId> = Vec::new();
    for citation in &answer.citations {
        if !cited.contains(&citation.document_id) {
            cited.push(citation.document_id);
        }
    }
    let expected = question.expected.answer.as_ref();
    Ok(GivenAnswer {
        holds_expected: expected
            .map(|wanted| answer.source != AnswerSource::NoAnswer && judging::says(&answer.answer, wanted)),
        text: answer.answer,
        source: answer.source,
        cited,
    })
}
