//! One pattern as an automaton of bits: all ways in which an address may fit are followed at once, a machine word of
//! states at a time (Baeza-Yates and Gonnet, "A New Approach to Text Searching", 1992). The worst pattern takes
//! `states / 64` steps for each byte of the address, whatever both hold.

use std::collections::BTreeMap;

/// One bit for each state. State `n` says that the first `n` bytes that mean themselves were read.
type States = Box<[u64]>;

/// A pattern that was checked, for addresses in normal form.
#[derive(Clone, Debug)]
pub(super) struct Glob {
    /// The states that each byte leads on from, by one.
    reads: BTreeMap<u8, States>,
    /// The states that a byte within a segment leaves as they are: those before a `*` or `**`.
    stays_within: States,
    /// The states that any byte leaves as they are: those before a `**`.
    stays: States,
    /// The state in which all was read.
    end: usize,
    /// Whether it may begin at each segment.
    floats: bool,
    /// Whether what was read so far is enough once a `/` follows.
    is_folder: bool,
    reads_query: bool,
}

impl Glob {
    pub(super) fn new(pattern: &str) -> Self {
        // A folder with everything in it, and the folder's own page.
        let (stem, is_folder) = match pattern.strip_suffix("/**") {
            Some(stem) => (stem, true),
            None => (pattern, false),
        };
        let words = stem.len() / 64 + 1;
        let none = || vec![0; words].into_boxed_slice();
        let mut glob = Self {
            reads: BTreeMap::new(),
            stays_within: none(),
            stays: none(),
            end: 0,
            floats: !pattern.starts_with('/') && !pattern.contains("://"),
            is_folder,
            reads_query: pattern.contains('?'),
        };
        let mut rest = stem.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            if rest.starts_with(b"**") {
                set(&mut glob.stays, glob.end);
                set(&mut glob.stays_within, glob.end);
                let stars = rest.iter().take_while(|byte| **byte == b'*').count();
                rest = &rest[stars..];
            } else if byte == b'*' {
                set(&mut glob.stays_within, glob.end);
                rest = after;
            } else {
                set(glob.reads.entry(byte).or_insert_with(none), glob.end);
                glob.end += 1;
                rest = after;
            }
        }
        if pattern.ends_with('/') {
            set(&mut glob.stays, glob.end);
            set(&mut glob.stays_within, glob.end);
        }
        glob
    }

    /// Whether the whole of `address` fits, with or without its query.
    pub(super) fn matches(&self, address: &str) -> bool {
        let address = match address.split_once('?') {
            Some((path, _)) if !self.reads_query => path,
            _ => address,
        };
        let mut states = vec![0; self.stays.len()];
        set(&mut states, 0);
        for byte in address.bytes() {
            let is_slash = byte == b'/';
            if is_slash && self.is_folder && is_set(&states, self.end) {
                return true;
            }
            let stays = if is_slash || byte == b'?' {
                &self.stays
            } else {
                &self.stays_within
            };
            let may_go_on = step(&mut states, self.reads.get(&byte), stays);
            if self.floats && is_slash {
                set(&mut states, 0);
            } else if !self.floats && !may_go_on {
                return false;
            }
        }
        is_set(&states, self.end)
    }
}

/// Whether any state is left after a byte that leads on from `reads` and leaves `stays` as they are.
fn step(states: &mut [u64], reads: Option<&States>, stays: &States) -> bool {
    let (mut carried, mut left) = (0, 0);
    for (word, state) in states.iter_mut().enumerate() {
        let led_on = *state & reads.map_or(0, |reads| reads[word]);
        *state = (led_on << 1) | carried | (*state & stays[word]);
        carried = led_on >> 63;
        left |= *state;
    }
    left != 0
}

fn set(states: &mut [u64], state: usize) {
    states[state / 64] |= 1 << (state % 64);
}

fn is_set(states: &[u64], state: usize) -> bool {
    states[state / 64] & (1 << (state % 64)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the patterns promise, said as plainly as it can be; takes forever on long ones.
    fn fits(pattern: &[u8], address: &[u8]) -> bool {
        match pattern {
            [] => address.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=address.len()).any(|read| fits(rest, &address[read..])),
            [b'*', rest @ ..] => (0..=address.len())
                .take_while(|read| !address[..*read].iter().any(|byte| b"/?".contains(byte)))
                .any(|read| fits(rest, &address[read..])),
            [byte, rest @ ..] => address.first() == Some(byte) && fits(rest, &address[1..]),
        }
    }

    fn expected(pattern: &str, address: &str) -> bool {
        let path = match address.split_once('?') {
            Some((path, _)) if !pattern.contains('?') => path,
            _ => address,
        };
        let mut written = vec![pattern.to_owned()];
        if let Some(folder) = pattern.strip_suffix("/**") {
            written.push(folder.to_owned());
        }
        if pattern.ends_with('/') {
            written.push(format!("{pattern}**"));
        }
        if !pattern.starts_with('/') {
            written.extend(written.clone().iter().map(|pattern| format!("**/{pattern}")));
        }
        written
            .iter()
            .any(|pattern| fits(pattern.as_bytes(), path.as_bytes()))
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(4_000))]

        #[test]
        fn every_pattern_means_what_is_promised(
            pattern in "[ab/?*]{1,9}",
            filler in "a{0,70}",
            address in "/[ab/?]{0,9}",
        ) {
            // With a filler, states lie in several words.
            let (pattern, address) = (format!("{pattern}{filler}"), format!("{address}{filler}"));
            proptest::prop_assert_eq!(
                Glob::new(&pattern).matches(&address),
                expected(&pattern, &address),
                "{} {}", pattern, address
            );
        }
    }
}
