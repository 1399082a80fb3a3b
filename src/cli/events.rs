//! Reads a stream of server-sent events.

/// Cuts a stream of server-sent events into their names and data.
#[derive(Default)]
pub(super) struct EventReader {
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    name: String,
    data: String,
}

impl EventReader {
    /// The events that are whole with these bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<(String, String)> {
        let mut events = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches('\r');
            if let Some(name) = line.strip_prefix("event:") {
                self.name = name.trim().to_owned();
            } else if let Some(data) = line.strip_prefix("data:") {
                self.data.push_str(data.trim_start());
            } else if line.is_empty() && !self.name.is_empty() {
                events.push((std::mem::take(&mut self.name), std::mem::take(&mut self.data)));
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let stream = b": beat\n\nevent: delta\ndata: {\"text\":\"caf\xc3\xa9\"}\n\nevent: message.end\r\ndata: {}\r\n\r\n";

        for size in 1..stream.len() {
            let mut reader = EventReader::default();
            let events: Vec<_> = stream.chunks(size).flat_map(|piece| reader.feed(piece)).collect();

            let expected = [
                ("delta".to_owned(), "{\"text\":\"café\"}".to_owned()),
                ("message.end".to_owned(), "{}".to_owned()),
            ];
            assert_eq!(events, expected, "in pieces of {size} bytes");
        }
    }
}
