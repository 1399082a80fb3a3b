//! Keys of Google service accounts: a program's own account, which proves itself by signing.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

/// An assertion is traded at once; Google takes none that holds for more than an hour.
const ASSERTION_S: i64 = 600;

/// What may be done with the access: reading, nothing else.
pub(super) const SCOPE: &str = "https://www.googleapis.com/auth/drive.readonly";

/// A key as the Google Cloud console gives it, in JSON.
///
/// The addresses in that file (`token_uri` and others) are not looked at: whoever gives us a key must not choose where
/// its signatures go.
pub struct ServiceAccountKey {
    email: String,
    key_id: Option<String>,
    key: KeyPair,
    /// Whom the account acts for, where an administrator of Google Workspace allows it.
    subject: Option<String>,
}

/// Why a text is no key of a service account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error(
        "this is not the JSON of a service account: it has no type \"service_account\" with client_email and private_key"
    )]
    NotAServiceAccount,
    #[error("private_key is not an RSA key of at least 2048 bits in PEM")]
    NotAnRsaKey,
}

#[derive(Deserialize)]
struct KeyFile {
    #[serde(rename = "type")]
    kind: String,
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
    subject: Option<String>,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    typ: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    scope: &'static str,
    aud: &'a str,
    iat: i64,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
}

impl ServiceAccountKey {
    /// Reads the JSON of a key file.
    pub fn parse(json: &serde_json::Value) -> Result<Self, KeyError> {
        let file = KeyFile::deserialize(json).map_err(|_| KeyError::NotAServiceAccount)?;
        if file.kind != "service_account" || file.client_email.is_empty() {
            return Err(KeyError::NotAServiceAccount);
        }
        Ok(Self {
            key: read_pem(&file.private_key).ok_or(KeyError::NotAnRsaKey)?,
            email: file.client_email,
            key_id: file.private_key_id,
            subject: file.subject,
        })
    }

    /// The account's address: folders are shared with it.
    pub fn email(&self) -> &str {
        &self.email
    }

    /// A signed statement that the bearer is this account, for the token endpoint at `audience`; `now` counts seconds
    /// since 1970.
    pub(super) fn assertion(&self, audience: &str, now: i64) -> String {
        let header = Header {
            alg: "RS256",
            typ: "JWT",
            kid: self.key_id.as_deref(),
        };
        let claims = Claims {
            iss: &self.email,
            scope: SCOPE,
            aud: audience,
            iat: now,
            exp: now + ASSERTION_S,
            sub: self.subject.as_deref(),
        };
        let encode = |part: serde_json::Result<Vec<u8>>| {
            URL_SAFE_NO_PAD.encode(part.expect("texts and numbers can be written as JSON"))
        };
        let message = format!(
            "{}.{}",
            encode(serde_json::to_vec(&header)),
            encode(serde_json::to_vec(&claims))
        );
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                message.as_bytes(),
                &mut signature,
            )
            .expect("a key that was read can sign");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn read_pem(pem: &str) -> Option<KeyPair> {
    let (label, rest) = pem.trim().strip_prefix("-----BEGIN ")?.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    let body: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(body).ok()?;
    match label {
        "PRIVATE KEY" => KeyPair::from_pkcs8(&der).ok(),
        "RSA PRIVATE KEY" => KeyPair::from_der(&der).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_json_is_no_key() {
        let refused = |json: serde_json::Value| ServiceAccountKey::parse(&json).err();

        assert_eq!(refused(serde_json::json!({})), Some(KeyError::NotAServiceAccount));
        let of_type =
            |kind: &str| serde_json::json!({ "type": kind, "client_email": "a@b", "private_key": "x" });
        assert_eq!(
            refused(of_type("authorized_user")),
            Some(KeyError::NotAServiceAccount)
        );
        assert_eq!(refused(of_type("service_account")), Some(KeyError::NotAnRsaKey));
    }
}
