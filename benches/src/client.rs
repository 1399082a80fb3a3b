//! A lean HTTP/1.1 client on one kept connection: what is measured is the server, not this.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;

/// A kept connection.
pub struct Client {
    stream: TcpStream,
    /// What was received and not yet used.
    received: Vec<u8>,
}

/// An answer that was read whole.
pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
}

/// The head of an answer.
struct Head {
    status: u16,
    length: Option<usize>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Vec::with_capacity(READ_BYTES),
        })
    }

    /// Sends a whole request, as [`request`] makes it, and reads the whole answer.
    pub async fn send(&mut self, request: &[u8]) -> anyhow::Result<Response> {
        let mut body = Vec::new();
        let status = self
            .send_streaming(request, |part, _| body.extend_from_slice(part))
            .await?;
        Ok(Response { status, body })
    }

    /// Like [`Client::send`], handing on each part of the body as it comes, with the time.
    pub async fn send_streaming(
        &mut self,
        request: &[u8],
        mut take: impl FnMut(&[u8], Instant),
    ) -> anyhow::Result<u16> {
        self.stream.write_all(request).await?;
        let head = self.read_head().await?;
        match head.length {
            Some(length) => {
                let mut left = length;
                while left > 0 {
                    if self.received.is_empty() {
                        self.read().await?;
                    }
                    let part = self.received.len().min(left);
                    take(&self.received[..part], Instant::now());
                    self.received.drain(..part);
                    left -= part;
                }
            }
            None => self.read_chunks(&mut take).await?,
        }
        Ok(head.status)
    }

    async fn read_head(&mut self) -> anyhow::Result<Head> {
        let end = self.read_until(b"\r\n\r\n").await?;
        let head = std::str::from_utf8(&self.received[..end]).context("a head that is no text")?;
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|status| status.parse().ok());
        let status: u16 = status.context("a head without a status")?;
        let mut length = if status == 204 { Some(0) } else { None };
        for line in lines {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse()?);
            }
        }
        self.received.drain(..end);
        Ok(Head { status, length })
    }

    async fn read_chunks(&mut self, take: &mut impl FnMut(&[u8], Instant)) -> anyhow::Result<()> {
        loop {
            let end = self.read_until(b"\r\n").await?;
            let size =
                std::str::from_utf8(&self.received[..end - 2]).context("a chunk size that is no text")?;
            let size = usize::from_str_radix(size.trim(), 16).context("a chunk size that is no number")?;
            self.received.drain(..end);
            while self.received.len() < size + 2 {
                self.read().await?;
            }
            if size > 0 {
                take(&self.received[..size], Instant::now());
            }
            self.received.drain(..size + 2);
            if size == 0 {
                return Ok(());
            }
        }
    }

    /// The offset behind the next `mark`.
    async fn read_until(&mut self, mark: &[u8]) -> anyhow::Result<usize> {
        loop {
            if let Some(at) = self
                .received
                .windows(mark.len())
                .position(|window| window == mark)
            {
                return Ok(at + mark.len());
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        self.received.reserve(READ_BYTES);
        if self.stream.read_buf(&mut self.received).await? == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }
}

/// A request in bytes.
pub fn request(method: &str, path: &str, api_key: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {api_key}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// A request with a JSON body.
pub fn json_request(path: &str, api_key: &str, body: &serde_json::Value) -> Vec<u8> {
    request(
        "POST",
        path,
        api_key,
        "application/json",
        body.to_string().as_bytes(),
    )
}

/// An upload of `files`, each a name and its text.
pub fn upload_request(chatbot_id: &str, api_key: &str, files: &[(String, String)]) -> Vec<u8> {
    const BOUNDARY: &str = "frontdesk-bench-boundary";
    let mut body = String::new();
    for (name, text) in files {
        body.push_str(&format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\ncontent-type: text/plain\r\n\r\n{text}\r\n"
        ));
    }
    body.push_str(&format!("--{BOUNDARY}--\r\n"));
    let path = format!("/api/chatbots/{chatbot_id}/documents");
    request(
        "POST",
        &path,
        api_key,
        &format!("multipart/form-data; boundary={BOUNDARY}"),
        body.as_bytes(),
    )
}
