//! Ids, texts, numbers and facets as the redo log and the file of facets hold them. Little endian throughout.

use uuid::Uuid;

use crate::index::Facets;

pub(super) fn put_id(bytes: &mut Vec<u8>, id: Uuid) {
    bytes.extend_from_slice(id.as_bytes());
}

pub(super) fn put_len(bytes: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).expect("a batch that fits in memory has fewer than 2^32 entries");
    bytes.extend_from_slice(&len.to_le_bytes());
}

pub(super) fn put_floats(bytes: &mut Vec<u8>, values: &[f32]) {
    put_len(bytes, values.len());
    values
        .iter()
        .for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
}

pub(super) fn put_facets(bytes: &mut Vec<u8>, facets: &Facets) {
    bytes.push(u8::from(facets.language.is_some()) | u8::from(facets.date.is_some()) << 1);
    if let Some(language) = &facets.language {
        put_text(bytes, language);
    }
    if let Some(date) = facets.date {
        bytes.extend_from_slice(&date.to_le_bytes());
    }
    for texts in [&facets.tags, &facets.groups] {
        put_len(bytes, texts.len());
        texts.iter().for_each(|text| put_text(bytes, text));
    }
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_len(bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
}

/// Reads what was put, in the same order; `None` where the bytes are something else.
pub(super) struct Reader<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(head)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(super) fn id(&mut self) -> Option<Uuid> {
        Uuid::from_slice(self.take(size_of::<Uuid>())?).ok()
    }

    pub(super) fn word(&mut self) -> Option<[u8; 4]> {
        self.take(4)?.try_into().ok()
    }

    pub(super) fn double_word(&mut self) -> Option<[u8; 8]> {
        self.take(8)?.try_into().ok()
    }

    pub(super) fn list<T>(&mut self, mut entry: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let len = u32::from_le_bytes(self.word()?);
        // Not allocated ahead: the length is not to be trusted before its entries have been read.
        (0..len).map(|_| entry(self)).collect()
    }

    pub(super) fn floats(&mut self) -> Option<Vec<f32>> {
        self.list(|reader| reader.word().map(f32::from_le_bytes))
    }

    pub(super) fn facets(&mut self) -> Option<Facets> {
        let present = self.byte()?;
        Some(Facets {
            language: if present & 1 == 1 {
                Some(self.text()?)
            } else {
                None
            },
            date: if present & 2 == 2 {
                Some(i64::from_le_bytes(self.double_word()?))
            } else {
                None
            },
            tags: self.list(Self::text)?,
            groups: self.list(Self::text)?,
        })
    }

    fn text(&mut self) -> Option<String> {
        let len = u32::from_le_bytes(self.word()?) as usize;
        String::from_utf8(self.take(len)?.to_vec()).ok()
    }
}
