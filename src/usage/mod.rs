//! What was consumed and what a month allows: the token ledger, the price book, budgets and reports.
//!
//! A turn reserves what it may cost before it calls a model ([`reserve`]) and settles what it did cost afterwards
//! ([`settle`]), both in the caller's own short transactions. Reservations count against the limit like things
//! already used, and are taken by one conditional statement, so parallel turns on any number of replicas cannot
//! overshoot together. A turn that dies leaves a reservation that lapses: the calls that it was made for have begun and
//! will be charged by whom they were made to, so they are booked as they were reserved, marked as estimated
//! ([`book_lapsed`]). Without limits a reservation holds nothing of a budget, and is there for that alone; a question that is
//! embedded has none then, and stands in the [`journal`].
//!
//! Every call is one line of the ledger, never changed afterwards; the month's sums in `budget` are kept beside it
//! whether or not there is a limit, so that a limit set in the middle of a month counts from its beginning.

mod event;
mod export;
mod headroom;
mod hold;
pub mod journal;
mod notice;
mod operator;
pub mod price_book;
pub mod report;
pub mod routes;
mod store;

use chrono::{DateTime, Datelike, Months, NaiveDate, TimeDelta, Utc};
use sqlx::FromRow;
use sqlx::types::Json;

use crate::db::{Conn, Db, Write};
use crate::error::{Error, Result};
use crate::id::{ChatbotId, ReservationId, TenantId};

pub use event::{UsageEvent, UsageKind};
pub use headroom::{check_embedding_priced, check_open, check_priced, reserve_within};
pub use hold::{Hold, hold, hold_call, hold_for_embedding};
pub use notice::tell_owner_of_refusal;
pub use operator::{book_all_lapsed, book_lapsed, book_lapsed_before};
pub use price_book::PriceBook;

/// A reservation lapses after this long when its turn never came back: longer than any turn may last.
const RESERVATION_LIFETIME: TimeDelta = TimeDelta::minutes(15);

/// So long before it lapses a reservation is not taken for its holder's own any more: clocks of replicas differ, and a
/// commit takes a while.
const CLOSE_TO_LAPSING: TimeDelta = TimeDelta::minutes(1);

/// An amount of tokens and money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spend {
    pub tokens: i64,
    pub micro_usd: i64,
}

impl Spend {
    /// The sum, never past the largest number.
    pub fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            micro_usd: self.micro_usd.saturating_add(other.micro_usd),
        }
    }

    /// Nothing can be given back by spending it.
    fn at_least_zero(self) -> Self {
        Self {
            tokens: self.tokens.max(0),
            micro_usd: self.micro_usd.max(0),
        }
    }
}

/// What a month allows one holder; none: everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    pub tokens: Option<i64>,
    pub micro_usd: Option<i64>,
}

impl Limit {
    /// Whether this allows everything.
    pub fn is_none(&self) -> bool {
        self.tokens.is_none() && self.micro_usd.is_none()
    }

    /// The code of the first limit that `spend` would pass.
    fn passed_by(&self, spend: Spend) -> Option<&'static str> {
        if self.tokens.is_some_and(|limit| spend.tokens > limit) {
            return Some(TOKEN_BUDGET_EXCEEDED);
        }
        self.micro_usd
            .is_some_and(|limit| spend.micro_usd > limit)
            .then_some(COST_BUDGET_EXCEEDED)
    }
}

const TOKEN_BUDGET_EXCEEDED: &str = "token_budget_exceeded";
const COST_BUDGET_EXCEEDED: &str = "cost_budget_exceeded";

/// What a month allows a tenant and one of its chatbots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub tenant: Limit,
    pub chatbot: Limit,
}

impl Limits {
    /// Whether both allow everything.
    pub fn is_none(&self) -> bool {
        self.tenant.is_none() && self.chatbot.is_none()
    }
}

/// A share of the month's budgets that is held while a turn runs.
///
/// Give it to [`settle`] or [`release`]; one that is lost lapses, and its calls are booked.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
#[must_use = "a reservation that is neither settled nor released blocks the budget until it lapses"]
pub struct Reservation {
    pub id: ReservationId,
    pub tenant_id: TenantId,
    pub chatbot_id: ChatbotId,
    /// The month, `2026-11`.
    pub period: String,
    pub tokens: i64,
    pub micro_usd: i64,
    /// What is booked when it lapses.
    pub calls: Json<Vec<UsageEvent>>,
    pub expires_at: DateTime<Utc>,
}

impl Reservation {
    /// Whether somebody may have taken its holder for dead by now.
    fn may_have_lapsed(&self, now: DateTime<Utc>) -> bool {
        now + CLOSE_TO_LAPSING >= self.expires_at
    }

    fn spend(&self) -> Spend {
        Spend {
            tokens: self.tokens,
            micro_usd: self.micro_usd,
        }
    }
}

