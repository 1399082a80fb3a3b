//! Tables as text: every row is one block that can be found and cited alone.

/// Delimiters in use, most common first.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// Whether `bytes` parse as a table of at least two columns.
pub(crate) fn is_plausible(bytes: &[u8]) -> bool {
    sniff_delimiter(&bytes[..bytes.len().min(16 << 10)]).is_some()
}

/// The delimiter under which the first rows have the same number of columns, at least two.
fn sniff_delimiter(head: &[u8]) -> Option<u8> {
    DELIMITERS
        .into_iter()
        .filter_map(|delimiter| {
            let mut reader =
                csv::ReaderBuilder::new().delimiter(delimiter).has_headers(false).flexible(true).from_reader(head);
            let widths: Vec<usize> =
                reader.byte_records().take(20).map_while(Result::ok).map(|record| record.len()).collect();
            let columns = *widths.first()?;
            let alike = widths.iter().filter(|width| **width == columns).count();
            (columns >= 2 && alike * 10 >= widths.len() * 8).then_some((columns, delimiter))
        })
        .max_by_key(|(columns, _)| *columns)
        .map(|(_, delimiter)| delimiter)
}
