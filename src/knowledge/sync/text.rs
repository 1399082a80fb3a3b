//! What makes two versions of an item the same: hashes of what was received and of what a reader sees in it, and what
//! else is stored of a reading.

use aws_lc_rs::digest::{Context, SHA256};
use ingest::{BlockKind, ExtractedDocument, Media};
use url::Url;

use super::driver::Found;
use crate::secrets::hex;

/// What the headers of an answer say about its content.
pub(super) struct Directives {
    pub noindex: bool,
    pub nofollow: bool,
}

impl Directives {
    /// The hash of a body together with what the headers say: either may change alone.
    pub(super) fn folded_into(&self, body_hash: &str) -> String {
        match (self.noindex, self.nofollow) {
            (false, false) => body_hash.to_owned(),
            (noindex, nofollow) => {
                format!("{body_hash}:{}{}", u8::from(noindex), u8::from(nofollow))
            }
        }
    }
}

/// Of bytes as they were received, in hexadecimal.
pub(super) fn hash_bytes(bytes: &[u8]) -> String {
    let mut hash = Context::new(&SHA256);
    hash.update(bytes);
    hex(hash.finish().as_ref())
}

/// Of title, text and structure, in hexadecimal: documents with the same hash make the same chunks.
pub(super) fn hash_reading(document: &ExtractedDocument) -> String {
    let mut hash = Context::new(&SHA256);
    let title = document.title.as_deref().unwrap_or_default();
    hash.update(&(title.len() as u64).to_le_bytes());
    hash.update(title.as_bytes());
    hash.update(&(document.text.len() as u64).to_le_bytes());
    hash.update(document.text.as_bytes());
    for block in &document.blocks {
        let kind = match &block.kind {
            BlockKind::Heading { level } => *level,
            BlockKind::Paragraph => 16,
            BlockKind::ListItem => 17,
            BlockKind::TableRow { .. } => 18,
            BlockKind::Code => 19,
            BlockKind::Medium { .. } => 20,
        };
        hash.update(&[kind]);
        hash.update(&(block.start as u64).to_le_bytes());
        hash.update(&(block.end as u64).to_le_bytes());
    }
    hex(hash.finish().as_ref())
}

/// Of title and text without the address that they were read at, in hexadecimal: sites say of an address that it leads
/// nowhere, and name it.
pub(super) fn hash_besides_address(document: &ExtractedDocument, address: &Url) -> String {
    let path = address.path().trim_matches('/');
    let segment = path.rsplit('/').next().unwrap_or_default();
    let mut hash = Context::new(&SHA256);
    for text in [document.title.as_deref().unwrap_or_default(), &document.text] {
        let mut text = text.to_owned();
        for form in [address.as_str(), path, segment] {
            if !form.is_empty() {
                text = text.replace(form, "");
            }
        }
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hex(hash.finish().as_ref())
}

/// Which version of our readers made what is stored: after a change of them, pages are read again although they are the
/// same. Whoever reads pictures or recordings finds more of what pages link to.
pub(super) fn reader_version(media: Media) -> i64 {
    i64::from(ingest::READER_VERSION) << 2 | i64::from(media.recordings) << 1 | i64::from(media.pictures)
}

/// Keys, one a line, as they are stored.
pub(super) fn lines(found: &[Found]) -> String {
    /// Of a page with more links than fit, the rest is found again whenever the page is read.
    const MOST_BYTES: usize = 256 << 10;
    let mut lines = String::new();
    for found in found {
        if lines.len() + found.key.len() > MOST_BYTES {
            break;
        }
        if !lines.is_empty() {
            lines.push('\n');
        }
        lines.push_str(&found.key);
    }
    lines
}

#[cfg(test)]
mod tests {
    use ingest::Block;

    use super::*;

    fn document(title: &str, text: &str, kind: BlockKind) -> ExtractedDocument {
        ExtractedDocument {
            title: Some(title.to_owned()),
            text: text.to_owned(),
            blocks: vec![Block {
                kind,
                start: 0,
                end: text.chars().count(),
                page: None,
                heading_path: Vec::new(),
            }],
            ..ExtractedDocument::default()
        }
    }

    #[test]
    fn pages_that_differ_in_their_own_address_alone_say_the_same() {
        let hash = |path: &str, text: &str| {
            let url = Url::parse("https://example.org").and_then(|url| url.join(path));
            hash_besides_address(
                &document("Acme", text, BlockKind::Paragraph),
                &url.expect("a URL"),
            )
        };
        let nowhere = hash("/no-such-page", "There is nothing at /no-such-page.");

        assert_eq!(hash("/a/b", "There is nothing at /a/b."), nowhere);
        assert_ne!(hash("/a/b", "There is a table at /a/b."), nowhere);
        assert_ne!(hash("/", "There is nothing at /a/b."), nowhere);
    }

    #[test]
    fn readings_with_one_hash_make_the_same_chunks() {
        let paragraph = hash_reading(&document("Title", "text", BlockKind::Paragraph));

        assert_eq!(
            paragraph,
            hash_reading(&document("Title", "text", BlockKind::Paragraph))
        );
        for other in [
            document("Titlet", "ext", BlockKind::Paragraph),
            document("Title", "text", BlockKind::Heading { level: 1 }),
            document("Title", "text!", BlockKind::Paragraph),
        ] {
            assert_ne!(paragraph, hash_reading(&other), "{other:?}");
        }
    }
}
