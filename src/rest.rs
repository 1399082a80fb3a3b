//! Leaving alone what does not answer: after a failure a model's server or an index rests for a while, and who needs it goes
//! on at once without it. Then one of them tries it; by that it is asked by all again, or rests for longer.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

/// The rest after a first failure; each further one is twice as long.
const FIRST_REST: Duration = Duration::from_secs(1);

/// The longest rest that nobody asked for.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// The longest rest that is believed: what asks for more means never, or its clock is wrong.
const LONGEST_ASKED_REST: Duration = Duration::from_secs(600);

/// Whether something is asked at present.
#[derive(Debug, Default)]
pub struct Rest(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    until: Option<DateTime<Utc>>,
    /// Somebody tries it.
    is_tried: bool,
}

/// Leave to ask. Dropped without a verdict it tells nothing: who asked went away.
#[derive(Debug)]
pub struct Trial<'a> {
    rest: &'a Rest,
    /// The failures in a row when it was given out; what was asked before the latest of them tells nothing new.
    failures: u32,
    is_only_one: bool,
}

impl Rest {
    /// Leave to ask; none while it rests, and while the first after a rest tries it.
    pub fn trial(&self, now: DateTime<Utc>) -> Option<Trial<'_>> {
        let mut state = self.lock();
        let mut is_only_one = false;
        if let Some(until) = state.until {
            // A clock that was set back does not make a rest longer than any is.
            let is_over = now >= until || until - now > as_delta(LONGEST_ASKED_REST);
            if !is_over || state.is_tried {
                return None;
            }
            state.is_tried = true;
            is_only_one = true;
        }
        Some(Trial {
            rest: self,
            failures: state.failures,
            is_only_one,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trial<'_> {
    /// It answered.
    pub fn succeeded(self) {
        let mut state = self.rest.lock();
        if state.failures == self.failures {
            (state.failures, state.until) = (0, None);
        }
    }

    /// It did not answer, and asked to be left alone for so long, if it asked.
    pub fn failed(self, now: DateTime<Utc>, asked: Option<Duration>) {
        let mut state = self.rest.lock();
        if state.failures != self.failures {
            return;
        }
        let doubled = FIRST_REST.saturating_mul(2_u32.saturating_pow(state.failures));
        let rest = doubled
            .min(LONGEST_REST)
            .max(asked.unwrap_or_default().min(LONGEST_ASKED_REST));
        state.failures = state.failures.saturating_add(1);
        state.until = Some(now + as_delta(rest));
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if self.is_only_one {
            self.rest.lock().is_tried = false;
        }
    }
}

fn as_delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn fail(rest: &Rest, second: i64) {
        rest.trial(at(second)).expect("leave").failed(at(second), None);
    }

    #[test]
    fn after_a_failure_nobody_asks_until_the_rest_is_over_and_then_one() {
        let rest = Rest::default();
        fail(&rest, 0);

        assert!(rest.trial(at(0)).is_none());
        let first = rest.trial(at(1)).expect("the rest is over");
        assert!(rest.trial(at(1)).is_none(), "somebody tries already");
        first.succeeded();

        let (one, other) = (rest.trial(at(1)), rest.trial(at(1)));
        assert!(one.is_some() && other.is_some());
    }

    #[test]
    fn each_failure_makes_the_rest_twice_as_long_up_to_a_minute() {
        let rest = Rest::default();
        let (mut second, mut rests) = (0, Vec::new());
        for _ in 0..9 {
            fail(&rest, second);
            let began = second;
            while rest.trial(at(second)).is_none() {
                second += 1;
            }
            rests.push(second - began);
        }

        assert_eq!(rests, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn who_asks_to_be_left_alone_is_within_reason() {
        let rest = Rest::default();
        let trial = rest.trial(at(0)).expect("leave");
        trial.failed(at(0), Some(Duration::from_secs(20)));
        assert!(rest.trial(at(19)).is_none());

        let trial = rest.trial(at(20)).expect("the time is over");
        trial.failed(at(20), Some(Duration::from_secs(1_000_000)));
        assert!(rest.trial(at(619)).is_none() && rest.trial(at(620)).is_some());
    }

    #[test]
    fn those_who_failed_together_failed_once() {
        let rest = Rest::default();
        let (one, other) = (
            rest.trial(at(0)).expect("leave"),
            rest.trial(at(0)).expect("leave"),
        );
        one.failed(at(0), None);
        other.failed(at(5), None);

        assert!(rest.trial(at(1)).is_some(), "the rest is that of one failure");
    }

    #[test]
    fn who_was_asked_before_the_failure_does_not_end_the_rest() {
        let rest = Rest::default();
        let early = rest.trial(at(0)).expect("leave");
        fail(&rest, 0);
        early.succeeded();

        assert!(rest.trial(at(0)).is_none());
    }

    #[test]
    fn who_leaves_while_trying_lets_the_next_one_try() {
        let rest = Rest::default();
        fail(&rest, 0);
        drop(rest.trial(at(1)).expect("the rest is over"));

        assert!(rest.trial(at(1)).is_some());
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_keep_it_resting() {
        let rest = Rest::default();
        fail(&rest, 100_000);

        assert!(rest.trial(at(0)).is_some());
    }
}
