//! A file's content as it comes: goes on where the connection broke, and is held against Drive's own checksum at the end.

use md5::{Digest as _, Md5};
use reqwest::{Response, StatusCode, header};

use super::client::Drive;
use super::error::DriveError;
use super::file::File;
use super::retry;

/// The content of one file. Take [`Download::next`] until it gives nothing more: only then is the content proven whole.
pub struct Download {
    file_name: String,
    state: State,
}

enum State {
    /// An export, which is here already.
    Whole(Option<bytes::Bytes>),
    Streamed(Box<Stream>),
}

struct Stream {
    drive: Drive,
    id: String,
    response: Response,
    /// What is left to be passed over: the server began from the start although asked to go on.
    to_skip: u64,
    received: u64,
    /// Breaks since the last byte that came.
    breaks: u32,
    limit_bytes: u64,
    expected_bytes: Option<u64>,
    expected_md5: Option<String>,
    md5: Md5,
}

impl Download {
    pub(super) fn whole(file_name: String, bytes: Vec<u8>) -> Self {
        Self {
            file_name,
            state: State::Whole(Some(bytes.into())),
        }
    }

    pub(super) async fn begin(drive: Drive, file: &File, limit_bytes: u64) -> Result<Self, DriveError> {
        let response = drive.media(&file.id, 0).await?;
        Ok(Self {
            file_name: file.file_name(None),
            state: State::Streamed(Box::new(Stream {
                drive,
                id: file.id.clone(),
                response,
                to_skip: 0,
                received: 0,
                breaks: 0,
                limit_bytes,
                expected_bytes: file.size_bytes,
                expected_md5: file.md5.clone(),
                md5: Md5::new(),
            })),
        })
    }

    /// The file's name, with the extension of the form in which it comes.
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// The next bytes; none at the end, when all of them are there and are the right ones.
    pub async fn next(&mut self) -> Result<Option<bytes::Bytes>, DriveError> {
        match &mut self.state {
            State::Whole(bytes) => Ok(bytes.take()),
            State::Streamed(stream) => stream.next().await,
        }
    }
}

impl Stream {
    async fn next(&mut self) -> Result<Option<bytes::Bytes>, DriveError> {
        loop {
            let patience = self.drive.options().patience;
            let reason = match tokio::time::timeout(patience, self.response.chunk()).await {
                Ok(Ok(Some(mut bytes))) => {
                    let skipped = self.to_skip.min(bytes.len() as u64);
                    self.to_skip -= skipped;
                    bytes = bytes.slice(usize::try_from(skipped).unwrap_or(bytes.len())..);
                    if bytes.is_empty() {
                        continue;
                    }
                    return self.take(bytes).map(Some);
                }
                // Without a stated length, a connection that was cut off looks like an end.
                Ok(Ok(None))
                    if self
                        .expected_bytes
                        .is_none_or(|expected| self.received >= expected) =>
                {
                    return self.check().map(|()| None);
                }
                Ok(Ok(None)) => "the connection broke".to_owned(),
                Ok(Err(error)) => retry::describe(&error),
                Err(_) => "it took too long".to_owned(),
            };
            self.go_on(reason).await?;
        }
    }

    fn take(&mut self, bytes: bytes::Bytes) -> Result<bytes::Bytes, DriveError> {
        self.breaks = 0;
        self.received += bytes.len() as u64;
        if self.received > self.limit_bytes {
            return Err(DriveError::TooLarge {
                limit_bytes: self.limit_bytes,
            });
        }
        self.md5.update(&bytes);
        Ok(bytes)
    }

    /// Asks for the rest after a break.
    async fn go_on(&mut self, reason: String) -> Result<(), DriveError> {
        let options = self.drive.options();
        self.breaks += 1;
        if self.breaks >= options.attempts {
            return Err(DriveError::Unavailable { reason });
        }
        tokio::time::sleep(retry::pause(options.first_pause, self.breaks, None)).await;
        self.response = self.drive.media(&self.id, self.received).await?;
        self.to_skip = 0;
        if self.received > 0 {
            match (self.response.status(), first_byte(&self.response)) {
                (StatusCode::PARTIAL_CONTENT, Some(first)) if first == self.received => {}
                (StatusCode::PARTIAL_CONTENT, _) => return Err(DriveError::Changed),
                _ => self.to_skip = self.received,
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), DriveError> {
        let is_whole = self
            .expected_bytes
            .is_none_or(|expected| expected == self.received);
        let md5 = self.md5.clone().finalize();
        let is_right = self.expected_md5.as_ref().is_none_or(|expected| {
            let found: String = md5.iter().map(|byte| format!("{byte:02x}")).collect();
            *expected == found
        });
        if is_whole && is_right {
            Ok(())
        } else {
            Err(DriveError::Changed)
        }
    }
}

/// Where the part begins that a partial answer holds.
fn first_byte(response: &Response) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}
