//! Reports: what was used in a time, summed by day, model, chatbot or channel.

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use serde::Deserialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use uuid::Uuid;

use super::store;
use crate::db::Conn;
use crate::error::{Error, Result};
use crate::id::{ChatbotId, TenantId};

/// By what a report sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum GroupBy {
    /// Days of UTC.
    #[default]
    Day,
    Model,
    Chatbot,
    Channel,
}

/// Which lines of the ledger count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The first moment.
    pub from: DateTime<Utc>,
    /// The moment after the last.
    pub until: DateTime<Utc>,
    /// Only this chatbot's, if set.
    pub chatbot_id: Option<ChatbotId>,
}

impl Filter {
    /// Reads `from` and `to`: each an RFC 3339 time or a day of UTC. A time in `to` is excluded, a day is included.
    pub fn new(from: Option<&str>, to: Option<&str>, chatbot_id: Option<ChatbotId>) -> Result<Self> {
        let from = match from {
            None => DateTime::UNIX_EPOCH,
            Some(text) => parse_bound(text, "from", 0)?,
        };
        let until = match to {
            None => far_future(),
            Some(text) => parse_bound(text, "to", 1)?,
        };
        if from > until {
            return Err(Error::invalid("invalid_period", "to", "to lies before from"));
        }
        Ok(Self {
            from,
            until,
            chatbot_id,
        })
    }
}

/// A moment that both databases order after every other.
fn far_future() -> DateTime<Utc> {
    NaiveDate::from_ymd_opt(9999, 12, 31)
        .expect("a valid day")
        .and_time(NaiveTime::MIN)
        .and_utc()
}

/// The moment that `text` names; a bare day is its first moment, `add_days` later.
fn parse_bound(text: &str, field: &'static str, add_days: u64) -> Result<DateTime<Utc>> {
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .ok()
        .filter(|_| text.len() == 10)
        .and_then(|day| day.checked_add_days(Days::new(add_days)));
    let time = match day {
        Some(day) => Some(day.and_time(NaiveTime::MIN).and_utc()),
        None => DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc()),
    };
    time.filter(|time| (DateTime::UNIX_EPOCH..=far_future()).contains(time))
        .ok_or_else(|| {
            Error::invalid(
                "invalid_time",
                field,
                format!("{field} must be a day such as 2026-11-01 or a time such as 2026-11-01T08:00:00Z"),
            )
        })
}

/// One line of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromRow)]
pub struct ReportLine {
    /// The day, model, chatbot id or channel; empty for calls without a chatbot.
    pub key: String,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub cached_tokens: i64,
    pub embedding_tokens: i64,
    pub audio_seconds: i64,
    pub cost_micro_usd: i64,
    pub calls: i64,
    pub estimated_calls: i64,
}

impl ReportLine {
    fn add(&mut self, other: &Self) {
        self.prompt_tokens = self.prompt_tokens.saturating_add(other.prompt_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(other.completion_tokens);
        self.cached_tokens = self.cached_tokens.saturating_add(other.cached_tokens);
        self.embedding_tokens = self.embedding_tokens.saturating_add(other.embedding_tokens);
        self.audio_seconds = self.audio_seconds.saturating_add(other.audio_seconds);
        self.cost_micro_usd = self.cost_micro_usd.saturating_add(other.cost_micro_usd);
        self.calls = self.calls.saturating_add(other.calls);
        self.estimated_calls = self.estimated_calls.saturating_add(other.estimated_calls);
    }
}

/// A report: its lines in order of their keys, and their sum.
#[derive(Clone, Debug)]
pub struct Report {
    pub lines: Vec<ReportLine>,
    pub total: ReportLine,
}

/// Sums the tenant's ledger.
pub async fn report(
    conn: &mut Conn,
    tenant_id: TenantId,
    filter: &Filter,
    group_by: GroupBy,
) -> Result<Report> {
    let mut lines = store::sum_events(conn, tenant_id, filter, group_by).await?;
    if group_by == GroupBy::Chatbot {
        for line in &mut lines {
            if let Ok(id) = Uuid::try_parse(&line.key) {
                line.key = ChatbotId(id).to_string();
            }
        }
    }
    let mut total = ReportLine::default();
    for line in &lines {
        total.add(line);
    }
    Ok(Report { lines, total })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(from: &str, to: &str) -> Result<Filter> {
        Filter::new(Some(from), Some(to), None)
    }

    #[test]
    fn a_day_in_to_is_included_and_a_time_is_not() {
        let days = filter("2026-11-01", "2026-11-30").expect("two days");
        let times = filter("2026-11-01T00:00:00Z", "2026-12-01T01:00:00+01:00").expect("two times");

        assert_eq!(days, times);
        assert_eq!(days.until.to_rfc3339(), "2026-12-01T00:00:00+00:00");
    }

    #[test]
    fn nonsense_and_a_period_that_ends_before_it_begins_are_refused() {
        for (from, to) in [
            ("yesterday", "2026-11-30"),
            ("2026-11-01", "2026-02-30"),
            ("2026-11-01", "2026-10-01"),
            ("-001-01-01", "2026-11-30"),
            ("1969-12-31", "2026-11-30"),
            ("2026-11-01", "12026-11-30"),
        ] {
            assert!(
                matches!(filter(from, to), Err(Error::Invalid { .. })),
                "{from} to {to}"
            );
        }
    }

    #[test]
    fn without_bounds_everything_counts() {
        let all = Filter::new(None, None, None).expect("no bounds");

        assert!(
            all.from <= DateTime::UNIX_EPOCH
                && all.until > "2999-01-01T00:00:00Z".parse::<DateTime<Utc>>().expect("a time")
        );
    }
}
