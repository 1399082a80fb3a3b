//! What the operator allows a tenant in a month. The tenant's own limits lie within it: they can only lower it.

use crate::config::Limits;
use crate::error::{Error, Result};

/// The most that a tenant's limits of a month may be; none: whatever the tenant sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    pub monthly_tokens: Option<i64>,
    pub monthly_cost_micro_usd: Option<i64>,
}

impl Caps {
    /// What the configuration gives to a new tenant; 0 there is none.
    pub fn of_new_tenants(limits: &Limits) -> Self {
        let cap = |setting: i64| Some(setting).filter(|cap| *cap > 0);
        Self {
            monthly_tokens: cap(limits.tenant_monthly_tokens),
            monthly_cost_micro_usd: cap(limits.tenant_monthly_cost_micro_usd),
        }
    }
}

/// The limit that a tenant sets itself, where none means as much as the cap allows.
pub(super) fn within(wanted: Option<i64>, cap: Option<i64>, field: &str) -> Result<Option<i64>> {
    match (wanted, cap) {
        (Some(wanted), Some(cap)) if wanted > cap => Err(Error::invalid(
            "limit_over_cap",
            field,
            format!("{field} can be {cap} at most: the operator of this installation set that"),
        )),
        (wanted, cap) => Ok(wanted.or(cap)),
    }
}

/// The limit of a tenant whose cap changes from `before` to `after`: who used all of it follows it, who had set less
/// keeps that as far as it is allowed.
pub(super) fn moved(limit: Option<i64>, before: Option<i64>, after: Option<i64>) -> Option<i64> {
    let own = limit.filter(|limit| before.is_none_or(|before| *limit < before));
    match (own, after) {
        (Some(own), Some(after)) => Some(own.min(after)),
        (own, after) => own.or(after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_own_limit_can_only_lower_its_cap() {
        let within = |wanted, cap| within(wanted, cap, "monthly_token_limit").ok();

        assert_eq!(within(Some(7), Some(10)), Some(Some(7)));
        assert_eq!(within(None, Some(10)), Some(Some(10)), "no limit of its own");
        assert_eq!(within(Some(11), Some(10)), None);
        assert_eq!(within(Some(11), None), Some(Some(11)));
        assert_eq!(within(None, None), Some(None));
    }

    #[test]
    fn a_limit_follows_a_moving_cap_unless_it_is_lower_than_that() {
        assert_eq!(moved(Some(10), Some(10), Some(20)), Some(20), "it used all of it");
        assert_eq!(moved(Some(10), Some(10), None), None);
        assert_eq!(moved(Some(7), Some(10), Some(20)), Some(7));
        assert_eq!(moved(Some(7), Some(10), Some(5)), Some(5));
        assert_eq!(moved(Some(7), None, Some(20)), Some(7));
        assert_eq!(moved(None, None, Some(20)), Some(20));
    }
}
