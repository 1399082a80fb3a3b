//! Why Drive did not give what was asked for, split by what the caller does next.

use std::time::Duration;

use super::token::TokenError;

/// Why something could not be read from Drive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriveError {
    /// The account no longer lets us in: nothing works until the owner connects it again.
    #[error(
        "Google no longer accepts the access that was given. Connect the account again, or give new credentials; what was read before is kept."
    )]
    AccessWithdrawn,
    /// The account lets us in, but not to Drive: the API is switched off, or the permission is missing.
    #[error("Google refuses access to Drive ({reason}). {}", advice_on_refusal(reason))]
    AccessRefused { reason: String },
    /// There is no such file, or the account does not see it: Drive makes no difference.
    #[error("Drive has no such file, or the account does not see it.")]
    NotFound,
    /// The account sees the file but may not read it.
    #[error(
        "The account may not download this file ({reason}). Allow its readers to download it in Drive, or take it out of the folder."
    )]
    NotDownloadable { reason: String },
    /// A Google document that is too long for Drive to turn into a file.
    #[error("Google turns only documents of up to 10 MB into files. Split this one.")]
    ExportTooLarge,
    /// More bytes than may be read.
    #[error("The file is larger than {} MB. Split it into smaller files.", limit_bytes.div_ceil(1_048_576))]
    TooLarge { limit_bytes: u64 },
    /// A kind of Google file that has no text to read.
    #[error("Drive cannot give this kind of file as text ({kind}). Save it as a document, sheet or PDF.")]
    Unreadable { kind: String },
    /// The bytes are not those of the version that was asked for: it changed meanwhile, or the transfer spoiled it.
    #[error("The file changed while it was being downloaded. The next sync reads it again.")]
    Changed,
    /// Changes cannot be told from this token on: list everything anew.
    #[error("Drive no longer knows what changed since the last sync.")]
    PageTokenExpired,
    /// A list that Drive itself calls incomplete, or one that does not end.
    #[error("Drive gave only a part of the list. The next sync asks again.")]
    Incomplete,
    /// More files than one source may have.
    #[error("The folder has more than {most} files and folders. Choose folders below it.")]
    TooMany { most: usize },
    /// Too many requests; it goes on after a while.
    #[error("Google limits how often the account may ask. The sync goes on later.")]
    RateLimited { retry_after: Duration },
    /// It does not answer, or not in a way that can be understood.
    #[error("Google Drive does not answer ({reason}). The sync tries again later.")]
    Unavailable { reason: String },
    /// It does not accept the request, and will not the next time.
    #[error("Google Drive does not accept the request (status {status}, {reason}).")]
    Rejected { status: u16, reason: String },
}

impl DriveError {
    /// The stable code of this reason.
    pub fn code(&self) -> &'static str {
        match self {
            Self::AccessWithdrawn => "access_withdrawn",
            Self::AccessRefused { .. } => "access_refused",
            Self::NotFound => "not_found",
            Self::NotDownloadable { .. } => "not_downloadable",
            Self::ExportTooLarge => "export_too_large",
            Self::TooLarge { .. } => "too_large",
            Self::Unreadable { .. } => "unsupported_type",
            Self::Changed => "changed_while_reading",
            Self::PageTokenExpired => "page_token_expired",
            Self::Incomplete => "incomplete_list",
            Self::TooMany { .. } => "too_many_files",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unavailable { .. } => "drive_unavailable",
            Self::Rejected { .. } => "drive_rejected",
        }
    }

    /// Whether it concerns the connection as a whole, so that no other file can be read either.
    pub fn concerns_everything(&self) -> bool {
        matches!(
            self,
            Self::AccessWithdrawn
                | Self::AccessRefused { .. }
                | Self::RateLimited { .. }
                | Self::Unavailable { .. }
        )
    }

    /// When it may work again by itself; none where someone has to do something.
    pub fn retry_after(&self) -> Option<Duration> {
        const SOON: Duration = Duration::from_secs(60);
        match self {
            Self::RateLimited { retry_after } => Some(*retry_after),
            Self::Unavailable { .. } | Self::Changed | Self::Incomplete => Some(SOON),
            _ => None,
        }
    }
}

impl From<TokenError> for DriveError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Withdrawn => Self::AccessWithdrawn,
            TokenError::Refused { reason } => Self::AccessRefused { reason },
            TokenError::Unavailable { reason } => Self::Unavailable { reason },
        }
    }
}

/// What an owner or the operator can do about a refusal.
fn advice_on_refusal(reason: &str) -> &'static str {
    match reason {
        "accessNotConfigured" => {
            "Switch the Google Drive API on in the project that the credentials belong to."
        }
        "insufficientPermissions" | "insufficientAuthenticationScopes" | "invalid_scope" => {
            "Connect the account again and allow Drive to be read."
        }
        "domainPolicy" => "Ask the administrators of the Google account to allow this application.",
        _ => "Look at the permissions of the account and at its credentials.",
    }
}
