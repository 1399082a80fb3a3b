//! Secrets: random tokens, their hashes, and keys derived from this installation's one key.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::config::Secret;

/// Random bytes in a token: 256 bits.
const TOKEN_BYTES: usize = 32;

/// What begins a sealed text, so that another way of sealing can follow this one.
const SEALED_PREFIX: &str = "v1.";

/// The file in the data folder that keeps a generated key.
const KEY_FILE: &str = "secrets.key";

/// A fresh secret: `prefix` and 256 random bits in URL-safe base64.
pub fn random_token(prefix: &str) -> String {
    format!(
        "{prefix}{}",
        URL_SAFE_NO_PAD.encode(rand::random::<[u8; TOKEN_BYTES]>())
    )
}

/// How a token is stored: SHA-256 in hexadecimal. Enough for 256 random bits; passwords need [`crate::tenancy`]'s argon2id.
pub fn token_hash(token: &str) -> String {
    hex(digest::digest(&digest::SHA256, token.as_bytes()).as_ref())
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// This installation's key, from which keys for single purposes are derived.
pub struct Keyring {
    master: [u8; 32],
}

impl Keyring {
    /// The configured key, or the one in the data folder, made on first use and readable by its owner only.
    pub fn open(configured: &Secret, data_dir: &Path) -> Result<Self, String> {
        if !configured.is_empty() {
            return Self::decode(configured.expose())
                .ok_or_else(|| "secrets.key is not 32 bytes in base64".to_owned());
        }
        let path = data_dir.join(KEY_FILE);
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::decode(text.trim()).ok_or_else(|| {
                format!(
                    "{} does not hold 32 bytes in base64; restore it from a back-up",
                    path.display()
                )
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let master = rand::random::<[u8; 32]>();
                let created = std::fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path);
                match created {
                    Ok(mut file) => {
                        file.write_all(STANDARD.encode(master).as_bytes())
                            .and_then(|()| file.sync_all())
                            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
                        Ok(Self { master })
                    }
                    // Another process of this installation was faster.
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                        Self::open(configured, data_dir)
                    }
                    Err(error) => Err(format!("cannot write {}: {error}", path.display())),
                }
            }
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        }
    }

    fn decode(text: &str) -> Option<Self> {
        Some(Self {
            master: STANDARD.decode(text).ok()?.try_into().ok()?,
        })
    }

    /// A key for one purpose; knowing it tells nothing about the others.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let tag = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, &self.master),
            purpose.as_bytes(),
        );
        tag.as_ref().try_into().expect("HMAC-SHA256 gives 32 bytes")
    }

    /// Seals `plain` with the key for `purpose` (AES-256-GCM, random nonce). It opens only for the same `place`, which
    /// names where the text is kept: moved elsewhere, it is worthless.
    pub fn seal(&self, purpose: &str, place: &[u8], plain: &[u8]) -> String {
        let mut bytes = plain.to_vec();
        let nonce = self
            .sealing_key(purpose)
            .seal_in_place_append_tag(Aad::from(place), &mut bytes)
            .expect("AES-256-GCM seals whatever fits into memory");
        bytes.splice(..0, nonce.as_ref().iter().copied());
        format!("{SEALED_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What was sealed for this purpose and place; none when it was not, was changed, or sealed under another key.
    pub fn open_sealed(&self, purpose: &str, place: &[u8], sealed: &str) -> Option<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed.strip_prefix(SEALED_PREFIX)?).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let plain = self
            .sealing_key(purpose)
            .open_in_place(nonce, Aad::from(place), &mut sealed)
            .ok()?;
        Some(plain.to_vec())
    }

    fn sealing_key(&self, purpose: &str) -> RandomizedNonceKey {
        RandomizedNonceKey::new(&AES_256_GCM, &self.derive(purpose)).expect("the derived key has 256 bits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_is_kept_and_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a temporary folder");

        let first = Keyring::open(&Secret::default(), folder.path()).expect("the key is made");
        let second = Keyring::open(&Secret::default(), folder.path()).expect("the key is read");

        assert_eq!(first.derive("x"), second.derive("x"));
        assert_ne!(first.derive("x"), first.derive("y"));
        let mode = std::fs::metadata(folder.path().join(KEY_FILE))
            .expect("the file exists")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_sealed_text_opens_for_its_purpose_and_place_only_and_never_changed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let keyring = Keyring::open(&Secret::default(), folder.path()).expect("a key");
        let elsewhere = tempfile::tempdir().expect("a temporary folder");
        let other_keyring = Keyring::open(&Secret::default(), elsewhere.path()).expect("a key");

        let sealed = keyring.seal("x", b"row 1", b"open sesame");

        assert_eq!(
            keyring.open_sealed("x", b"row 1", &sealed).as_deref(),
            Some(b"open sesame".as_slice())
        );
        assert_ne!(
            keyring.seal("x", b"row 1", b"open sesame"),
            sealed,
            "nonces differ"
        );
        assert_eq!(keyring.open_sealed("x", b"row 2", &sealed), None);
        assert_eq!(keyring.open_sealed("y", b"row 1", &sealed), None);
        assert_eq!(other_keyring.open_sealed("x", b"row 1", &sealed), None);
        for position in SEALED_PREFIX.len()..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("base64 is text");
            // The last character may carry bits that mean nothing; then it is refused as no base64.
            assert_eq!(keyring.open_sealed("x", b"row 1", &changed), None, "{position}");
        }
        for broken in [
            "",
            "v1.",
            "v1.AAAA",
            "v2.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert_eq!(keyring.open_sealed("x", b"row 1", broken), None, "{broken:?}");
        }
    }

    #[test]
    fn a_spoiled_key_file_stops_the_start_instead_of_being_replaced() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join(KEY_FILE), "short").expect("written");

        assert!(Keyring::open(&Secret::default(), folder.path()).is_err());
    }

    #[test]
    fn tokens_differ_and_are_stored_as_hashes() {
        let (one, two) = (random_token("fd_"), random_token("fd_"));

        assert_ne!(one, two);
        assert_eq!(token_hash(&one).len(), 64);
        assert!(!token_hash(&one).contains(&one[3..]));
    }
}
