//! Server-sent events, read leniently: any line ending, comments, fields without a space, several events in one read
//! or one event over many.

/// Bytes of one event's data, at most.
const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// An event that is larger than any answer needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// Cuts a byte stream into the data of its events. Buffers are reused.
#[derive(Default)]
pub(super) struct Decoder {
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// The data of the event whose end has not come yet.
    data: Vec<u8>,
    has_data: bool,
    /// A line feed here belongs to the carriage return before it.
    after_carriage_return: bool,
}

impl Decoder {
    /// Takes the next bytes in and calls `on_data` for each event that they complete, until it returns false.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut on_data: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), TooLarge> {
        if self.after_carriage_return
            && let Some((first, rest)) = bytes.split_first()
        {
            self.after_carriage_return = false;
            if *first == b'\n' {
                bytes = rest;
            }
        }
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let more = if self.line.is_empty() {
                self.end_line(&bytes[..end], &mut on_data)?
            } else {
                self.line.extend_from_slice(&bytes[..end]);
                let line = std::mem::take(&mut self.line);
                let more = self.end_line(&line, &mut on_data)?;
                self.line = line;
                self.line.clear();
                more
            };
            let is_carriage_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if is_carriage_return {
                match bytes.first() {
                    Some(b'\n') => bytes = &bytes[1..],
                    Some(_) => {}
                    None => self.after_carriage_return = true,
                }
            }
            if !more {
                return Ok(());
            }
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() > MAX_EVENT_BYTES {
            Err(TooLarge)
        } else {
            Ok(())
        }
    }

    /// Hands over what an ended stream left without its blank line.
    pub(super) fn finish(&mut self, mut on_data: impl FnMut(&[u8]) -> bool) -> Result<(), TooLarge> {
        let line = std::mem::take(&mut self.line);
        self.end_line(&line, &mut on_data)?;
        self.end_event(&mut on_data);
        Ok(())
    }

    fn end_line(&mut self, line: &[u8], on_data: &mut impl FnMut(&[u8]) -> bool) -> Result<bool, TooLarge> {
        if line.is_empty() {
            return Ok(self.end_event(on_data));
        }
        let Some(value) = line.strip_prefix(b"data") else {
            return Ok(true);
        };
        let value = match value.split_first() {
            None => value,
            Some((b':', value)) => value.strip_prefix(b" ").unwrap_or(value),
            // Another field that only begins like this one.
            Some(_) => return Ok(true),
        };
        if self.has_data {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value);
        self.has_data = true;
        if self.data.len() > MAX_EVENT_BYTES {
            Err(TooLarge)
        } else {
            Ok(true)
        }
    }

    fn end_event(&mut self, on_data: &mut impl FnMut(&[u8]) -> bool) -> bool {
        let more = !self.has_data || on_data(&self.data);
        self.data.clear();
        self.has_data = false;
        more
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The events of `reads`, decoded as they would arrive.
    fn decode<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        let mut keep = |data: &[u8]| {
            events.push(String::from_utf8_lossy(data).into_owned());
            true
        };
        for read in reads {
            decoder.feed(read, &mut keep).expect("within the limit");
        }
        decoder.finish(&mut keep).expect("within the limit");
        events
    }

    #[test]
    fn every_common_way_of_writing_events_is_read() {
        let text = "\u{0}: ping\ndata: one\n\ndata:two\r\n\r\nevent: x\nid: 7\ndata: three\ndata: lines\n\ndatabase: no\n\n: end\n\ndata: [DONE]";

        assert_eq!(
            decode([text.as_bytes()]),
            ["one", "two", "three\nlines", "[DONE]"]
        );
    }

    #[test]
    fn lone_carriage_returns_end_lines_too() {
        assert_eq!(
            decode([b"data: a\r\rdata: b\r".as_slice(), b"\ndata: c\r\n\r\n"]),
            ["a", "b\nc"]
        );
    }

    #[test]
    fn an_event_without_an_end_is_cut_off() {
        let mut decoder = Decoder::default();
        let piece = [b'x'; 64 * 1024];

        let fed = (0..32).try_for_each(|_| decoder.feed(&piece, |_| true));

        assert_eq!(fed, Err(TooLarge));
    }

    #[test]
    fn nothing_is_read_past_the_event_that_ends_it() {
        let mut seen = Vec::new();

        Decoder::default()
            .feed(b"data: a\n\ndata: b\n\ndata: c\n\n", |data| {
                seen.push(data.to_vec());
                data != b"b"
            })
            .expect("within the limit");

        assert_eq!(seen, [b"a", b"b"]);
    }

    proptest! {
        #[test]
        fn where_reads_are_cut_does_not_matter(
            events in prop::collection::vec("[^\r\n]{1,20}", 1..8),
            newline in prop::sample::select(vec!["\n", "\r\n", "\r"]),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let text: String = events.iter().map(|event| format!("data: {event}{newline}{newline}")).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).chain([0, text.len()]).collect();
            cuts.sort_unstable();

            let read = decode(cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]));

            prop_assert_eq!(read, events);
        }

        #[test]
        fn no_bytes_do_harm(reads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..16)) {
            decode(reads.iter().map(Vec::as_slice));
        }
    }
}
