//! What a budget still allows: refusing early, and reserving as much of a wish as fits.

use chrono::{DateTime, Utc};

use super::{Balance, Limit, Limits, Reservation, Spend, UsageEvent, exceeded_by, period_of, reserve, store};
use crate::app::{App, Space};
use crate::db::{Conn, Write};
use crate::error::{Error, Result};
use crate::id::{ChatbotId, TenantId};

/// On PostgreSQL another turn may take what was free between the look and the reservation; so often it is tried again.
const TRIES: usize = 4;

/// Refuses when nothing is left of the month, before anything is spent. Costs nothing without limits.
pub async fn check_open(
    conn: &mut Conn,
    limits: &Limits,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
    now: DateTime<Utc>,
) -> Result<()> {
    if limits.is_none() {
        return Ok(());
    }
    let least = Spend {
        tokens: 1,
        micro_usd: 0,
    };
    let (of_tenant, of_chatbot) = store::find_balances(conn, tenant_id, chatbot_id, &period_of(now)).await?;
    for (limit, holder, balance) in [
        (&limits.tenant, None, of_tenant),
        (&limits.chatbot, Some(chatbot_id), of_chatbot),
    ] {
        let would_be = balance.used.plus(balance.reserved).plus(least);
        if let Some(error) = exceeded_by(holder.is_some(), limit, would_be, now) {
            return Err(error);
        }
    }
    Ok(())
}

/// Refuses a model without a price where money is limited, before anything is spent: its calls would count nothing.
pub fn check_priced(app: &App, limits: &Limits, model: &str) -> Result<()> {
    let is_limited = limits.tenant.micro_usd.or(limits.chatbot.micro_usd).is_some();
    if !is_limited || app.prices.is_priced(model) {
        return Ok(());
    }
    Err(Error::BudgetExceeded {
        code: "model_not_priced",
        message: "a cost limit is set, but the price book has no price for this model: add one, or use another model"
            .into(),
    })
}

/// Like [`check_priced`], for the embedding model, where embeddings are bought.
pub fn check_embedding_priced(app: &App, space: &Space, limits: &Limits) -> Result<()> {
    match space.bought_model() {
        Some(model) => check_priced(app, limits, model),
        None => Ok(()),
    }
}

/// Reserves `most`, or as much of the way from `least` to `most` as the budgets allow; the share of that way is in the
/// answer, 1 when all of it fits. Refused when not even `least` fits. `calls` says what is called for by a share.
pub async fn reserve_within(
    write: &mut Write,
    limits: &Limits,
    holders: (TenantId, ChatbotId),
    (least, most): (Spend, Spend),
    calls: impl Fn(f64) -> Vec<UsageEvent>,
    now: DateTime<Utc>,
) -> Result<(Option<Reservation>, f64)> {
    // Mostly all of it fits, and then there is no need to look.
    let mut last_refusal = match reserve(write, limits, holders, most, calls(1.0), now).await {
        Ok(reservation) => return Ok((reservation, 1.0)),
        Err(error @ Error::BudgetExceeded { .. }) => Some(error),
        Err(error) => return Err(error),
    };
    for _ in 0..TRIES {
        let (of_tenant, of_chatbot) =
            store::find_balances(write, holders.0, holders.1, &period_of(now)).await?;
        let share = affordable_share(&limits.tenant, of_tenant, least, most).min(affordable_share(
            &limits.chatbot,
            of_chatbot,
            least,
            most,
        ));
        let granted = share.max(0.0);
        let wish = between(least, most, granted);
        match reserve(write, limits, holders, wish, calls(granted), now).await {
            Ok(reservation) => return Ok((reservation, granted)),
            // Not even the least fits, or somebody was faster.
            Err(error @ Error::BudgetExceeded { .. }) if share <= 0.0 => return Err(error),
            Err(error @ Error::BudgetExceeded { .. }) => last_refusal = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last_refusal.unwrap_or_else(|| Error::internal("no reservation was tried")))
}

/// How far from `least` (0) to `most` (1) one holder can go; below 0: not even `least` fits.
fn affordable_share(limit: &Limit, balance: Balance, least: Spend, most: Spend) -> f64 {
    let taken = balance.used.plus(balance.reserved);
    let share = |limit: Option<i64>, taken: i64, least: i64, most: i64| match limit {
        None => 1.0,
        Some(limit) if limit - taken < least => -1.0,
        Some(_) if most <= least => 1.0,
        Some(limit) => ((limit - taken - least) as f64 / (most - least) as f64).min(1.0),
    };
    share(limit.tokens, taken.tokens, least.tokens, most.tokens).min(share(
        limit.micro_usd,
        taken.micro_usd,
        least.micro_usd,
        most.micro_usd,
    ))
}

fn between(least: Spend, most: Spend, share: f64) -> Spend {
    if share >= 1.0 {
        return most;
    }
    let mix = |least: i64, most: i64| least + ((most - least).max(0) as f64 * share).floor() as i64;
    Spend {
        tokens: mix(least.tokens, most.tokens),
        micro_usd: mix(least.micro_usd, most.micro_usd),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Spend = Spend {
        tokens: 100,
        micro_usd: 10,
    };
    const MOST: Spend = Spend {
        tokens: 1100,
        micro_usd: 110,
    };

    fn used(tokens: i64, micro_usd: i64) -> Balance {
        Balance {
            used: Spend { tokens, micro_usd },
            reserved: Spend::default(),
        }
    }

    #[test]
    fn a_wish_is_cut_to_what_is_left() {
        let limit = Limit {
            tokens: Some(1000),
            micro_usd: None,
        };

        assert_eq!(affordable_share(&limit, used(0, 0), LEAST, MOST), 0.9);
        assert_eq!(affordable_share(&limit, used(400, 0), LEAST, MOST), 0.5);
        assert_eq!(
            between(LEAST, MOST, 0.5),
            Spend {
                tokens: 600,
                micro_usd: 60
            }
        );
    }

    #[test]
    fn when_not_even_the_least_fits_there_is_no_share() {
        let limit = Limit {
            tokens: Some(1000),
            micro_usd: Some(15),
        };

        assert!(affordable_share(&limit, used(901, 0), LEAST, MOST) < 0.0);
        assert!(affordable_share(&limit, used(0, 6), LEAST, MOST) < 0.0);
        assert!(affordable_share(&limit, used(0, 5), LEAST, MOST).abs() < 1e-9);
    }
}
