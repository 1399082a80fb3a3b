//! The one HTTP client for URLs that someone else named: a tenant, a visitor, a page, a model.
//!
//! It reaches public addresses only. A URL is judged before each request and at each redirect ([`Guard::judge_url`]); the
//! addresses its name resolves to are judged at the moment of connecting, in the same resolution whose result is dialled,
//! so that a name cannot change its meaning in between. Time, size, redirects and content types are limited. An operator
//! may let through exact `host:port` pairs ([`HostPort`]); nothing in the environment does.

mod address;
mod body;
mod client;
mod error;
mod guard;
mod proxy;
mod resolve;
mod tls;

pub use address::AddressClass;
pub use client::{Accept, Fetched, GuardedClient, Limits, MayFollow, Request, is_transport_header};
pub use error::OutboundError;
pub use guard::{Guard, HostPort, HostPortError, Refusal};
pub use proxy::GuardedProxy;
pub use resolve::{Resolver, SystemResolver};
pub use tls::tls_config;

pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