/// How a month stands for one holder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    pub used: Spend,
    pub reserved: Spend,
}

/// What a month allows the tenant and the chatbot, in one statement.
pub async fn load_limits(conn: &mut Conn, tenant_id: TenantId, chatbot_id: ChatbotId) -> Result<Limits> {
    store::find_limits(conn, tenant_id, chatbot_id)
        .await?
        .ok_or(Error::NotFound("chatbot"))
}

/// Holds `estimate` against the month's budgets of the tenant and the chatbot, for `calls` that begin with this commit:
/// the lines that are booked if nobody comes back to [`settle`] it.
///
/// Without limits nothing is held, and without calls as well nothing is written and `None` comes back. An estimate that
/// does not fit is [`Error::BudgetExceeded`], naming the limit and when it starts anew, and leaves nothing held.
pub async fn reserve(
    write: &mut Write,
    limits: &Limits,
    (tenant_id, chatbot_id): (TenantId, ChatbotId),
    estimate: Spend,
    calls: Vec<UsageEvent>,
    now: DateTime<Utc>,
) -> Result<Option<Reservation>> {
    if limits.is_none() && calls.is_empty() {
        return Ok(None);
    }
    let estimate = if limits.is_none() {
        Spend::default()
    } else {
        estimate.at_least_zero()
    };
    for (holder, limit) in [
        (Holder::Tenant, &limits.tenant),
        (Holder::Chatbot, &limits.chatbot),
    ] {
        // An empty month has no row yet whose condition could refuse this.
        if let Some(code) = limit.passed_by(estimate) {
            return Err(exceeded(holder, code, now));
        }
    }
    let reservation = Reservation {
        id: ReservationId::new(),
        tenant_id,
        chatbot_id,
        period: period_of(now),
        tokens: estimate.tokens,
        micro_usd: estimate.micro_usd,
        calls: Json(calls),
        expires_at: now + RESERVATION_LIFETIME,
    };
    let held = if limits.is_none() {
        store::Held::BOTH
    } else {
        store::hold(write, &reservation, limits).await?
    };
    if !(held.tenant && held.chatbot) {
        let (holder, holder_id, limit) = if held.tenant {
            (Holder::Chatbot, chatbot_id.0, &limits.chatbot)
        } else {
            (Holder::Tenant, tenant_id.0, &limits.tenant)
        };
        store::give_back(write, &reservation, held).await?;
        let balance = store::find_balance(write, tenant_id, holder_id, &reservation.period).await?;
        let wanted = balance.used.plus(balance.reserved).plus(estimate);
        return Err(exceeded(
            holder,
            limit.passed_by(wanted).unwrap_or(TOKEN_BUDGET_EXCEEDED),
            now,
        ));
    }
    store::insert_reservation(write, &reservation).await?;
    Ok(Some(reservation))
}

/// Books `events`, adds them to the month of the tenant and the chatbot, and gives `reservation` back.
///
/// A reservation is given back once, however often this or [`release`] is called with it. Where it lapsed meanwhile its
/// calls are in the ledger as they were reserved, and stay there: they are not booked a second time.
pub async fn settle(
    write: &mut Write,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
    reservation: Option<Reservation>,
    events: &[UsageEvent],
    now: DateTime<Utc>,
) -> Result<()> {
    let period = period_of(now);
    let mut freed = Spend::default();
    if let Some(reservation) = reservation {
        let was_held = reservation.spend() != Spend::default();
        if !was_held && !reservation.may_have_lapsed(now) {
            // Nothing depends on the answer, so that the statement goes with the others.
            store::forget_reservation(write, &reservation).await?;
        } else if !store::delete_reservation(write, &reservation).await? {
            if !reservation.calls.is_empty() {
                return Ok(());
            }
        } else if reservation.period == period && reservation.chatbot_id == chatbot_id {
            freed = reservation.spend();
        } else {
            store::give_back(write, &reservation, store::Held::BOTH).await?;
        }
    }
    book(write, (tenant_id, chatbot_id), &period, events, freed).await
}

/// Writes `events` to the ledger, adds them to `period` and takes `freed` out of what is held there.
async fn book(
    write: &mut Write,
    holders: (TenantId, ChatbotId),
    period: &str,
    events: &[UsageEvent],
    freed: Spend,
) -> Result<()> {
    store::insert_events(write, holders.0, events).await?;
    let spent = events
        .iter()
        .map(|event| event.spend().at_least_zero())
        .fold(Spend::default(), Spend::plus);
    if spent != Spend::default() || freed != Spend::default() {
        store::book(write, holders, period, spent, freed).await?;
    }
    Ok(())
}

/// Gives a reservation back when nothing was spent.
pub async fn release(db: &Db, reservation: Reservation) -> Result<()> {
    let mut write = db.write(reservation.tenant_id).await?;
    give_back(&mut write, &reservation).await?;
    write.commit().await
}

