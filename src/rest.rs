//! Leaving alone what does not answer: after a failure a model's server or an index rests for a while, and who needs it goes
//! on at once without it. Then one of them tries it; by that it is asked by all again, or rests for longer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::id::TenantId;

/// The rest after a first failure; each further one is twice as long.
const FIRST_REST: Duration = Duration::from_secs(1);

/// The longest rest that nobody asked for.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// The longest rest that is believed: what asks for more means never, or its clock is wrong.
pub const LONGEST_ASKED_REST: Duration = Duration::from_secs(600);

/// Whether something that tenants share is asked at present. It rests for the tenant whose question it did not answer, so that
/// no tenant's questions keep it from the others, and for all when the failure is nobody's own.
#[derive(Debug, Default)]
pub struct SharedRest {
    all: Rest,
    tenants: Mutex<Tenants>,
}

#[derive(Debug, Default)]
struct Tenants {
    /// Of those whose latest question failed.
    rests: HashMap<TenantId, Rest>,
    /// Whose question failed last for a reason that nobody knows, unless one was answered since.
    failed_last: Option<TenantId>,
}

/// Whom a failure says something about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concerns {
    Everybody,
    /// What was asked, or what is kept for who asked.
    Tenant,
    /// Nobody knows until a second tenant's question fails as well.
    Unknown,
}

/// Leave to ask for a tenant. Dropped without a verdict it tells nothing.
#[derive(Debug)]
pub struct SharedTrial<'a> {
    shared: &'a SharedRest,
    tenant_id: TenantId,
    all: Trial,
    own: Trial,
}

impl SharedRest {
    /// Leave to ask; none while it rests for this tenant or for all, and while the first after a rest tries it.
    pub fn trial(&self, tenant_id: TenantId, now: DateTime<Utc>) -> Option<SharedTrial<'_>> {
        let own = self.lock().rests.get(&tenant_id).cloned().unwrap_or_default();
        Some(SharedTrial {
            shared: self,
            tenant_id,
            own: own.trial(now)?,
            all: self.all.trial(now)?,
        })
    }

    /// Whether there would be no leave to ask.
    pub fn is_resting(&self, tenant_id: TenantId, now: DateTime<Utc>) -> bool {
        let own = self.lock().rests.get(&tenant_id).cloned().unwrap_or_default();
        own.lock().is_resting(now) || self.all.lock().is_resting(now)
    }

    fn lock(&self) -> MutexGuard<'_, Tenants> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedTrial<'_> {
    /// It answered.
    pub fn succeeded(self) {
        self.all.succeeded();
        self.own.succeeded();
        let mut tenants = self.shared.lock();
        tenants.failed_last = None;
        if let Some(rest) = tenants.rests.get(&self.tenant_id)
            && rest.lock().failures == 0
        {
            tenants.rests.remove(&self.tenant_id);
        }
    }

    /// It did not answer, and asked to be left alone for so long, if it asked.
    pub fn failed(self, now: DateTime<Utc>, asked: Option<Duration>, concerns: Concerns) {
        if concerns == Concerns::Everybody {
            self.all.failed(now, asked);
            return;
        }
        let mut tenants = self.shared.lock();
        let rest = tenants.rests.entry(self.tenant_id);
        rest.or_insert_with(|| self.own.rest.clone());
        self.own.failed(now, asked);
        if concerns == Concerns::Unknown {
            let before = tenants.failed_last.replace(self.tenant_id);
            if before.is_some_and(|tenant_id| tenant_id != self.tenant_id) {
                self.all.failed(now, asked);
            }
        }
    }
}

/// Whether something is asked at present. Clones are of the same thing.
#[derive(Clone, Debug, Default)]
pub struct Rest(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    until: Option<DateTime<Utc>>,
    /// Somebody tries it.
    is_tried: bool,
}

/// Leave to ask. Dropped without a verdict it tells nothing.
#[derive(Debug)]
pub struct Trial {
    rest: Rest,
    /// The failures in a row when it was given out; what was asked before the latest of them tells nothing new.
    failures: u32,
    is_only_one: bool,
}

impl Rest {
    /// How long nobody is to ask.
    pub fn time_left(&self, now: DateTime<Utc>) -> Duration {
        let until = self.lock().until.unwrap_or(now);
        (until - now).to_std().unwrap_or_default().min(LONGEST_ASKED_REST)
    }

