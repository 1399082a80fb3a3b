//! What opens a Drive: the tenant's consent or a source's own credentials, and the access tokens they are traded for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ingest::loader::drive::{
    AccessTokens, Drive, DriveOptions, Grant, KeyError, Now, ServiceAccountKey, TokenEndpoint,
};
use serde_json::Value;
use url::Url;

use super::{Connection, ConnectionState, store};
use crate::app::App;
use crate::config;
use crate::error::{Error, Result};
use crate::id::TenantId;
use crate::secrets;

/// What the key is derived for that seals consents.
const PURPOSE: &str = "google-connection";

/// Connections whose tokens are kept. Past it all are forgotten, and traded for again.
const MOST_CONNECTIONS: usize = 1_000;

/// The way to Google: the configured addresses, and the access tokens in use.
pub struct Google {
    client: reqwest::Client,
    drive_base_url: Url,
    endpoint: Arc<TokenEndpoint>,
    /// By tenant and hash of what they are traded for, so that new credentials have new tokens.
    tokens: Mutex<HashMap<(TenantId, String), Arc<AccessTokens>>>,
}

impl Google {
    /// `client` reaches addresses that the operator configured; `now` counts seconds since 1970.
    pub fn new(config: &config::Google, client: reqwest::Client, now: Now) -> Result<Self, url::ParseError> {
        let endpoint = TokenEndpoint::new(
            client.clone(),
            config.token_url.parse()?,
            config.client_id.clone(),
            config.client_secret.expose().to_owned(),
            now,
        );
        Ok(Self {
            client,
            drive_base_url: config.drive_base_url.parse()?,
            endpoint: Arc::new(endpoint),
            tokens: Mutex::default(),
        })
    }

    /// The Drive that a source reads: with the credentials of its own, or as the tenant's connected account. Refused
    /// with a conflict where there is nothing that could open one.
    pub async fn drive(&self, app: &App, tenant_id: TenantId, own: Option<&Value>) -> Result<Drive> {
        let tokens = match own {
            Some(credentials) => {
                let name = secrets::token_hash(&credentials.to_string());
                self.tokens(tenant_id, name, || read_credentials(credentials))
                    .map_err(|message| Error::conflict("invalid_credentials", message))?
            }
            None => {
                let connection = store::find(&mut app.db.read(tenant_id).await?, tenant_id).await?;
                let connection = connection.ok_or_else(|| {
                    Error::conflict(
                        "not_connected",
                        "No Google account is connected. Connect one at /api/integrations/google/connect, or give the source credentials of its own.",
                    )
                })?;
                let refresh_token = open_sealed(app, tenant_id, &connection).ok_or_else(|| {
                    Error::conflict(
                        "secrets_unreadable",
                        "The connection cannot be opened with this installation's key. Connect the Google account again.",
                    )
                })?;
                let name = secrets::token_hash(&refresh_token);
                self.tokens(tenant_id, name, || {
                    Ok::<_, String>(Grant::RefreshToken(refresh_token))
                })
                .map_err(|message| Error::conflict("invalid_credentials", message))?
            }
        };
        Ok(self.drive_with(tokens))
    }

    pub(super) fn drive_with(&self, tokens: Arc<AccessTokens>) -> Drive {
        let (client, base_url) = (self.client.clone(), self.drive_base_url.clone());
        Drive::new(client, base_url, tokens, DriveOptions::default())
    }

    pub(super) fn endpoint(&self) -> &Arc<TokenEndpoint> {
        &self.endpoint
    }

    /// Whether Google took a consent back.
    pub(super) async fn give_back(&self, refresh_token: &str) -> bool {
        match self.endpoint.revoke(refresh_token).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "a consent could not be given back to Google; its owner can end it there");
                false
            }
        }
    }

    fn tokens<E>(
        &self,
        tenant_id: TenantId,
        name: String,
        grant: impl FnOnce() -> Result<Grant, E>,
    ) -> Result<Arc<AccessTokens>, E> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (tenant_id, name);
        if let Some(known) = tokens.get(&key) {
            return Ok(known.clone());
        }
        if tokens.len() >= MOST_CONNECTIONS {
            tokens.clear();
        }
        let new = Arc::new(AccessTokens::new(self.endpoint.clone(), grant()?));
        tokens.insert(key, new.clone());
        Ok(new)
    }
}

/// Refuses what cannot open a Drive, with a sentence for the owner.
pub fn check_credentials(credentials: &Value) -> Result<(), KeyError> {
    ServiceAccountKey::parse(credentials).map(drop)
}

fn read_credentials(credentials: &Value) -> Result<Grant, String> {
    let key = ServiceAccountKey::parse(credentials)
        .map_err(|error| format!("The credentials are no use: {error}."))?;
    Ok(Grant::ServiceAccount(Box::new(key)))
}

/// Notes that Google no longer accepts the tenant's consent.
pub async fn note_withdrawn(app: &App, tenant_id: TenantId) -> Result<()> {
    let mut write = app.db.write(tenant_id).await?;
    store::set_state(&mut write, tenant_id, ConnectionState::Withdrawn, app.clock.now()).await?;
    write.commit().await
}

/// The text to store of a consent, which opens for this tenant only.
pub(super) fn seal(app: &App, tenant_id: TenantId, refresh_token: &str) -> String {
    app.keyring
        .seal(PURPOSE, tenant_id.0.as_bytes(), refresh_token.as_bytes())
}

pub(super) fn open_sealed(app: &App, tenant_id: TenantId, connection: &Connection) -> Option<String> {
    let plain = app
        .keyring
        .open_sealed(PURPOSE, tenant_id.0.as_bytes(), &connection.sealed)?;
    String::from_utf8(plain).ok()
}
