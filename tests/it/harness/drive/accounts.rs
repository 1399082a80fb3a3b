//! Who may in: a service account by its signature, a person by a consent that was given with PKCE, and the tokens that
//! both are traded for.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::encoding::Pkcs8V1Der;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use axum::Form;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{FakeDrive, Shared, lock};

/// The account's own address.
pub const EMAIL: &str = "desk@acme.example";

/// What our installation is known by.
pub const CLIENT_ID: &str = "1234.apps.example";
pub const CLIENT_SECRET: &str = "client-secret-of-the-operator";

const SERVICE_EMAIL: &str = "reader@project.iam.example";
const KEY_ID: &str = "key-1";
const SCOPE: &str = "https://www.googleapis.com/auth/drive.readonly";

/// Seconds that an access token holds for.
const LIFE_S: i64 = 3600;

/// What a person agreed to in the browser.
#[derive(Clone, Debug)]
pub struct Consent {
    pub redirect_uri: String,
    pub code_challenge: String,
    /// What was allowed; all that was asked for unless changed.
    pub scope: String,
}

pub(super) struct Accounts {
    token_url: String,
    key: KeyPair,
    /// Codes that were not traded yet.
    codes: HashMap<String, Consent>,
    refresh_tokens: Vec<String>,
    /// Access tokens and when they end.
    access_tokens: HashMap<String, i64>,
    /// Whether nothing is accepted any more.
    is_withdrawn: bool,
    made: usize,
}

impl Accounts {
    pub fn new(token_url: String) -> Self {
        Self {
            token_url,
            key: KeyPair::generate(KeySize::Rsa2048).expect("a key"),
            codes: HashMap::new(),
            refresh_tokens: Vec::new(),
            access_tokens: HashMap::new(),
            is_withdrawn: false,
            made: 0,
        }
    }

    pub fn accepts(&self, access_token: &str, now: i64) -> bool {
        !self.is_withdrawn
            && self
                .access_tokens
                .get(access_token)
                .is_some_and(|ends_at| *ends_at > now)
    }

    fn next(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{kind}-{}", self.made)
    }

    fn access_token(&mut self, now: i64) -> String {
        let token = self.next("access");
        self.access_tokens.insert(token.clone(), now + LIFE_S);
        token
    }

    /// The body of a good answer, or Google's word for what is wrong.
    fn trade(&mut self, form: &HashMap<String, String>, now: i64) -> Result<Value, &'static str> {
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        match field("grant_type") {
            "urn:ietf:params:oauth:grant-type:jwt-bearer" => {
                self.check_assertion(field("assertion"), now)?;
                let token = self.access_token(now);
                Ok(json!({ "access_token": token, "expires_in": LIFE_S, "token_type": "Bearer" }))
            }
            "refresh_token" => {
                check_client(&field)?;
                let is_known = self
                    .refresh_tokens
                    .iter()
                    .any(|token| token == field("refresh_token"));
                if !is_known || self.is_withdrawn {
                    return Err("invalid_grant");
                }
                let token = self.access_token(now);
                Ok(
                    json!({ "access_token": token, "expires_in": LIFE_S, "scope": SCOPE, "token_type": "Bearer" }),
                )
            }
            "authorization_code" => {
                check_client(&field)?;
                // A code is used up by the first who shows it, whether or not the rest is right.
                let consent = self.codes.remove(field("code")).ok_or("invalid_grant")?;
                let challenge = digest::digest(&digest::SHA256, field("code_verifier").as_bytes());
                if URL_SAFE_NO_PAD.encode(challenge) != consent.code_challenge {
                    return Err("invalid_grant");
                }
                if field("redirect_uri") != consent.redirect_uri {
                    return Err("redirect_uri_mismatch");
                }
                let (token, refresh_token) = (self.access_token(now), self.next("refresh"));
                self.refresh_tokens.push(refresh_token.clone());
                Ok(json!({
                    "access_token": token,
                    "expires_in": LIFE_S,
                    "refresh_token": refresh_token,
                    "scope": consent.scope,
                    "token_type": "Bearer",
                }))
            }
            _ => Err("unsupported_grant_type"),
        }
    }

    fn check_assertion(&self, assertion: &str, now: i64) -> Result<(), &'static str> {
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let read = |part: &str| serde_json::from_slice::<Value>(&decode(part)?).ok();
        let (message, signature) = assertion.rsplit_once('.').ok_or("invalid_grant")?;
        let (header, claims) = message.split_once('.').ok_or("invalid_grant")?;
        let (header, claims) = (
            read(header).ok_or("invalid_grant")?,
            read(claims).ok_or("invalid_grant")?,
        );
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.key.public_key().as_ref());
        let signature = decode(signature).ok_or("invalid_grant")?;
        key.verify(message.as_bytes(), &signature)
            .map_err(|_| "invalid_grant")?;
        let (issued, ends) = (
            claims["iat"].as_i64().unwrap_or(0),
            claims["exp"].as_i64().unwrap_or(0),
        );
        let holds = header["alg"] == "RS256"
            && header["kid"] == KEY_ID
            && claims["iss"] == SERVICE_EMAIL
            && claims["aud"] == self.token_url.as_str()
            && claims["scope"] == SCOPE
            && (now - 300..=now + 300).contains(&issued)
            && ends > now
            && ends - issued <= 3600
            && !self.is_withdrawn;
        if holds { Ok(()) } else { Err("invalid_grant") }
    }
}

