//! What an answer had to do without, since a part that makes it did not answer.
//!
//! Whoever goes on without something says so here: what is found is flagged, counted, and kept with the message. Nothing
//! found is no answer where something that was left out may have found it.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::Error;

/// How long a client waits before it asks again.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Something that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Degradation {
    /// Stable, for programs: `embedding_unavailable`, `index_incomplete`, `index_unavailable`, `index_overloaded`, `rerank_unavailable`, `rerank_over_budget`.
    #[schema(value_type = String)]
    pub code: Cow<'static, str>,
    /// What is missing, for a person.
    #[schema(value_type = String)]
    pub message: Cow<'static, str>,
}

impl Degradation {
    /// The question was compared by its words only.
    pub const WORDS_ALONE: Self = Self::new(
        "embedding_unavailable",
        "The embedding model did not answer: passages were found by their words alone, so some may be missing.",
    );

    /// The index is being filled.
    pub const INDEX_INCOMPLETE: Self = Self::new(
        "index_incomplete",
        "The search index is being filled again: some documents are not found yet.",
    );

    /// The index does not answer.
    pub const INDEX_UNAVAILABLE: Self = Self::new(
        "index_unavailable",
        "The search index did not answer: passages were looked for by their words alone, among the newest documents, so some may be missing.",
    );

    /// The index answers others first.
    pub const INDEX_OVERLOADED: Self = Self::new(
        "index_overloaded",
        "Too many searches ran at once: passages were looked for by their words alone, among the newest documents, so some may be missing.",
    );

    /// What is left out has `code`, which programs go by, and is told to people by `message`.
    pub const fn new(code: &'static str, message: &'static str) -> Self {
        Self {
            code: Cow::Borrowed(code),
            message: Cow::Borrowed(message),
        }
    }

    /// Adds this to what is known to be left out, and counts it.
    pub fn note(self, degraded: &mut Vec<Self>) {
        if degraded.contains(&self) {
            return;
        }
        metrics::counter!("frontdesk_degraded_total", "code" => self.code.clone().into_owned()).increment(1);
        degraded.push(self);
    }

    /// Whether passages may be missing, rather than be in another order than they would be.
    fn hides_passages(&self) -> bool {
        matches!(
            self.code.as_ref(),
            "embedding_unavailable" | "index_incomplete" | "index_unavailable" | "index_overloaded"
        )
    }
}

/// Why nothing that was found is no reason to say that nothing is known; none: it is one.
pub fn doubt(degraded: &[Degradation]) -> Option<Error> {
    let is_left_out = |code: &str| degraded.iter().any(|left_out| left_out.code == code);
    if !degraded.iter().any(Degradation::hides_passages) {
        return None;
    }
    let (code, message) = if is_left_out("index_unavailable") {
        (
            "index_unavailable",
            "the knowledge cannot be searched right now but for its newest words, which do not answer this; ask again shortly",
        )
    } else if is_left_out("index_overloaded") {
        (
            "busy",
            "too many searches run at once, and the newest words, which were looked at instead, do not answer this; ask again shortly",
        )
    } else {
        (
            "search_degraded",
            "nothing was found, but a part of the search does not answer and might have found something; ask again shortly",
        )
    };
    Some(Error::Unavailable {
        code,
        message: message.into(),
        retry_after: TRY_AGAIN_AFTER,
        source: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_told_once() {
        let mut degraded = Vec::new();

        Degradation::WORDS_ALONE.note(&mut degraded);
        Degradation::WORDS_ALONE.note(&mut degraded);

        assert_eq!(degraded, [Degradation::WORDS_ALONE]);
    }

    #[test]
    fn finding_nothing_says_something_only_where_nothing_was_left_out_that_finds() {
        let order = Degradation::new(
            "rerank_unavailable",
            "The passages are in the order of the search.",
        );

        assert!(doubt(&[]).is_none());
        assert!(doubt(std::slice::from_ref(&order)).is_none());
        assert!(doubt(&[order, Degradation::WORDS_ALONE]).is_some());
        for (left_out, expected) in [
            (Degradation::INDEX_UNAVAILABLE, "index_unavailable"),
            (Degradation::INDEX_OVERLOADED, "busy"),
            (Degradation::INDEX_INCOMPLETE, "search_degraded"),
        ] {
            let doubt = doubt(&[Degradation::WORDS_ALONE, left_out]);
            assert!(matches!(doubt, Some(Error::Unavailable { code, .. }) if code == expected));
        }
    }
}
