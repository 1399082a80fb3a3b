//! How long a job works on documents before others have their turn.

use std::time::{Duration, Instant};

use crate::app::App;
use crate::error::Result;
use crate::jobs::{self, JobContext};

/// After so long a large document lets others have their turn. What was put in stays, but the file is read again.
const LONGEST: Duration = Duration::from_secs(20 * 60);

/// The same for a job of several documents, between two of them.
const LONGEST_OF_SMALL: Duration = Duration::from_secs(5 * 60);

/// While another tenant's job waits, a turn ends so long after it first put something in.
const SHORT: Duration = Duration::from_secs(60);

/// However many wait, a turn puts something in for so many times the time that it took to come to where the last one ended.
const WORK_PER_REPLAY: u32 = 4;

/// The turn of a large document.
pub(super) struct Turn {
    started: Instant,
    /// When it first put something in.
    gaining_since: Option<Instant>,
}

impl Turn {
    pub(super) fn begin() -> Self {
        Self {
            started: Instant::now(),
            gaining_since: None,
        }
    }

    pub(super) fn note_gain(&mut self) {
        self.gaining_since.get_or_insert_with(Instant::now);
    }

    pub(super) const fn has_gained(&self) -> bool {
        self.gaining_since.is_some()
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether others have their turn now. One that put nothing in would have been in vain.
    pub(super) async fn is_over(&self, app: &App, context: &JobContext) -> Result<bool> {
        let Some(gaining_since) = self.gaining_since else {
            return Ok(false);
        };
        let (replay, work) = (gaining_since - self.started, gaining_since.elapsed());
        if replay + work > LONGEST {
            return Ok(true);
        }
        Ok(is_worth_its_replay(replay, work) && jobs::others_wait(app, context).await?)
    }
}

/// Whether a job that has worked so long on small documents lets others have their turn.
pub(super) async fn is_over_between_documents(
    app: &App,
    context: &JobContext,
    elapsed: Duration,
) -> Result<bool> {
    Ok(elapsed > LONGEST_OF_SMALL || (elapsed > SHORT && jobs::others_wait(app, context).await?))
}

/// Whether a turn that has put something in for as long as `work` may end where others wait: reading files once more must not be
/// what most of the time goes into.
fn is_worth_its_replay(replay: Duration, work: Duration) -> bool {
    work > SHORT.max(replay * WORK_PER_REPLAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_ends_for_others_when_it_was_worth_its_replay() {
        let ends = |replay_s, work_s| {
            is_worth_its_replay(Duration::from_secs(replay_s), Duration::from_secs(work_s))
        };
        assert!(!ends(1, 60));
        assert!(ends(1, 61));
        assert!(!ends(100, 400));
        assert!(ends(100, 401));
    }
}
