//! Mails as Outlook stores them (MS-OXMSG): a compound file with a stream for each property.

use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

use cfb::CompoundFile;

use super::{Attachment, Body, Letter};
use crate::ExtractError;
use crate::extract::scope::Scope;
use crate::extract::text::decode;

/// Properties by their numbers (MS-OXPROPS).
const SUBJECT: u16 = 0x0037;
const SENDER_NAME: u16 = 0x0c1a;
const SENDER_ADDRESS: u16 = 0x0c1f;
const SENDER_SMTP_ADDRESS: u16 = 0x5d01;
const TO: u16 = 0x0e04;
const CC: u16 = 0x0e03;
const BODY: u16 = 0x1000;
const HTML: u16 = 0x1013;
const SUBMIT_TIME: u16 = 0x0039;
const DELIVERY_TIME: u16 = 0x0e06;
const ATTACHMENT_DATA: u16 = 0x3701;
const ATTACHMENT_LONG_NAME: u16 = 0x3707;
const ATTACHMENT_NAME: u16 = 0x3704;
const ATTACHMENT_TYPE: u16 = 0x370e;

/// Types of property values.
const UNICODE: u16 = 0x001f;
const EIGHT_BIT: u16 = 0x001e;
const BINARY: u16 = 0x0102;
const TIME: u16 = 0x0040;

/// The stream with the values of fixed size, and how long its head is in a whole mail.
const FIXED_VALUES: &str = "__properties_version1.0";
const FIXED_HEAD_BYTES: usize = 32;

/// Seconds from 1601, where Windows counts from, to 1970.
const SECONDS_TO_1970: i64 = 11_644_473_600;

pub(super) fn read(bytes: &[u8], scope: &Scope<'_>) -> Result<Letter, ExtractError> {
    let mut mail = Mail {
        file: CompoundFile::open(Cursor::new(bytes))
            .map_err(|_| ExtractError::damaged("its container is broken"))?,
        file_bytes: bytes.len() as u64,
        scope,
    };
    let root = Path::new("/");
    let html = match mail.text(root, HTML)? {
        Some(page) => Some(page),
        None => mail
            .binary(root, HTML)?
            .map(|page| decode(&page, None, scope.limits))
            .transpose()?,
    };
    let plain = mail.text(root, BODY)?.filter(|text| !text.trim().is_empty());
    let body = plain.map(Body::Plain).or(html.map(Body::Html));
    let sender = mail.text(root, SENDER_NAME)?.unwrap_or_default();
    let address = match mail.text(root, SENDER_SMTP_ADDRESS)? {
        Some(address) => Some(address),
        None => mail
            .text(root, SENDER_ADDRESS)?
            .filter(|address| address.contains('@')),
    };
    let from = match address {
        Some(address) if address != sender => format!("{sender} <{address}>"),
        _ => sender,
    };
    Ok(Letter {
        subject: mail.text(root, SUBJECT)?.unwrap_or_default(),
        from,
        to: mail.text(root, TO)?.unwrap_or_default(),
        cc: mail.text(root, CC)?.unwrap_or_default(),
        date: mail.date()?,
        bodies: body.into_iter().collect(),
        attachments: mail.attachments()?,
    })
}

struct Mail<'a> {
    file: CompoundFile<Cursor<&'a [u8]>>,
    file_bytes: u64,
    scope: &'a Scope<'a>,
}

impl Mail<'_> {
    fn attachments(&mut self) -> Result<Vec<Attachment>, ExtractError> {
        let folders: Vec<PathBuf> = self
            .file
            .read_root_storage()
            .filter(|entry| entry.is_storage() && entry.name().starts_with("__attach_version1.0_"))
            .map(|entry| entry.path().to_owned())
            .take(self.scope.limits.max_entries as usize)
            .collect();
        let mut attachments = Vec::new();
        for folder in folders {
            let name = match self.text(&folder, ATTACHMENT_LONG_NAME)? {
                Some(name) => Some(name),
                None => self.text(&folder, ATTACHMENT_NAME)?,
            };
            let media_type = self.text(&folder, ATTACHMENT_TYPE)?.unwrap_or_default();
            // A mail that is attached is a folder of its own, not a file.
            if let Some(bytes) = self.binary(&folder, ATTACHMENT_DATA)? {
                attachments.push(Attachment {
                    name: name.unwrap_or_else(|| "attachment".to_owned()),
                    bytes,
                    is_picture: media_type.to_ascii_lowercase().starts_with("image/"),
                });
            }
        }
        Ok(attachments)
    }

    fn text(&mut self, folder: &Path, property: u16) -> Result<Option<String>, ExtractError> {
        if let Some(bytes) = self.stream(folder, property, UNICODE)? {
            let (text, _) = encoding_rs::UTF_16LE.decode_without_bom_handling(&bytes);
            return Ok(Some(text.into_owned()));
        }
        self.stream(folder, property, EIGHT_BIT)?
            .map(|bytes| decode(&bytes, None, self.scope.limits))
            .transpose()
    }

    fn binary(&mut self, folder: &Path, property: u16) -> Result<Option<Vec<u8>>, ExtractError> {
        self.stream(folder, property, BINARY)
    }

    fn stream(&mut self, folder: &Path, property: u16, kind: u16) -> Result<Option<Vec<u8>>, ExtractError> {
        self.read(&folder.join(format!("__substg1.0_{property:04X}{kind:04X}")))
    }

    fn read(&mut self, path: &Path) -> Result<Option<Vec<u8>>, ExtractError> {
        if !self.file.is_stream(path) {
            return Ok(None);
        }
        let broken = || ExtractError::damaged("its container is broken");
        let mut bytes = Vec::new();
        let stream = self.file.open_stream(path).map_err(|_| broken())?;
        // No stream is longer than the file, whatever it says.
        stream
            .take(self.file_bytes)
            .read_to_end(&mut bytes)
            .map_err(|_| broken())?;
        Ok(Some(bytes))
    }

    /// When the mail was sent, else received.
    fn date(&mut self) -> Result<Option<String>, ExtractError> {
        let values = self.read(&Path::new("/").join(FIXED_VALUES))?.unwrap_or_default();
        let values = values.get(FIXED_HEAD_BYTES..).unwrap_or_default();
        let find = |property: u16| {
            let entry = values
                .chunks_exact(16)
                .find(|entry| entry[..2] == TIME.to_le_bytes() && entry[2..4] == property.to_le_bytes())?;
            let ticks = u64::from_le_bytes(entry[8..].try_into().ok()?);
            let seconds = i64::try_from(ticks / 10_000_000).ok()? - SECONDS_TO_1970;
            let time = chrono::DateTime::from_timestamp(seconds, 0)?;
            Some(time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
        };
        Ok(find(SUBMIT_TIME).or_else(|| find(DELIVERY_TIME)))
    }
}
