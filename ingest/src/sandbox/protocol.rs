//! What goes over the pipes: a length and a JSON head, then for requests the document's bytes.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use crate::{ExtractError, ExtractedDocument, Format, Hints, Limits};

/// A head is a few hundred bytes; more is not from us.
const MAX_HEAD_BYTES: u32 = 64 << 10;

/// JSON escapes at most sixfold, and blocks come on top of the text.
const MAX_REPLY_BYTES_PER_TEXT_BYTE: u64 = 8;

/// What to read; `body_bytes` bytes of document follow.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RequestHead {
    pub(super) format: Format,
    pub(super) hints: Hints,
    pub(super) limits: Limits,
    pub(super) body_bytes: u64,
}

/// What came of it.
pub(super) type Reply = Result<ExtractedDocument, ExtractError>;

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

/// The next request, or `None` at the end of input.
pub(super) fn read_request(input: &mut impl Read) -> io::Result<Option<(RequestHead, Vec<u8>)>> {
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
    let head: RequestHead = serde_json::from_slice(&json)?;
    let mut body = Vec::new();
    input.take(head.body_bytes).read_to_end(&mut body)?;
    if body.len() as u64 != head.body_bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((head, body)))
}

/// The bytes of a reply.
pub(super) fn encode_reply(reply: &Reply) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 8];
    serde_json::to_writer(&mut bytes, reply)?;
    let length = (bytes.len() - 8) as u64;
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    Ok(bytes)
}

/// The largest reply that a sound extractor sends under `limits`.
pub(super) fn max_reply_bytes(limits: &Limits) -> u64 {
    limits
        .max_unpacked_bytes
        .saturating_mul(MAX_REPLY_BYTES_PER_TEXT_BYTE)
        .max(1 << 20)
}
