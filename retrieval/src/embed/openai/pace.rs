//! How much a server is asked for at once, of many texts: half as much after each request that it did not answer in time, and more again while
//! it answers fast. A slow server would otherwise be asked for the same again and again, at a price, and never give it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Estimated tokens of one request at most; vendors refuse larger ones.
pub(super) const REQUEST_TOKENS: usize = 100_000;

/// A server that takes less than this part of its time could answer twice as much, and has time to spare.
const FAST: u32 = 4;

/// Tokens that a server manages in one request, as far as is known.
#[derive(Debug)]
pub(super) struct Pace(AtomicUsize);

impl Default for Pace {
    fn default() -> Self {
        Self(AtomicUsize::new(REQUEST_TOKENS))
    }
}

impl Pace {
    /// Estimated tokens of a request at most.
    pub(super) fn most_tokens(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// A request of so many tokens was answered after `took` of the `timeout` that it had.
    pub(super) fn answered(&self, tokens: usize, took: Duration, timeout: Duration) {
        if took < timeout / FAST {
            self.0
                .fetch_max((2 * tokens).min(REQUEST_TOKENS), Ordering::Relaxed);
        }
    }

    /// A request of so many tokens was not answered in time. Those that ran beside it tell the same, so it is halved once.
    pub(super) fn took_too_long(&self, tokens: usize) {
        self.0.fetch_min((tokens / 2).max(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    #[test]
    fn what_takes_too_long_is_asked_for_by_halves_until_it_is_answered_fast() {
        let pace = Pace::default();
        pace.took_too_long(16_000);
        pace.took_too_long(16_000);
        assert_eq!(pace.most_tokens(), 8_000);

        pace.answered(8_000, TIMEOUT / 2, TIMEOUT);
        assert_eq!(pace.most_tokens(), 8_000, "twice as much would be too late again");
        pace.answered(100, TIMEOUT / 100, TIMEOUT);
        assert_eq!(
            pace.most_tokens(),
            8_000,
            "a short request tells nothing of long ones"
        );
        pace.answered(8_000, TIMEOUT / 10, TIMEOUT);
        assert_eq!(pace.most_tokens(), 16_000);
    }

    #[test]
    fn there_is_always_something_to_ask_for_and_never_more_than_vendors_take() {
        let pace = Pace::default();
        pace.took_too_long(1);
        assert_eq!(pace.most_tokens(), 1);

        for _ in 0..40 {
            pace.answered(pace.most_tokens(), Duration::ZERO, TIMEOUT);
        }
        assert_eq!(pace.most_tokens(), REQUEST_TOKENS);
    }
}