    /// It is known otherwise that it answers.
    pub fn end(&self) {
        let mut state = self.lock();
        (state.failures, state.until) = (0, None);
    }

    /// Leave to ask; none while it rests, and while the first after a rest tries it.
    pub fn trial(&self, now: DateTime<Utc>) -> Option<Trial> {
        let mut state = self.lock();
        if state.is_resting(now) {
            return None;
        }
        let is_only_one = state.until.is_some();
        state.is_tried |= is_only_one;
        Some(Trial {
            rest: self.clone(),
            failures: state.failures,
            is_only_one,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_resting(&self, now: DateTime<Utc>) -> bool {
        self.until.is_some_and(|until| {
            // A clock that was set back does not make a rest longer than any is.
            let is_over = now >= until || until - now > as_delta(LONGEST_ASKED_REST);
            !is_over || self.is_tried
        })
    }
}

impl Trial {
    /// It answered.
    pub fn succeeded(&self) {
        let mut state = self.rest.lock();
        if state.failures == self.failures {
            (state.failures, state.until) = (0, None);
        }
    }

    /// It did not answer, and asked to be left alone for so long, if it asked.
    pub fn failed(&self, now: DateTime<Utc>, asked: Option<Duration>) {
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

impl Drop for Trial {
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
        drop(trial);
        assert!(rest.trial(at(19)).is_none());

        let trial = rest.trial(at(20)).expect("the time is over");
        trial.failed(at(20), Some(Duration::from_secs(1_000_000)));
        drop(trial);
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

    fn fail_for(shared: &SharedRest, tenant_id: TenantId, second: i64, concerns: Concerns) {
        let trial = shared.trial(tenant_id, at(second)).expect("leave");
        trial.failed(at(second), None, concerns);
    }

    #[test]
    fn a_tenants_failures_keep_it_from_that_tenant_alone() {
        let (acme, globex, shared) = (TenantId::new(), TenantId::new(), SharedRest::default());
        for second in [0, 1, 3, 7] {
            fail_for(&shared, acme, second, Concerns::Tenant);
        }

        assert!(shared.is_resting(acme, at(8)) && shared.trial(acme, at(8)).is_none());
        assert!(!shared.is_resting(globex, at(8)));
        shared.trial(globex, at(8)).expect("leave").succeeded();
        assert!(
            shared.is_resting(acme, at(8)),
            "another tenant's answer says nothing of it"
        );
    }

    #[test]
    fn a_failure_that_concerns_everybody_makes_it_rest_for_all() {
        let (acme, globex, shared) = (TenantId::new(), TenantId::new(), SharedRest::default());
        fail_for(&shared, acme, 0, Concerns::Everybody);

        assert!(shared.is_resting(globex, at(0)) && shared.trial(globex, at(0)).is_none());
        shared.trial(globex, at(1)).expect("the rest is over").succeeded();
        assert!(shared.trial(acme, at(1)).is_some());
    }

    #[test]
    fn a_failure_of_unknown_cause_concerns_all_when_a_second_tenant_meets_it_without_an_answer_between() {
        let (acme, globex, third) = (TenantId::new(), TenantId::new(), TenantId::new());
        let shared = SharedRest::default();
        fail_for(&shared, acme, 0, Concerns::Unknown);
        fail_for(&shared, acme, 1, Concerns::Unknown);
        assert!(shared.is_resting(acme, at(2)) && !shared.is_resting(third, at(2)));
        shared.trial(third, at(2)).expect("leave").succeeded();
        fail_for(&shared, globex, 2, Concerns::Unknown);
        assert!(!shared.is_resting(third, at(2)), "an answer came between");

        fail_for(&shared, acme, 3, Concerns::Unknown);
        assert!(shared.is_resting(third, at(3)));
        shared.trial(third, at(4)).expect("the rest is over").succeeded();
        assert!(!shared.is_resting(third, at(4)));
    }

    #[test]
    fn who_is_answered_again_is_forgotten() {
        let (acme, shared) = (TenantId::new(), SharedRest::default());
        fail_for(&shared, acme, 0, Concerns::Tenant);
        shared.trial(acme, at(1)).expect("the rest is over").succeeded();

        assert!(shared.lock().rests.is_empty());
    }
}
