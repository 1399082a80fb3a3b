//! What an owner prefers beside nearness: the recent, and some sources.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::Passage;
use super::settings::SearchSettings;
use crate::id::SourceId;

const DAY_S: f64 = 86_400.0;

/// What is left of the oldest passage's score at least, so that it was found all the same.
const LEAST_RECENCY: f64 = 0.001;

/// The preferences of a chatbot, at one time.
pub(super) struct Boosts<'a> {
    now: DateTime<Utc>,
    half_life_days: Option<f64>,
    recency_weight: f64,
    sources: &'a BTreeMap<SourceId, f64>,
}

impl<'a> Boosts<'a> {
    /// None: nothing is preferred.
    pub(super) fn of(settings: &'a SearchSettings, now: DateTime<Utc>) -> Option<Self> {
        let sources = &settings.source_boosts;
        if settings.recency_half_life_days.is_none() && sources.is_empty() {
            return None;
        }
        Some(Self {
            now,
            half_life_days: settings.recency_half_life_days.map(|days| days as f64),
            recency_weight: settings.recency_weight,
            sources,
        })
    }

    /// By what a passage's score is multiplied, in (0, 10]: the factor of its source for a new one, less for an older one.
    pub(super) fn factor(&self, passage: &Passage) -> f32 {
        let source = self.sources.get(&passage.source_id).copied().unwrap_or(1.0);
        let age = self.now.signed_duration_since(passage.dated);
        let age_days = age.num_seconds().max(0) as f64 / DAY_S;
        let recency = self.half_life_days.map_or(1.0, |half_life_days| {
            let left = 0.5_f64.powf(age_days / half_life_days);
            1.0 - self.recency_weight + self.recency_weight * left
        });
        (source * recency.max(LEAST_RECENCY)) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knowledge::search::tests::passage;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    fn settings() -> SearchSettings {
        SearchSettings {
            recency_half_life_days: Some(10),
            recency_weight: 0.8,
            ..SearchSettings::default()
        }
    }

    #[test]
    fn age_halves_its_part_of_the_score_by_the_half_life() {
        let settings = settings();
        let boosts = Boosts::of(&settings, at("2026-11-20T00:00:00Z")).expect("a preference");
        let factor = |dated: &str| {
            boosts.factor(&Passage {
                dated: at(dated),
                ..passage("a")
            })
        };

        assert_eq!(factor("2026-11-20T00:00:00Z"), 1.0);
        assert_eq!(factor("2026-12-24T00:00:00Z"), 1.0, "what is dated ahead is new");
        assert!((factor("2026-11-10T00:00:00Z") - 0.6).abs() < 1e-6);
        assert!((factor("2026-10-31T00:00:00Z") - 0.4).abs() < 1e-6);
        assert!((factor("1970-01-01T00:00:00Z") - 0.2).abs() < 1e-6);
    }

    #[test]
    fn a_preferred_source_has_the_highest_factor_and_others_less() {
        let (preferred, put_back) = (SourceId::new(), SourceId::new());
        let settings = SearchSettings {
            source_boosts: BTreeMap::from([(preferred, 2.0), (put_back, 0.5)]),
            ..SearchSettings::default()
        };
        let boosts = Boosts::of(&settings, at("2026-11-20T00:00:00Z")).expect("a preference");
        let factor = |source_id| {
            boosts.factor(&Passage {
                source_id,
                ..passage("a")
            })
        };

        assert_eq!(
            (factor(preferred), factor(SourceId::new()), factor(put_back)),
            (2.0, 1.0, 0.5)
        );
    }

    #[test]
    fn however_old_something_is_a_trace_of_its_score_is_left() {
        let settings = SearchSettings {
            recency_weight: 1.0,
            ..settings()
        };
        let boosts = Boosts::of(&settings, at("2026-11-20T00:00:00Z")).expect("a preference");
        let oldest = Passage {
            dated: DateTime::<Utc>::MIN_UTC,
            ..passage("a")
        };

        assert!(boosts.factor(&oldest) > 0.0);
        assert!(Boosts::of(&SearchSettings::default(), at("2026-11-20T00:00:00Z")).is_none());
    }
}