fn check_client<'a>(field: &impl Fn(&str) -> &'a str) -> Result<(), &'static str> {
    if field("client_id") == CLIENT_ID && field("client_secret") == CLIENT_SECRET {
        Ok(())
    } else {
        Err("invalid_client")
    }
}

pub(super) async fn token(
    State(shared): State<Arc<Shared>>,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    let mut state = lock(&shared);
    state.requests.push("token");
    if let Some(fault) = state.script.next("token") {
        return fault.respond(Vec::new());
    }
    let now = state.now;
    match state.accounts.trade(&form, now) {
        Ok(body) => axum::Json(body).into_response(),
        Err("invalid_client") => refuse(StatusCode::UNAUTHORIZED, "invalid_client"),
        Err(error) => refuse(StatusCode::BAD_REQUEST, error),
    }
}

pub(super) async fn revoke(
    State(shared): State<Arc<Shared>>,
    Form(form): Form<HashMap<String, String>>,
) -> Response {
    let mut state = lock(&shared);
    state.requests.push("revoke");
    let token = form.get("token").cloned().unwrap_or_default();
    let known = state.accounts.refresh_tokens.len();
    state.accounts.refresh_tokens.retain(|own| *own != token);
    if state.accounts.refresh_tokens.len() == known {
        return refuse(StatusCode::BAD_REQUEST, "invalid_token");
    }
    state.accounts.access_tokens.clear();
    axum::Json(json!({})).into_response()
}

fn refuse(status: StatusCode, error: &str) -> Response {
    let body =
        json!({ "error": error, "error_description": "Something about secrets that nobody should repeat." });
    (status, axum::Json(body)).into_response()
}

impl FakeDrive {
    /// The key of the service account, as the console gives it. The addresses in it lead elsewhere: nobody should go.
    pub fn service_account(&self) -> Value {
        let state = self.state();
        let der: Pkcs8V1Der<'_> = state.accounts.key.as_der().expect("a private key");
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(der.as_ref())
        );
        json!({
            "type": "service_account",
            "project_id": "project",
            "private_key_id": KEY_ID,
            "private_key": pem,
            "client_email": SERVICE_EMAIL,
            "token_uri": "http://169.254.169.254/token",
        })
    }

    /// A person agrees to what this address asks for; gives the code that the browser would bring back.
    pub fn agree(&self, authorization_url: &url::Url) -> String {
        let query: HashMap<String, String> = authorization_url.query_pairs().into_owned().collect();
        assert_eq!(query.get("client_id").map(String::as_str), Some(CLIENT_ID));
        assert_eq!(query.get("response_type").map(String::as_str), Some("code"));
        assert_eq!(
            query.get("code_challenge_method").map(String::as_str),
            Some("S256")
        );
        assert_eq!(query.get("access_type").map(String::as_str), Some("offline"));
        self.agree_to(Consent {
            redirect_uri: query["redirect_uri"].clone(),
            code_challenge: query["code_challenge"].clone(),
            scope: query["scope"].clone(),
        })
    }

    /// Like [`FakeDrive::agree`], for a consent of other content.
    pub fn agree_to(&self, consent: Consent) -> String {
        let mut state = self.state();
        let code = state.accounts.next("4/code");
        state.accounts.codes.insert(code.clone(), consent);
        code
    }

    /// A refresh token that works.
    pub fn refresh_token(&self) -> String {
        let mut state = self.state();
        let token = state.accounts.next("refresh");
        state.accounts.refresh_tokens.push(token.clone());
        token
    }

    /// Refresh tokens that still open the account.
    pub fn open_consents(&self) -> usize {
        self.state().accounts.refresh_tokens.len()
    }

    /// The owner takes all access away, or gives it back.
    pub fn withdraw_access(&self, is_withdrawn: bool) {
        self.state().accounts.is_withdrawn = is_withdrawn;
    }

    /// All access tokens end at once; what they were traded for goes on.
    pub fn end_access_tokens(&self) {
        self.state().accounts.access_tokens.clear();
    }
}
