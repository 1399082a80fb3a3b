//! Reads an answer's body within a limit of decoded bytes, whatever its headers say.
//!
//! gzip is decoded here rather than in the HTTP client, so that the limit holds while bytes are being unpacked: a small
//! answer that unpacks to gigabytes stops at the limit.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use reqwest::Response;

use crate::error::OutboundError;

/// How much is set aside at first for a body that announces its length.
const MAX_RESERVED_BYTES: usize = 64 * 1024;

/// The decoded body of `response`; an error as soon as it is longer than `limit_bytes`.
pub(crate) async fn read(
    mut response: Response,
    limit_bytes: usize,
    to_error: impl Fn(reqwest::Error) -> OutboundError,
) -> Result<Bytes, OutboundError> {
    let too_large = || OutboundError::TooLarge { limit_bytes };
    let announced = response
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let mut body = match encoding(&response)? {
        // The announced length counts encoded bytes, so it can only tell that a plain body is too long.
        Encoding::Identity if announced.is_some_and(|length| length > limit_bytes as u64) => {
            return Err(too_large());
        }
        Encoding::Identity => Decoder::Identity(Capped::new(announced, limit_bytes)),
        Encoding::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(Capped::new(announced, limit_bytes)))),
    };
    let mut is_empty = true;
    while let Some(piece) = response.chunk().await.map_err(&to_error)? {
        is_empty &= piece.is_empty();
        body.push(&piece).map_err(|error| {
            if body.is_full() {
                too_large()
            } else {
                unreadable(error)
            }
        })?;
    }
    if is_empty {
        // An answer without a body (304, 204) may still name an encoding.
        return Ok(Bytes::new());
    }
    let capped = body.finish()?;
    if capped.overflowed {
        Err(too_large())
    } else {
        Ok(capped.bytes.into())
    }
}

enum Encoding {
    Identity,
    Gzip,
}

fn encoding(response: &Response) -> Result<Encoding, OutboundError> {
    let mut values = response.headers().get_all(CONTENT_ENCODING).iter();
    let Some(first) = values.next() else {
        return Ok(Encoding::Identity);
    };
    let name = String::from_utf8_lossy(first.as_bytes())
        .trim()
        .to_ascii_lowercase();
    match (name.as_str(), values.next()) {
        ("" | "identity", None) => Ok(Encoding::Identity),
        ("gzip" | "x-gzip", None) => Ok(Encoding::Gzip),
        // We offered gzip alone; other encodings and encodings on top of each other are the server's mistake.
        _ => Err(unreadable(io::Error::other(format!("content encoding {name:?}")))),
    }
}

enum Decoder {
    Identity(Capped),
    Gzip(Box<MultiGzDecoder<Capped>>),
}

impl Decoder {
    fn push(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Identity(capped) => capped.write_all(piece),
            Self::Gzip(decoder) => decoder.write_all(piece),
        }
    }

    fn is_full(&self) -> bool {
        match self {
            Self::Identity(capped) => capped.overflowed,
            Self::Gzip(decoder) => decoder.get_ref().overflowed,
        }
    }

    /// The decoded bytes. A packed body that ends before its own end is unreadable, unless it hit the limit first.
    fn finish(self) -> Result<Capped, OutboundError> {
        match self {
            Self::Identity(capped) => Ok(capped),
            Self::Gzip(mut decoder) => match decoder.try_finish() {
                Err(error) if !decoder.get_ref().overflowed => Err(unreadable(error)),
                _ => Ok(std::mem::replace(decoder.get_mut(), Capped::new(None, 0))),
            },
        }
    }
}

/// Takes bytes up to a limit and fails the write that goes past it.
struct Capped {
    bytes: Vec<u8>,
    limit_bytes: usize,
    overflowed: bool,
}

impl Capped {
    fn new(announced: Option<u64>, limit_bytes: usize) -> Self {
        let reserved = announced.map_or(0, |length| length.min(MAX_RESERVED_BYTES as u64) as usize);
        Self {
            bytes: Vec::with_capacity(reserved.min(limit_bytes)),
            limit_bytes,
            overflowed: false,
        }
    }
}

impl Write for Capped {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if piece.len() > self.limit_bytes - self.bytes.len() {
            self.overflowed = true;
            return Err(io::Error::other("limit reached"));
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn unreadable(error: io::Error) -> OutboundError {
    OutboundError::Unreadable(error.into())
}
