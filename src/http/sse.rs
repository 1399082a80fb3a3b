//! Server-sent events: how one is written, and the answer that streams them.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::Stream;
use http::header;
use serde::Serialize;

/// A comment, which clients skip: keeps proxies from closing a silent stream.
pub const HEARTBEAT: &[u8] = b": \n\n";

/// The answer that sends `frames` as they come.
pub fn respond(frames: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let frames = futures::StreamExt::map(frames, Ok::<Bytes, Infallible>);
    (headers, Body::from_stream(frames)).into_response()
}

/// Adds an event. JSON has no raw line breaks, so nothing in a text can end an event or begin another.
pub fn write_event(frame: &mut Vec<u8>, name: &str, data: &impl Serialize) {
    frame.extend_from_slice(b"event: ");
    frame.extend_from_slice(name.as_bytes());
    frame.extend_from_slice(b"\ndata: ");
    serde_json::to_writer(&mut *frame, data).expect("plain data can be written to memory");
    frame.extend_from_slice(b"\n\n");
}
