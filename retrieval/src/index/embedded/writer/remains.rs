//! What deletions leave in the files of a shard until these are written anew: nothing reads it, but vectors and hashes of words tell
//! something of a text. A file in the shard's folder says since when there is any, so that a restart does not put its end off.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use super::Writer;
use crate::index::embedded::damage;
use crate::index::embedded::keywords::{Spare, write_whole};
use crate::index::embedded::layout::Extent;
use crate::index::embedded::room::free_bytes;
use crate::index::embedded::sides::Sides;

/// The file's time is the one that counts.
const NOTE: &str = "deleted";

/// Pause after an opening, as the first questions go first, and where nothing can be removed for now. Each removal that fails
/// doubles it.
const PAUSE: Duration = Duration::from_mins(1);

/// More than what fills the engine's log takes: it is mapped, so that a full disk would be the end of the process.
const FILLING_BYTES: u64 = 16 << 20;

/// Of one shard.
pub(super) struct Remains {
    note: PathBuf,
    /// Whether the file says that there are any.
    is_noted: bool,
    /// Since when there are any.
    since: Option<Instant>,
    paused_at: Instant,
    /// Removals that failed, one after the other.
    failures: u32,
    removal: Option<Removal>,
}

struct Removal {
    /// When the engine's turn came, as far as it has been looked at.
    began: Instant,
    /// Says whether the engine's are removed.
    vectors: Receiver<bool>,
    /// Whether there is more to do since it began.
    is_disturbed: bool,
    /// Since when there are others, which it may not see.
    others_since: Option<Instant>,
}

impl Remains {
    /// Those of the shard in `dir`. A file's time that lies ahead, or that cannot be read, counts as now, and is noted anew.
    pub(super) fn open(dir: &Path) -> Self {
        let (note, now) = (dir.join(NOTE), Instant::now());
        let found = fs::metadata(&note).ok();
        let age = found
            .as_ref()
            .and_then(|note| note.modified().ok()?.elapsed().ok());
        let began = age.map(|age| now.checked_sub(age).unwrap_or(now));
        Self {
            note,
            is_noted: began.is_some(),
            since: found.and(Some(began.unwrap_or(now))),
            paused_at: now,
            failures: 0,
            removal: None,
        }
    }

    /// Takes in that something was deleted.
    fn add(&mut self) {
        let now = Instant::now();
        self.disturb();
        match &mut self.removal {
            Some(removal) => removal.others_since.get_or_insert(now),
            None => self.since.get_or_insert(now),
        };
    }

    /// Has the file say whether there are any. One that says so already keeps its time.
    fn note(&mut self) -> io::Result<()> {
        if self.since.is_some() && !self.is_noted {
            write_whole(&self.note, &[])?;
            self.is_noted = true;
        }
        Ok(())
    }

    /// Notes that points were changed, which makes more to do of a removal.
    pub(super) fn disturb(&mut self) {
        if let Some(removal) = &mut self.removal {
            removal.is_disturbed = true;
        }
    }

    /// How long it is until they are due to be removed, if there are any, where they may be kept for so long.
    pub(super) fn due_in(&self, kept_for: Duration) -> Option<Duration> {
        let pause = PAUSE.saturating_mul(2_u32.saturating_pow(self.failures));
        let due_at = self.since?.checked_add(kept_for)?;
        let due_at = due_at.max(self.paused_at + pause.min(kept_for));
        Some(due_at.saturating_duration_since(Instant::now()))
    }

    pub(super) fn are_being_removed(&self) -> bool {
        self.removal.is_some()
    }

    /// Whether they are being removed for longer than `beside` while there is ever more to do.
    pub(super) fn keep_coming(&self, beside: Duration) -> bool {
        let removal = self.removal.as_ref();
        removal.is_some_and(|removal| removal.is_disturbed && removal.began.elapsed() > beside)
    }

    /// Notes that the words' are removed, and that who sends by `vectors` removes the engine's.
    fn begin(&mut self, vectors: Receiver<bool>) {
        self.removal = Some(Removal {
            began: Instant::now(),
            vectors,
            is_disturbed: false,
            others_since: None,
        });
    }

    /// Notes that the engine's turn has not come yet.
    fn wait(&mut self) {
        if let Some(removal) = &mut self.removal {
            removal.began = Instant::now();
            removal.is_disturbed = false;
        }
    }

