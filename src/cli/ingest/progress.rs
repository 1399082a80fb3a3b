//! How far it is: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::visible;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows one step after another on standard error.
pub(super) struct Progress {
    on_terminal: bool,
    /// When the last line was written.
    told_at: Mutex<Option<Instant>>,
}

/// One step of the work. It is cleared away when it is dropped.
pub(super) struct Step<'a> {
    progress: &'a Progress,
    bar: ProgressBar,
    what: String,
}

impl Progress {
    pub(super) fn start() -> Self {
        Self {
            on_terminal: std::io::stderr().is_terminal(),
            told_at: Mutex::new(None),
        }
    }

    /// A step of which `total` parts are known, or none yet.
    pub(super) fn step(&self, what: impl Into<String>, total: Option<usize>) -> Step<'_> {
        let what = what.into();
        let bar = match total {
            Some(total) => {
                ProgressBar::new(total as u64).with_style(style("{prefix} [{bar:30}] {pos}/{len} {wide_msg}"))
            }
            None => ProgressBar::new_spinner().with_style(style("{spinner} {prefix} {wide_msg}")),
        };
        if self.on_terminal {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.enable_steady_tick(Duration::from_millis(200));
        } else {
            bar.set_draw_target(ProgressDrawTarget::hidden());
            self.tell(&what);
        }
        bar.set_prefix(what.clone());
        Step {
            progress: self,
            bar,
            what,
        }
    }

    fn tell(&self, line: &str) {
        let mut stderr = std::io::stderr().lock();
        // Whoever reads this may be gone: that stops nothing.
        let _ = writeln!(stderr, "{line}");
        *self
            .told_at
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Instant::now());
    }

    fn tell_now_and_then(&self, line: &str) {
        let told_at = *self
            .told_at
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if told_at.is_none_or(|told_at| told_at.elapsed() >= LINE_EVERY) {
            self.tell(line);
        }
    }
}

impl Step<'_> {
    /// `done` parts are done; `note` says more.
    pub(super) fn show(&self, done: usize, note: &str) {
        self.bar.set_position(done as u64);
        let note = visible(note);
        self.bar.set_message(note.clone());
        if !self.progress.on_terminal {
            let of = self
                .bar
                .length()
                .map(|total| format!("/{total}"))
                .unwrap_or_default();
            self.progress
                .tell_now_and_then(format!("{}: {done}{of} {note}", self.what).trim_end());
        }
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a constant that holds")
}
