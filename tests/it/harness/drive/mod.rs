//! A Google Drive of a test's own, on loopback: files, folders, shortcuts and shared drives with their lists, changes,
//! exports and downloads, and the token endpoint that guards them. It answers as the service's discovery document and
//! guides say, and where they leave room in the way that is hardest to cope with: pages are small, a folder's change says
//! nothing of what is in it, and a field that was not asked for is not there.

#![allow(
    dead_code,
    unused_imports,
    reason = "two test programs share this file, and neither uses all of it"
)]

mod accounts;
mod mask;
mod office;
mod people;
mod serve;
mod store;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::routing::{get, post};

pub use accounts::{CLIENT_ID, CLIENT_SECRET, Consent, EMAIL};
pub use serve::Fault;
pub use store::Content;

use accounts::Accounts;
use serve::Script;
use store::Store;

/// The time at which every fake Drive begins, as the tests' clock does: 2026-11-20T10:00:00Z.
const BEGINNING: i64 = 1_795_168_800;

/// Files on a page, unless fewer are asked for.
const PAGE_SIZE: usize = 3;

/// A running Drive. It ends when the last clone is dropped.
#[derive(Clone)]
pub struct FakeDrive {
    address: std::net::SocketAddr,
    shared: Arc<Shared>,
    _server: Arc<Server>,
}

struct Shared {
    state: Mutex<State>,
}

struct State {
    now: i64,
    page_size: usize,
    store: Store,
    accounts: Accounts,
    script: Script,
    /// What was asked, in order: `list`, `get`, `media`, `export`, `changes`, `start_token`, `about`, `token`, `revoke`.
    requests: Vec<&'static str>,
}

struct Server(tokio::task::JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl FakeDrive {
    /// An empty Drive.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                now: BEGINNING,
                page_size: PAGE_SIZE,
                store: Store::default(),
                accounts: Accounts::new(format!("http://{address}/token")),
                script: Script::default(),
                requests: Vec::new(),
            }),
        });
        let router = Router::new()
            .route("/drive/v3/about", get(serve::about))
            .route("/drive/v3/files", get(serve::list))
            .route("/drive/v3/files/{id}", get(serve::file))
            .route("/drive/v3/files/{id}/export", get(serve::export))
            .route("/drive/v3/changes/startPageToken", get(serve::start_token))
            .route("/drive/v3/changes", get(serve::changes))
            .route("/token", post(accounts::token))
            .route("/revoke", post(accounts::revoke))
            .with_state(shared.clone());
        let server = tokio::spawn(async move {
            axum::serve(listener, router)
                .await
                .expect("a server runs until it is dropped");
        });
        Self {
            address,
            shared,
            _server: Arc::new(Server(server)),
        }
    }

    /// What `google.drive_base_url` is set to.
    pub fn base_url(&self) -> String {
        format!("http://{}/drive/v3", self.address)
    }

    /// What `google.token_url` is set to.
    pub fn token_url(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// What `google.auth_url` is set to. A person's browser goes there, so the tests read the address and nothing more.
    pub fn auth_url(&self) -> String {
        format!("http://{}/auth", self.address)
    }

    /// Moves its time on, and with it the end of tokens.
    pub fn advance(&self, seconds: i64) {
        self.state().now += seconds;
    }

    /// Its time, in seconds since 1970.
    pub fn now(&self) -> i64 {
        self.state().now
    }

    /// Files on a page from now on.
    pub fn set_page_size(&self, files: usize) {
        self.state().page_size = files;
    }

    /// How often it was asked for this since [`FakeDrive::forget_requests`].
    pub fn requests(&self, kind: &str) -> usize {
        self.state()
            .requests
            .iter()
            .filter(|request| **request == kind)
            .count()
    }

    /// Downloads and exports.
    pub fn transfers(&self) -> usize {
        self.requests("media") + self.requests("export")
    }

    pub fn forget_requests(&self) {
        self.state().requests.clear();
    }

    /// Answers the next `times` requests of this kind (`*`: of any) with `fault`.
    pub fn fail(&self, kind: &'static str, times: usize, fault: Fault) {
        self.state().script.add(kind, times, fault);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.shared)
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}
