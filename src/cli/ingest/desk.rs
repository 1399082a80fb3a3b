//! The server that a command talks to: the running one, or one that lives in this process as long as the command.

use std::time::Duration;

use chrono::TimeDelta;
use http::HeaderValue;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio::task::JoinSet;
use url::Url;

use crate::app::{App, StartError, open_database};
use crate::chatbots;
use crate::cli::args::IngestArgs;
use crate::cli::{Failure, client, failed};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::db::Db;
use crate::http::{router, server};
use crate::id::{ApiKeyId, ChatbotId};
use crate::jobs;
use crate::tenancy::keys::NewApiKey;
use crate::tenancy::operator;
use crate::tenancy::role::KeyScope;

/// The key is revoked at the end; this is for when this process dies before.
const KEY_LIFE: TimeDelta = TimeDelta::hours(24);

/// What runs in this process may finish this long.
const GRACE: Duration = Duration::from_secs(10);

/// Where requests go, and with which key.
pub(super) struct Desk {
    client: reqwest::Client,
    server: Url,
    key: String,
    /// Made for this command, to be revoked after it.
    own_key: Option<ApiKeyId>,
    db: Option<Db>,
    here: Option<Here>,
}

/// A server in this process.
struct Here {
    app: App,
    parts: JoinSet<()>,
}

impl Desk {
    /// The server that is named or configured, or else one in this process.
    pub(super) async fn open(config: &Config, args: &IngestArgs) -> Result<Self, Failure> {
        if let Some(key) = &args.key
            && HeaderValue::from_str(key).is_err()
        {
            return Err(Failure::Usage(
                "--key: this is no key, since it holds characters that none has".to_owned(),
            ));
        }
        let client = client::http_client()?;
        let named = args.server.server.is_some();
        let found = match client::server_url(config, args.server.clone()) {
            Ok(url) => match client::check(&client, &url).await {
                Ok(()) => Ok(url),
                Err(reason) => Err(format!("no server answers at {url}: {reason}")),
            },
            Err(failure) if named => return Err(failure),
            Err(failure) => Err(failure.to_string()),
        };
        let (server, here) = match found {
            Ok(url) => (url, None),
            Err(unreachable) if named => return Err(Failure::Failed(unreachable)),
            Err(unreachable) => {
                let (url, here) = start_here(config, &unreachable).await?;
                (url, Some(here))
            }
        };
        let mut desk = Self {
            client,
            server,
            key: args.key.clone().unwrap_or_default(),
            own_key: None,
            db: None,
            here,
        };
        if desk.key.is_empty() {
            let db = match &desk.here {
                Some(here) => here.app.db.clone(),
                None => open_database(config).await?,
            };
            let made = make_key(&db, args.chatbot).await;
            desk.db = Some(db);
            match made {
                Ok((id, secret)) => {
                    desk.own_key = Some(id);
                    desk.key = secret;
                }
                Err(failure) => {
                    desk.close().await;
                    return Err(failure);
                }
            }
        }
        Ok(desk)
    }

    /// Discards the key that was made, and stops what runs here.
    pub(super) async fn close(mut self) {
        if let (Some(db), Some(id)) = (&self.db, self.own_key)
            && let Err(error) = operator::discard_key(db, &SystemClock, id).await
        {
            tracing::warn!(error = ?error, key.id = %id, "cannot discard the key of this command; it ends by itself within a day");
        }
        match self.here.take() {
            Some(mut here) => {
                drop(self.db.take());
                here.app.stopping.cancel();
                while here.parts.join_next().await.is_some() {}
                here.app.close().await;
            }
            None => {
                if let Some(db) = self.db.take() {
                    db.close().await;
                }
            }
        }
    }

    /// A request to one of the server's routes.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut url = client::endpoint(&self.server, path);
        url.set_query(Some(query).filter(|query| !query.is_empty()));
        self.client.request(method, url).bearer_auth(&self.key)
    }

    /// The JSON that a route answers with.
    pub(super) async fn json(&self, request: RequestBuilder) -> Result<Value, Refusal> {
        let response = self.send(request).await?;
        response.json().await.map_err(|error| {
            Refusal::Broken(failed("the server's answer cannot be read", &error.without_url()))
        })
    }

    /// A route's answer, once its status says that all is well.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, Refusal> {
        let response = request
            .send()
            .await
            .map_err(|error| Refusal::Broken(failed("the server does not answer", &error.without_url())))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let problem: Value = response.json().await.unwrap_or_default();
        let detail = problem["detail"].as_str().map_or_else(
            || format!("what answers is no Frontdesk: it says {status}. Name the server with --server"),
            str::to_owned,
        );
        Err(Refusal::Refused { status, detail })
    }
}

/// Why a request brought nothing.
pub(super) enum Refusal {
    /// The server said no.
    Refused { status: StatusCode, detail: String },
    /// There was no answer, or none that can be read.
    Broken(Failure),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Broken(failure) => failure,
            Refusal::Refused { status, detail } => match status {
                StatusCode::NOT_FOUND => Self::NotFound(detail),
                StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Self::Usage(detail),
                _ => Self::Failed(detail),
            },
        }
    }
}

async fn start_here(config: &Config, unreachable: &str) -> Result<(Url, Here), Failure> {
    let app = match App::build_to_look(config.clone()).await {
        Ok(app) => app,
        Err(StartError::InUse { .. }) => {
            return Err(Failure::InUse(format!(
                "a server runs on this data folder, but it was not found ({unreachable}): tell where it is with --server http://…"
            )));
        }
        Err(error) => return Err(error.into()),
    };
    // A tenant's first documents are embedded with the model that is configured here.
    if let Err(error) = app.remember_space().await {
        app.close().await;
        return Err(error.into());
    }
    let listener = server::bind(([127, 0, 0, 1], 0).into())
        .map_err(|error| failed("cannot listen on a port of this machine", &error))?;
    let address = listener
        .local_addr()
        .map_err(|error| failed("cannot listen on a port of this machine", &error))?;
    let mut parts = JoinSet::new();
    parts.spawn(server::serve(
        router::router(app.clone()),
        listener,
        (&app.config.server).into(),
        app.stopping.clone(),
        app.ending.clone(),
        GRACE,
    ));
    parts.spawn(jobs::runner::run(app.clone(), app.stopping.clone(), GRACE));
    Ok((client::reachable(address), Here { app, parts }))
}

async fn make_key(db: &Db, chatbot_id: ChatbotId) -> Result<(ApiKeyId, String), Failure> {
    let tenant_id = chatbots::operator::find_tenant(db, chatbot_id)
        .await?
        .ok_or_else(|| Failure::NotFound("there is no such chatbot".to_owned()))?;
    let new = NewApiKey {
        name: "frontdesk ingest".to_owned(),
        scopes: vec![KeyScope::Ingest],
        chatbot_id: Some(chatbot_id),
        expires_at: Some(SystemClock.now() + KEY_LIFE),
    };
    let (key, secret) = operator::create_key(db, &SystemClock, tenant_id, new).await?;
    Ok((key.id, secret))
}
