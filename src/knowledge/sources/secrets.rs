//! What is secret of a source: sealed under this installation's key and bound to its row, opened for its own reading
//! only, and in no answer, log, audit line or export.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::id::{SourceId, TenantId};
use crate::secrets::Keyring;

/// What the key that seals these is derived for.
const PURPOSE: &str = "source-secrets";

/// The secrets of one source.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Secrets {
    /// Values of the headers that go with each request to the source's own origins, by name in lower case.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Of [`super::settings::Fetching::basic_auth_user`].
    #[serde(default)]
    pub password: Option<String>,
    /// What Google gave the owner, as JSON.
    #[serde(default)]
    pub drive_credentials: Option<Value>,
}

impl Secrets {
    /// Whether there is nothing to seal.
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.password.is_none() && self.drive_credentials.is_none()
    }

    /// The text to store, which opens only for this source of this tenant; none where there is nothing to keep.
    pub fn seal(&self, keyring: &Keyring, tenant_id: TenantId, id: SourceId) -> Result<Option<String>> {
        if self.is_empty() {
            return Ok(None);
        }
        let plain = serde_json::to_vec(self)?;
        Ok(Some(keyring.seal(PURPOSE, &place(tenant_id, id), &plain)))
    }

    /// What was sealed for this source of this tenant.
    pub fn open(keyring: &Keyring, tenant_id: TenantId, id: SourceId, sealed: Option<&str>) -> Result<Self> {
        let Some(sealed) = sealed else {
            return Ok(Self::default());
        };
        // Restored without its key, the installation has lost the secret: the owner has to give it again.
        let plain = keyring
            .open_sealed(PURPOSE, &place(tenant_id, id), sealed)
            .ok_or_else(|| {
                Error::conflict(
                    "secrets_unreadable",
                    "this source's headers, password or credentials cannot be opened with this installation's key: give them again",
                )
            })?;
        Ok(serde_json::from_slice(&plain)?)
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.is_empty() { "(none)" } else { "(hidden)" })
    }
}

/// Where the sealed text belongs. Moved to another row it does not open.
fn place(tenant_id: TenantId, id: SourceId) -> [u8; 32] {
    let mut place = [0; 32];
    place[..16].copy_from_slice(tenant_id.0.as_bytes());
    place[16..].copy_from_slice(id.0.as_bytes());
    place
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn secrets_open_in_their_own_row_only() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let keyring = Keyring::open(&Secret::default(), folder.path()).expect("a key");
        let (tenant, source) = (TenantId::new(), SourceId::new());
        let secrets = Secrets {
            password: Some("open sesame".to_owned()),
            ..Secrets::default()
        };

        let sealed = secrets.seal(&keyring, tenant, source).expect("sealed");

        let open = |tenant, source| Secrets::open(&keyring, tenant, source, sealed.as_deref());
        assert_eq!(open(tenant, source).expect("its own row"), secrets);
        assert!(open(tenant, SourceId::new()).is_err());
        assert!(open(TenantId::new(), source).is_err());
        assert!(!sealed.expect("a text").contains("sesame"));
    }

    #[test]
    fn without_secrets_nothing_is_stored() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let keyring = Keyring::open(&Secret::default(), folder.path()).expect("a key");
        let (tenant, source) = (TenantId::new(), SourceId::new());

        assert_eq!(
            Secrets::default().seal(&keyring, tenant, source).expect("sealed"),
            None
        );
        assert!(
            Secrets::open(&keyring, tenant, source, None)
                .expect("opened")
                .is_empty()
        );
    }

    #[test]
    fn a_secret_is_in_no_debug_text() {
        let secrets = Secrets {
            headers: BTreeMap::from([("x-key".to_owned(), "open sesame".to_owned())]),
            ..Secrets::default()
        };

        assert_eq!(format!("{secrets:?}"), "(hidden)");
    }
}
