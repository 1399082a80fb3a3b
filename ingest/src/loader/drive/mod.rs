//! Reads files of Google Drive: lists folders, follows changes, downloads and exports.
//!
//! [`Drive`] speaks with the service, [`Tree`] knows what is in the chosen scope, [`AccessTokens`] proves access. None of
//! them keeps anything: the caller stores the tree and the token that changes go on from. Addresses are the operator's,
//! and only they are asked: nothing that a file or a tenant's credentials name is fetched.

mod client;
mod download;
mod error;
mod file;
mod retry;
mod service_account;
mod token;
mod tree;
mod wire;

pub use client::{Change, ChangePage, Drive, DriveOptions};
pub use download::Download;
pub use error::DriveError;
pub use file::{Export, File, FileKind};
pub use service_account::{KeyError, ServiceAccountKey};
pub use token::{AccessTokens, Grant, Granted, Now, TokenEndpoint, TokenError};
pub use tree::{Answer, Node, NodeKind, Question, Scope, Tree, TreeChanges};
