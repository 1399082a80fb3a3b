//! Our own access tokens: short-lived JWTs (HS256) that name a session. The session decides what they open.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::id::{MemberId, SessionId, TenantId};
use crate::secrets::Keyring;

/// The `iss` of our own tokens.
pub const OWN_ISSUER: &str = "frontdesk";

/// The `aud` of our own tokens.
const AUDIENCE: &str = "frontdesk-api";

/// What a token of this module is for. A token of another purpose opens nothing here.
const PURPOSE: &str = "access";

/// What an access token says.
#[derive(Debug, Serialize, Deserialize)]
pub struct Claims {
    iss: String,
    aud: String,
    purpose: String,
    pub exp: i64,
    pub iat: i64,
    pub sub: MemberId,
    pub sid: SessionId,
    pub tenant_id: TenantId,
}

/// Makes and reads access tokens.
pub struct TokenKeys {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl TokenKeys {
    /// Keys derived from the installation's own.
    pub fn new(keyring: &Keyring) -> Self {
        let secret = keyring.derive("access-token");
        Self {
            encoding: EncodingKey::from_secret(&secret),
            decoding: DecodingKey::from_secret(&secret),
        }
    }

    /// A token for `session` that ends at `expires` (seconds since 1970).
    pub fn issue(
        &self,
        tenant_id: TenantId,
        member_id: MemberId,
        session_id: SessionId,
        issued: i64,
        expires: i64,
    ) -> Result<String> {
        let claims = Claims {
            iss: OWN_ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            purpose: PURPOSE.to_owned(),
            exp: expires,
            iat: issued,
            sub: member_id,
            sid: session_id,
            tenant_id,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding).map_err(Error::internal)
    }

    /// What a token says, when it is ours, whole, and not expired at `now` (seconds since 1970).
    pub fn read(&self, token: &str, now: i64) -> Option<Claims> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[OWN_ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        // Judged against our own clock, below.
        validation.validate_exp = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation)
            .ok()?
            .claims;
        (claims.purpose == PURPOSE && claims.exp > now).then_some(claims)
    }
}

/// The `iss` that a JWT claims, unproven: tells only which key has to prove it.
pub fn issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    jsonwebtoken::decode_header(token).ok()?;
    jsonwebtoken::dangerous::insecure_decode_claims::<Issuer>(token)
        .ok()
        .map(|claims| claims.iss)
}