    /// Whether the engine's are removed by now; `None` as long as they are being.
    fn has_removed_vectors(&self) -> Option<bool> {
        match self.removal.as_ref()?.vectors.try_recv() {
            Ok(is_done) => Some(is_done),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(false),
        }
    }

    /// Puts the next removal off for a while.
    fn pause(&mut self) {
        self.paused_at = Instant::now();
    }

    /// Notes that all that were there when the removal began are removed.
    fn end(&mut self) -> io::Result<()> {
        self.failures = 0;
        self.since = self.removal.take().and_then(|removal| removal.others_since);
        self.is_noted = false;
        let Some(since) = self.since else {
            return fs::remove_file(&self.note);
        };
        self.note()?;
        let note = File::options().write(true).open(&self.note)?;
        note.set_modified(note.metadata()?.modified()? - since.elapsed())
    }

    /// Notes that a removal came to nothing.
    fn fail(&mut self) {
        let others = self.removal.take().and_then(|removal| removal.others_since);
        self.since = self.since.or(others);
        self.failures += 1;
        self.pause();
    }
}

impl Writer {
    /// Notes whether operations left something in the files; false where that could not be noted.
    pub(super) fn note_remains(&mut self) -> bool {
        let has_deleted = self.state.read(|sides| Ok(sides.take_has_deleted()));
        if has_deleted.is_ok_and(|has_deleted| has_deleted) {
            self.remains.add();
        }
        let noted = self.remains.note();
        if let Err(error) = &noted {
            self.warn_of_remains(error);
        }
        noted.is_ok()
    }

    /// Removes what deletions left in the files, where that has been there for so long, and ends what was begun.
    pub(super) fn look_at_remains(&mut self, kept_for: Duration) {
        self.note_remains();
        if self.remains.are_being_removed() {
            self.go_on_with_removal();
        } else if self.remains.due_in(kept_for) == Some(Duration::ZERO) {
            self.begin_removal();
        }
    }

    /// Whether deleted points have to be removed before anything else is built, and have had to for so long.
    pub(super) fn remains_come_first(&self, since: Duration) -> bool {
        let longest = self.state.tuning().deleted_kept_busy.saturating_add(since);
        !self.remains.are_being_removed() && self.remains.due_in(longest) == Some(Duration::ZERO)
    }

    fn begin_removal(&mut self) {
        // What is damaged is put aside at the next start.
        if damage::noted(self.state.dir()).is_some() {
            return self.remains.pause();
        }
        // A tenant who moves goes first. After that it is the shard's turn, before the next one moves.
        if self.builds_paused || self.state.is_building() {
            return;
        }
        if !self.state.is_open()
            && let Err(broken) = self.recover()
        {
            tracing::error!(%broken, "index shard cannot be opened to forget what was deleted, tried again later");
            return self.remains.fail();
        }
        // What the engine writes anew may be the only place where a point is that was changed, until all is on the disk.
        if !self.checkpoint(self.state.tuning().engine_log_bytes_busy) {
            return self.remains.pause();
        }
        if let Err(error) = self.state.read(|sides| sides.sync_keywords(Spare::Nothing)) {
            tracing::error!(shard = %self.state.dir().display(), %error, "index shard cannot forget what was deleted, tried again later");
            return self.remains.fail();
        }
        if !self.state.has_vectors() {
            return self.end_removal();
        }
        match self.start_build(Extent::Clean) {
            Some(ended) => self.remains.begin(ended),
            None => self.remains.fail(),
        }
    }

    fn go_on_with_removal(&mut self) {
        if self.state.is_to_build() {
            return self.remains.wait();
        }
        match self.remains.has_removed_vectors() {
            None => {}
            Some(true) if self.empty_engine_log() => self.end_removal(),
            Some(_) => self.remains.fail(),
        }
    }

    fn end_removal(&mut self) {
        if let Err(error) = self.remains.end() {
            self.warn_of_remains(&error);
        }
    }

    /// Opens the engine anew with nothing in its own log.
    fn empty_engine_log(&mut self) -> bool {
        let shard = self.state.dir().display();
        match free_bytes(self.state.dir()) {
            Ok(free) if free >= FILLING_BYTES => {}
            found => {
                tracing::error!(%shard, ?found, "no room on the disk to have the index forget what was deleted, tried again later");
                return false;
            }
        }
        if let Err(error) = self.state.read(Sides::fill_engine_log) {
            tracing::error!(%shard, %error, "the engine's log cannot be emptied, tried again later");
            return false;
        }
        self.checkpoint(0)
    }

