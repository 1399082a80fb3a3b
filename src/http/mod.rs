//! The HTTP side: who asks, strict input, problems, limits, the envelope around every request, and the router.

pub mod access;
pub mod cors;
mod envelope;
pub mod health;
pub mod idempotency;
pub mod input;
mod objects;
pub mod pace;
#[cfg(test)]
mod permissions;
pub mod problem;
pub mod rate;
pub mod request_id;
pub mod router;
pub mod server;
pub mod sse;
