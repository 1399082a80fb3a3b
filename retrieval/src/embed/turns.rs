//! Lines of those who wait, one for each asker, and whose turn it is.

use std::collections::VecDeque;

use super::Asker;

/// What waits: in the order in which it came within one asker's line, while the askers take turns, one thing each. So what
/// one of them has waiting costs another the time of one thing, however much it is.
pub(super) struct Turns<T> {
    /// None is empty; the first one's turn is next.
    lines: VecDeque<(Asker, VecDeque<T>)>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self {
            lines: VecDeque::new(),
        }
    }
}

impl<T> Turns<T> {
    /// Puts a thing at the end of the asker's line; who had none waiting has to wait for one turn of each other.
    pub(super) fn push(&mut self, asker: Asker, thing: T) {
        match self.lines.iter_mut().find(|(of, _)| *of == asker) {
            Some((_, line)) => line.push_back(thing),
            None => self.lines.push_back((asker, VecDeque::from([thing]))),
        }
    }

    /// Takes what is next.
    pub(super) fn pop(&mut self) -> Option<(Asker, T)> {
        self.pop_if(|_| true)
    }

    /// Takes what is next if it `is_wanted`; if not, it stays the next.
    pub(super) fn pop_if(&mut self, is_wanted: impl FnOnce(&T) -> bool) -> Option<(Asker, T)> {
        let (_, line) = self.lines.front()?;
        if !is_wanted(line.front()?) {
            return None;
        }
        let (asker, mut line) = self.lines.pop_front()?;
        let thing = line.pop_front()?;
        if !line.is_empty() {
            self.lines.push_back((asker, line));
        }
        Some((asker, thing))
    }

    /// Drops all others.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&T) -> bool) {
        self.lines.retain_mut(|(_, line)| {
            line.retain(&is_wanted);
            !line.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::TenantId;

    fn asker(number: u128) -> Asker {
        Asker::Tenant(TenantId(Uuid::from_u128(number)))
    }

    fn order(mut turns: Turns<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| turns.pop())
            .map(|(_, thing)| thing)
            .collect()
    }

    #[test]
    fn who_has_much_waiting_takes_turns_with_who_has_little() {
        let mut turns = Turns::default();
        for (of, thing) in [(1, "1a"), (1, "1b"), (1, "1c"), (2, "2a"), (3, "3a"), (3, "3b")] {
            turns.push(asker(of), thing);
        }

        assert_eq!(order(turns), ["1a", "2a", "3a", "1b", "3b", "1c"]);
    }

    #[test]
    fn who_comes_again_and_again_does_not_overtake() {
        let mut turns = Turns::default();
        turns.push(asker(1), "1a");
        turns.push(asker(2), "2a");
        turns.push(asker(2), "2b");

        let (of, first) = turns.pop().expect("one waits");
        turns.push(of, "1b");

        assert_eq!((first, order(turns)), ("1a", vec!["2a", "1b", "2b"]));
    }

    #[test]
    fn what_is_not_taken_stays_the_next() {
        let mut turns = Turns::default();
        turns.push(asker(1), "1a");
        turns.push(asker(2), "2a");

        assert!(turns.pop_if(|thing| *thing != "1a").is_none());
        assert_eq!(order(turns), ["1a", "2a"]);
    }

    #[test]
    fn who_has_nothing_left_has_no_turn() {
        let mut turns = Turns::default();
        for (of, thing) in [(1, "gone"), (2, "2a"), (3, "gone"), (3, "3a")] {
            turns.push(asker(of), thing);
        }
        turns.retain(|thing| *thing != "gone");

        assert_eq!(order(turns), ["2a", "3a"]);
    }
}