    fn warn_of_remains(&self, error: &io::Error) {
        tracing::warn!(shard = %self.state.dir().display(), %error, "it cannot be noted whether files keep what was deleted: after a restart they may keep it for longer, or forget it twice");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::UNIX_EPOCH;

    use super::*;

    const KEPT_FOR: Duration = Duration::from_mins(40);

    /// Of a shard in which something was deleted long ago, just opened.
    fn old(dir: &Path) -> Remains {
        let note = File::create(dir.join(NOTE)).expect("made");
        note.set_modified(UNIX_EPOCH).expect("made old");
        Remains::open(dir)
    }

    fn due_in(remains: &Remains) -> Duration {
        remains.due_in(KEPT_FOR).expect("there are some")
    }

    #[test]
    fn what_was_deleted_before_a_restart_is_due_as_if_there_had_been_none() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut remains = Remains::open(dir.path());
        assert!(remains.due_in(KEPT_FOR).is_none());
        remains.add();
        remains.note().expect("noted");
        assert!(due_in(&remains) > KEPT_FOR - PAUSE);
        let reopened = Remains::open(dir.path());
        assert!(due_in(&reopened) > KEPT_FOR - PAUSE);

        let old = old(dir.path());

        assert!(!due_in(&old).is_zero() && due_in(&old) <= PAUSE);
        assert!(old.due_in(Duration::ZERO) == Some(Duration::ZERO), "at once");
        assert!(old.due_in(Duration::MAX).is_none(), "never");
    }

    #[test]
    fn what_could_not_be_noted_is_noted_as_soon_as_it_can_be() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let dir = dir.path().join("away");
        let mut remains = Remains::open(&dir);
        remains.add();
        assert!(remains.note().is_err());

        fs::create_dir(&dir).expect("there again");
        remains.note().expect("noted");

        assert!(due_in(&Remains::open(&dir)) > KEPT_FOR - PAUSE);
    }

    #[test]
    fn a_note_of_a_time_that_lies_ahead_is_noted_anew() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let modified = || fs::metadata(dir.path().join(NOTE)).and_then(|note| note.modified());
        let note = File::create(dir.path().join(NOTE)).expect("made");
        let ahead = modified().expect("a time") + KEPT_FOR;
        note.set_modified(ahead).expect("made younger");

        let mut remains = Remains::open(dir.path());
        remains.note().expect("noted");

        assert!(due_in(&remains) > KEPT_FOR - PAUSE);
        assert!(modified().expect("a time") < ahead);
    }

    #[test]
    fn what_is_deleted_during_a_removal_is_due_after_it_and_after_a_restart() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut remains = old(dir.path());
        let (done, ended) = mpsc::channel();
        remains.begin(ended);
        assert_eq!(remains.has_removed_vectors(), None);
        assert!(!remains.keep_coming(Duration::ZERO));

        remains.add();

        assert!(remains.keep_coming(Duration::ZERO) && !remains.keep_coming(KEPT_FOR));
        done.send(true).expect("heard");
        assert_eq!(remains.has_removed_vectors(), Some(true));
        remains.end().expect("noted");
        assert!(!remains.are_being_removed() && due_in(&remains) > KEPT_FOR - PAUSE);
        assert!(due_in(&Remains::open(dir.path())) > KEPT_FOR - PAUSE);
    }

    #[test]
    fn a_removal_that_failed_is_tried_again_ever_later_and_one_that_did_not_leaves_nothing_to_do() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut remains = old(dir.path());
        for failures in 1..=10 {
            let (done, ended) = mpsc::channel::<bool>();
            remains.begin(ended);
            drop(done);
            assert_eq!(remains.has_removed_vectors(), Some(false), "who did it has died");
            remains.fail();
            let pause = (PAUSE * 2_u32.pow(failures)).min(KEPT_FOR);
            assert!(due_in(&remains) <= pause && due_in(&remains) > pause - PAUSE);
        }

        remains.end().expect("noted");

        assert!(remains.due_in(KEPT_FOR).is_none());
        assert!(Remains::open(dir.path()).due_in(KEPT_FOR).is_none());
    }
}
