//! What goes over the pipes: a length and a JSON head, then for requests the document's bytes. The text of a document
//! is one such message for each of its parts.

use std::io::{self, Read, Take};

use serde::{Deserialize, Serialize};

use crate::extract::{PageScan, Scans};
use crate::{ExtractError, ExtractedDocument, Format, Hints, Limits};

/// A head is a few hundred bytes; more is not from us.
const MAX_HEAD_BYTES: u32 = 64 << 10;

/// JSON escapes at most sixfold, and blocks come on top of the text.
const MAX_REPLY_BYTES_PER_TEXT_BYTE: u64 = 8;

/// What is wanted of a document.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wanted {
    #[default]
    Text,
    /// The images of the next scanned pages after this one.
    Scans { after: u32 },
}

/// What to read; `body_bytes` bytes of document follow.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RequestHead {
    #[serde(default)]
    pub(super) wanted: Wanted,
    pub(super) format: Format,
    pub(super) hints: Hints,
    pub(super) limits: Limits,
    pub(super) body_bytes: u64,
}

/// What came of it: parts of the document up to the last one, or why there is none.
pub(super) type Reply = Result<Part, ExtractError>;

/// One part of a document. The last one has what is known of the document besides its text.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) document: ExtractedDocument,
    pub(super) is_last: bool,
}

/// The bytes of a request up to its body.
pub(super) fn encode_head(head: &RequestHead) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(head)?;
    let length = u32::try_from(json.len())
        .ok()
        .filter(|length| *length <= MAX_HEAD_BYTES);
    let length =
        length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "request head too long"))?;
    Ok([&length.to_le_bytes(), json.as_slice()].concat())
}

/// The head of the next request, whose body follows, or `None` at the end of input.
pub(super) fn read_head(input: &mut impl Read) -> io::Result<Option<RequestHead>> {
    let mut length = [0; 4];
    if input.read(&mut length[..1])? == 0 {
        return Ok(None);
    }
    input.read_exact(&mut length[1..])?;
    let length = u32::from_le_bytes(length);
    if length > MAX_HEAD_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "request head too long",
        ));
    }
    let mut json = vec![0; length as usize];
    input.read_exact(&mut json)?;
    Ok(Some(serde_json::from_slice(&json)?))
}

/// The whole body of a request.
pub(super) fn read_body(input: &mut impl Read, head: &RequestHead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    input.take(head.body_bytes).read_to_end(&mut body)?;
    if body.len() as u64 != head.body_bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

/// Passes over what was not read of a body.
pub(super) fn pass_over(mut body: Take<impl Read>) -> io::Result<()> {
    io::copy(&mut body, &mut io::sink())?;
    match body.limit() {
        0 => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The bytes of one part of a reply.
pub(super) fn encode_reply(reply: &Reply) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 8];
    serde_json::to_writer(&mut bytes, reply)?;
    let length = (bytes.len() - 8) as u64;
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// The first part of a reply with scanned pages; the bytes of their images follow.
#[derive(Debug, Serialize, Deserialize)]
struct ScansHead {
    page_count: u32,
    /// Page, and the length of each of its images.
    pages: Vec<(u32, Vec<u64>)>,
}

/// The bytes of a reply with scanned pages: its length, that of the head, the head, the images.
pub(super) fn encode_scans(scans: &Result<Scans, ExtractError>) -> io::Result<Vec<u8>> {
    let head = scans.as_ref().map(|scans| ScansHead {
        page_count: scans.page_count,
        pages: scans
            .pages
            .iter()
            .map(|scan| {
                (
                    scan.page,
                    scan.images.iter().map(|image| image.len() as u64).collect(),
                )
            })
            .collect(),
    });
    let json = serde_json::to_vec(&head)?;
    let mut bytes = vec![0; 8];
    bytes.extend((json.len() as u64).to_le_bytes());
    bytes.extend(json);
    for image in scans
        .iter()
        .flat_map(|scans| &scans.pages)
        .flat_map(|scan| &scan.images)
    {
        bytes.extend(image);
    }
    let length = (bytes.len() - 8) as u64;
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// The scanned pages in a reply, without its length.
pub(super) fn decode_scans(bytes: &[u8]) -> io::Result<Result<Scans, ExtractError>> {
    let (length, rest) = bytes
        .split_first_chunk::<8>()
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let (json, images) = usize::try_from(u64::from_le_bytes(*length))
        .ok()
        .and_then(|length| rest.split_at_checked(length))
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let head: Result<ScansHead, ExtractError> = serde_json::from_slice(json)?;
    let head = match head {
        Ok(head) => head,
        Err(error) => return Ok(Err(error)),
    };
    let mut scans = Scans {
        page_count: head.page_count,
        pages: Vec::with_capacity(head.pages.len()),
    };
    let mut at = 0_usize;
    for (page, lengths) in head.pages {
        let mut scan = PageScan {
            page,
            images: Vec::with_capacity(lengths.len()),
        };
        for length in lengths {
            let end = usize::try_from(length)
                .ok()
                .and_then(|length| at.checked_add(length));
            let image = end
                .and_then(|end| images.get(at..end))
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            at += image.len();
            scan.images.push(image.to_vec());
        }
        scans.pages.push(scan);
    }
    Ok(Ok(scans))
}

/// The largest reply with scanned pages: a batch, and the page that fills it.
pub(super) const MAX_SCANS_BYTES: u64 = 72 << 20;

/// The largest reply that a sound extractor sends under `limits`, all parts together.
pub(super) fn max_reply_bytes(limits: &Limits) -> u64 {
    limits
        .max_unpacked_bytes
        .saturating_mul(MAX_REPLY_BYTES_PER_TEXT_BYTE)
        .max(1 << 20)
}
