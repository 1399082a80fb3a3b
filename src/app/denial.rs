//! A model's server that lets nobody ask: a wrong key, nothing left of what was paid for, a model or an address that it does not
//! know. Only its operator ends that. Until then what is brought in waits: one call after each rest finds out whether it is over.
//! What takes the server longer than it has waits likewise, since each call for it may have to be paid.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use retrieval::embed::{EmbedError, Embeddings};

use crate::rest::{Rest, Trial};

/// The shortest time after which it is worth another look.
const SHORTEST_PAUSE: Duration = Duration::from_secs(5);

/// Why documents wait for a server that does not answer what it is asked for in time.
const TOO_SLOW: &str =
    "a request takes it longer than embedding.timeout_s, which is tried again with fewer texts at once";

/// Whether the server lets this service ask.
#[derive(Debug, Default)]
pub struct Denial {
    rest: Rest,
    reason: Mutex<Option<String>>,
}

/// Leave to ask for texts of documents. Dropped without a verdict it tells nothing.
#[derive(Debug)]
pub struct DenialTrial<'a> {
    denial: &'a Denial,
    trial: Trial,
}

impl Denial {
    /// What the server said last, in words that anybody may read; none: it lets us ask.
    pub fn reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Leave to ask; the error is why there is none at present.
    pub fn trial(&self, now: DateTime<Utc>) -> Result<DenialTrial<'_>, String> {
        match self.rest.trial(now) {
            Some(trial) => Ok(DenialTrial { denial: self, trial }),
            None => Err(self.reason().unwrap_or_else(|| TOO_SLOW.to_owned())),
        }
    }

    /// When it is asked again.
    pub fn pause(&self, now: DateTime<Utc>) -> Duration {
        self.rest.time_left(now).max(SHORTEST_PAUSE)
    }

    /// Takes note of what came of asking, whoever asked. What failed for another reason says nothing of it.
    pub fn note(&self, asked: &Result<Embeddings, EmbedError>) {
        match asked {
            // That a question was answered in time says nothing of many texts at once: these have their rest.
            Ok(_) if self.reason().is_none_or(|reason| reason == TOO_SLOW) => self.set_reason(None),
            Ok(_) => self.end(),
            Err(error) => {
                if let Some(reason) = error.denial() {
                    self.set_reason(Some(reason.to_owned()));
                }
            }
        }
    }

    fn end(&self) {
        self.rest.end();
        self.set_reason(None);
    }

    fn set_reason(&self, reason: Option<String>) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}

impl DenialTrial<'_> {
    /// Takes note of what came of it. Returned is why whoever needs it has to wait, if that is so.
    pub fn judge(self, asked: &Result<Embeddings, EmbedError>, now: DateTime<Utc>) -> Option<String> {
        let Err(error) = asked else {
            self.denial.end();
            return None;
        };
        let reason = match error.denial() {
            Some(reason) => reason.to_owned(),
            None if error.is_too_late() => TOO_SLOW.to_owned(),
            None => return None,
        };
        self.denial.set_reason(Some(reason.clone()));
        self.trial.failed(now, None);
        Some(reason)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn denied() -> Result<Embeddings, EmbedError> {
        Err(EmbedError::Denied {
            reason: "wrong key".to_owned(),
        })
    }

    fn answered() -> Result<Embeddings, EmbedError> {
        Ok(Embeddings {
            vectors: Vec::new(),
            tokens: 0,
            reported: true,
        })
    }

    #[test]
    fn after_a_denial_one_call_at_a_time_finds_out_whether_it_is_over() {
        let denial = Denial::default();
        denial.trial(at(0)).expect("leave").judge(&denied(), at(0));
        assert_eq!(denial.reason().as_deref(), Some("wrong key"));
        assert_eq!(denial.trial(at(0)).err().as_deref(), Some("wrong key"));

        let first = denial.trial(at(1)).expect("the rest is over");
        assert!(denial.trial(at(1)).is_err(), "somebody tries already");
        first.judge(&answered(), at(1));

        assert!(denial.reason().is_none() && denial.trial(at(1)).is_ok());
    }

    #[test]
    fn a_question_that_is_answered_in_time_asks_for_no_documents_before_the_rest_is_over() {
        let denial = Denial::default();
        let trial = denial.trial(at(0)).expect("leave");
        assert!(trial.judge(&Err(EmbedError::TooLate), at(0)).is_some());

        denial.note(&answered());
        denial.note(&answered());

        assert!(denial.reason().is_none());
        assert!(
            denial
                .trial(at(0))
                .is_err_and(|reason| reason.contains("timeout_s"))
        );
        let trial = denial.trial(at(1)).expect("the rest is over");
        assert_eq!(trial.judge(&answered(), at(1)), None);
        assert!(denial.trial(at(1)).is_ok());
    }

    #[test]
    fn whoever_is_answered_ends_it_for_all() {
        let denial = Denial::default();
        denial.trial(at(0)).expect("leave").judge(&denied(), at(0));

        denial.note(&answered());

        assert!(denial.reason().is_none() && denial.trial(at(0)).is_ok());
    }

    #[test]
    fn the_pause_grows_to_a_minute() {
        let denial = Denial::default();
        let mut pauses = Vec::new();
        let mut second = 0;
        for _ in 0..9 {
            denial
                .trial(at(second))
                .expect("leave")
                .judge(&denied(), at(second));
            let pause = denial.pause(at(second)).as_secs();
            pauses.push(pause);
            second += i64::try_from(pause).expect("seconds");
        }

        assert_eq!(pauses, [5, 5, 5, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn an_outage_is_no_verdict() {
        let denial = Denial::default();
        denial.note(&denied());

        denial.note(&Err(EmbedError::TooLate));
        assert!(denial.reason().is_some());
    }
}