/// Like [`release`], within `write`: what is reserved next may have it, and where `write` is not committed it stays held.
pub async fn give_back(write: &mut Write, reservation: &Reservation) -> Result<()> {
    if !store::delete_reservation(write, reservation).await? {
        return Ok(());
    }
    let holders = (reservation.tenant_id, reservation.chatbot_id);
    // Takes the rows in the order in which reserving does, so that two turns never wait for each other's.
    store::book(
        write,
        holders,
        &reservation.period,
        Spend::default(),
        reservation.spend(),
    )
    .await
}

/// How the month of `now` stands for the tenant (`chatbot_id` none) or one chatbot.
pub async fn balance(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: Option<ChatbotId>,
    now: DateTime<Utc>,
) -> Result<Balance> {
    store::find_balance(
        conn,
        tenant_id,
        chatbot_id.map_or(tenant_id.0, |id| id.0),
        &period_of(now),
    )
    .await
}

/// The month that `time` belongs to, `2026-11`. Months are those of UTC.
pub fn period_of(time: DateTime<Utc>) -> String {
    format!("{:04}-{:02}", time.year(), time.month())
}

/// The first day of the month after `time`'s: when limits start anew.
pub fn next_period(time: DateTime<Utc>) -> NaiveDate {
    let first = time
        .date_naive()
        .with_day(1)
        .expect("every month has a first day");
    first.checked_add_months(Months::new(1)).unwrap_or(first)
}

#[derive(Clone, Copy)]
enum Holder {
    Tenant,
    Chatbot,
}

/// The refusal of `spend` by one holder's limit, if it refuses.
fn exceeded_by(is_chatbot: bool, limit: &Limit, spend: Spend, now: DateTime<Utc>) -> Option<Error> {
    let holder = if is_chatbot {
        Holder::Chatbot
    } else {
        Holder::Tenant
    };
    limit.passed_by(spend).map(|code| exceeded(holder, code, now))
}

fn exceeded(holder: Holder, code: &'static str, now: DateTime<Utc>) -> Error {
    let holder = match holder {
        Holder::Tenant => "tenant",
        Holder::Chatbot => "chatbot",
    };
    let what = if code == COST_BUDGET_EXCEEDED {
        "cost"
    } else {
        "token"
    };
    let message = format!(
        "the {holder}'s monthly {what} limit does not allow this: raise it, or wait until it starts anew on {} (UTC)",
        next_period(now)
    );
    Error::BudgetExceeded {
        code,
        message: message.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().expect("a valid time")
    }

    #[test]
    fn a_month_is_that_of_utc_and_the_next_one_starts_on_its_first_day() {
        assert_eq!(period_of(time("2026-11-30T23:59:59.999999Z")), "2026-11");
        assert_eq!(period_of(time("2026-12-01T00:30:00+01:00")), "2026-11");
        assert_eq!(
            next_period(time("2026-12-31T12:00:00Z")).to_string(),
            "2027-01-01"
        );
    }

    #[test]
    fn a_refusal_names_the_holder_the_limit_and_the_day_it_starts_anew() {
        let Error::BudgetExceeded { code, message } = exceeded(
            Holder::Chatbot,
            COST_BUDGET_EXCEEDED,
            time("2026-11-20T10:00:00Z"),
        ) else {
            panic!("a refused budget is BudgetExceeded");
        };

        assert_eq!(code, "cost_budget_exceeded");
        for part in ["chatbot", "cost", "2026-12-01"] {
            assert!(message.contains(part), "{part} is missing in {message:?}");
        }
    }

    #[test]
    fn a_limit_may_be_used_up_but_not_passed() {
        let limit = Limit {
            tokens: Some(10),
            micro_usd: Some(5),
        };

        assert_eq!(
            limit.passed_by(Spend {
                tokens: 10,
                micro_usd: 5
            }),
            None
        );
        assert_eq!(
            limit.passed_by(Spend {
                tokens: 11,
                micro_usd: 5
            }),
            Some("token_budget_exceeded")
        );
        assert_eq!(
            limit.passed_by(Spend {
                tokens: 10,
                micro_usd: 6
            }),
            Some("cost_budget_exceeded")
        );
        assert_eq!(
            Limit::default().passed_by(Spend {
                tokens: i64::MAX,
                micro_usd: i64::MAX
            }),
            None
        );
    }

    proptest! {
        #[test]
        fn adding_up_calls_never_overflows_and_never_gives_anything_back(amounts in prop::collection::vec((any::<i64>(), any::<i64>()), 0..20)) {
            let mut sum = Spend::default();
            for (tokens, micro_usd) in amounts {
                let next = sum.plus(Spend { tokens, micro_usd }.at_least_zero());
                prop_assert!(next.tokens >= sum.tokens && next.micro_usd >= sum.micro_usd);
                sum = next;
            }
        }
    }
}
