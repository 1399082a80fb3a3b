//! Another issuer of tokens: its keys, tokens signed with them (also in wrong ways), and its published key set.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256};
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The `iss` of its tokens.
pub const ISSUER: &str = "https://project.supabase.example/auth/v1";

/// The `aud` of its tokens.
pub const AUDIENCE: &str = "authenticated";

/// Its secret, where it signs with one.
pub const SECRET: &str = "super-secret-jwt-token-with-at-least-32-characters";

/// Signs tokens.
#[derive(Clone)]
pub struct Signer {
    algorithm: String,
    key_id: Option<String>,
    key: Key,
}

#[derive(Clone)]
enum Key {
    None,
    Secret(Vec<u8>),
    Rsa(Arc<rsa::KeyPair>),
    Ec(Arc<EcdsaKeyPair>),
}

impl Signer {
    /// With a shared secret.
    pub fn hs256(secret: &str) -> Self {
        Self::hs256_bytes(secret.as_bytes(), None)
    }

    pub fn hs256_bytes(secret: &[u8], key_id: Option<&str>) -> Self {
        Self {
            algorithm: "HS256".to_owned(),
            key_id: key_id.map(str::to_owned),
            key: Key::Secret(secret.to_vec()),
        }
    }

    /// Names an algorithm and signs nothing.
    pub fn none(algorithm: &str) -> Self {
        Self {
            algorithm: algorithm.to_owned(),
            key_id: None,
            key: Key::None,
        }
    }

    /// With a fresh key pair for `RS256` or `ES256`.
    pub fn generate(algorithm: &str, key_id: &str) -> Self {
        let key = match algorithm {
            "RS256" => Key::Rsa(Arc::new(rsa::KeyPair::generate(KeySize::Rsa2048).expect("a key"))),
            "ES256" => Key::Ec(Arc::new(
                EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"),
            )),
            other => panic!("no keys for {other}"),
        };
        Self {
            algorithm: algorithm.to_owned(),
            key_id: Some(key_id.to_owned()),
            key,
        }
    }

    /// The same key, unnamed.
    pub fn without_key_id(&self) -> Self {
        Self {
            key_id: None,
            ..self.clone()
        }
    }

    /// The public key in the forms in which it can be found: a naive verifier may take one for a secret.
    pub fn published_forms(&self) -> Vec<Vec<u8>> {
        let Key::Rsa(pair) = &self.key else {
            panic!("an RSA key has such forms")
        };
        let der = pair.public_key().as_ref().to_vec();
        let pem = format!(
            "-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----\n",
            STANDARD.encode(&der)
        );
        let jwk = self.jwk();
        vec![
            der,
            pem.into_bytes(),
            jwk["n"].as_str().expect("a modulus").as_bytes().to_vec(),
            jwk.to_string().into_bytes(),
            Vec::new(),
        ]
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.key {
            Key::None => Vec::new(),
            Key::Secret(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message)
                .as_ref()
                .to_vec(),
            Key::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
                    .expect("signed");
                signature
            }
            Key::Ec(pair) => pair
                .sign(&SystemRandom::new(), message)
                .expect("signed")
                .as_ref()
                .to_vec(),
        }
    }

    fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match &self.key {
            Key::Rsa(pair) => {
                // RFC 8017: a sequence of modulus (257 bytes, the first zero) and exponent (3 bytes).
                let der = pair.public_key().as_ref();
                let (modulus, exponent) = (&der[9..265], &der[267..270]);
                json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.key_id, "n": encode(modulus), "e": encode(exponent) })
            }
            Key::Ec(pair) => {
                // An uncompressed point: 4, x, y.
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.key_id, "x": encode(&point[1..33]), "y": encode(&point[33..65]) })
            }
            Key::None | Key::Secret(_) => panic!("only key pairs are published"),
        }
    }
}

/// A token with these claims.
pub fn encode(signer: &Signer, claims: &Value) -> String {
    encode_with(signer, &json!({}), claims)
}

/// The same, with more in its header.
pub fn encode_with(signer: &Signer, more: &Value, claims: &Value) -> String {
    let mut header = json!({ "alg": signer.algorithm, "typ": "JWT" });
    if let Some(key_id) = &signer.key_id {
        header["kid"] = json!(key_id);
    }
    for (name, value) in more.as_object().expect("an object") {
        header[name] = value.clone();
    }
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let signature = URL_SAFE_NO_PAD.encode(signer.sign(message.as_bytes()));
    format!("{message}.{signature}")
}

/// The server that publishes the key set. It stops when this is dropped.
pub struct Issuer {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Default)]
struct Shared {
    /// None: it answers with an error.
    answer: Mutex<Option<String>>,
    fetches: AtomicUsize,
    /// Whoever holds it holds up the answers.
    answering: tokio::sync::Mutex<()>,
}

impl Issuer {
    /// Publishes the keys of these signers.
    pub async fn start(signers: &[&Signer]) -> Self {
        let shared = Arc::new(Shared::default());
        let router = axum::Router::new()
            .route("/jwks.json", axum::routing::get(serve))
            .with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        tokio::spawn(async move {
            axum::serve(listener, router)
                .with_graceful_shutdown(stopped)
                .await
        });
        let issuer = Self {
            address,
            shared,
            _stop: stop.drop_guard(),
        };
        issuer.publish(signers);
        issuer
    }

    /// For `auth.jwt.jwks_url`.
    pub fn url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }

    /// Publishes these keys instead of the present ones.
    pub fn publish(&self, signers: &[&Signer]) {
        let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
        self.answer(json!({ "keys": keys }).to_string());
    }

    /// Answers this, whatever it is.
    pub fn answer(&self, text: String) {
        *self.shared.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// Answers with an error from now on.
    pub fn break_down(&self) {
        *self.shared.answer.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Answers nobody for as long as the guard lives.
    pub async fn hold_up(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.shared.answering.lock().await
    }

    /// How often the key set was asked for.
    pub fn fetches(&self) -> usize {
        self.shared.fetches.load(Ordering::Relaxed)
    }
}

async fn serve(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    shared.fetches.fetch_add(1, Ordering::Relaxed);
    let _answering = shared.answering.lock().await;
    match shared
        .answer
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
    {
        Some(text) => (StatusCode::OK, text),
        None => (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
    }
}
