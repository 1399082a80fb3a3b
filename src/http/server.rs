//! The HTTP/1.1 server: takes in connections, bounds their number and their patience, and lets what runs finish when
//! it is told to stop.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Request, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::pace::Paced;
use super::rate::network_of;
use crate::config;
use crate::places::{Full, Place, Places};

/// Connections that the kernel holds for us while we are busy.
const BACKLOG: u32 = 4096;

/// A new connection that has sent no whole request head by then is closed.
const FIRST_HEAD_LIMIT: Duration = Duration::from_secs(10);

/// A connection that rests is closed after this; longer than what balancers keep theirs for (60 s), so that they close
/// first and never send into a closing connection. The head of a further request may take as long.
const IDLE_LIMIT: Duration = Duration::from_secs(75);

/// A client that takes nothing of its answer for this long is gone.
const WRITE_STALL_LIMIT: Duration = Duration::from_secs(30);

const MAX_HEADERS: usize = 100;

/// Request line and headers together.
const MAX_HEADER_BYTES: usize = 32 * 1024;

/// What one connection buffers.
const MAX_BUFFER_BYTES: usize = 128 * 1024;

/// Newcomers past the limit that are told so at once; further ones are just closed.
const TURNED_AWAY_AT_ONCE: usize = 64;

/// How long telling a newcomer may take.
const TURN_AWAY_LIMIT: Duration = Duration::from_secs(1);

/// How long requests that are told to end may take to say so.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(2);

/// Pause after the system refused to hand out a connection, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// How many connections may be open.
pub struct Connections {
    pub most: usize,
    /// Of these, how many may come from one address.
    pub most_per_address: usize,
    /// These bring many clients and have no limit of their own.
    pub trusted_proxies: Vec<IpAddr>,
}

impl From<&config::Server> for Connections {
    fn from(config: &config::Server) -> Self {
        Self {
            most: config.max_connections,
            most_per_address: config.max_connections_per_address,
            trusted_proxies: config.trusted_proxies.clone(),
        }
    }
}

/// Opens a port.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `stop`, then lets running requests finish for `grace`, tells the rest by `ending` to end, and cuts off
/// what does not.
pub async fn serve(
    router: Router,
    listener: TcpListener,
    connections: Connections,
    stop: CancellationToken,
    ending: CancellationToken,
    grace: Duration,
) {
    let server = Server {
        router,
        slots: Places::new(connections.most, connections.most_per_address),
        trusted_proxies: connections.trusted_proxies,
        turn_away_slots: Arc::new(Semaphore::new(TURNED_AWAY_AT_ONCE)),
        connections: TaskTracker::new(),
        stop: stop.clone(),
        abandon: CancellationToken::new(),
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => server.take_in(stream, peer),
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::error!(error = ?error, "cannot accept connections");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    server.connections.close();
    if timeout(grace, server.connections.wait()).await.is_err() {
        tracing::warn!(
            connections = server.connections.len(),
            "cutting off requests that did not finish in time"
        );
        ending.cancel();
        if timeout(LAST_WORDS_LIMIT, server.connections.wait())
            .await
            .is_err()
        {
            server.abandon.cancel();
            server.connections.wait().await;
        }
    }
}

struct Server {
    router: Router,
    slots: Places<IpAddr>,
    trusted_proxies: Vec<IpAddr>,
    turn_away_slots: Arc<Semaphore>,
    connections: TaskTracker,
    stop: CancellationToken,
    abandon: CancellationToken,
}

impl Server {
    fn take_in(&self, stream: TcpStream, peer: SocketAddr) {
        // With Nagle's algorithm a small event waits for the client's delayed acknowledgement: 40 ms each.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let address = peer.ip().to_canonical();
        // A proxy's connections are those of all its clients.
        let holder = (!self.trusted_proxies.contains(&address)).then(|| network_of(address));
        match self.slots.take(holder) {
            Ok(slot) => {
                let (router, stop, abandon) = (self.router.clone(), self.stop.clone(), self.abandon.clone());
                self.connections.spawn(async move {
                    let _open = OpenConnection::new(slot);
                    attend(router, stream, peer, &stop, &abandon).await;
                });
            }
            Err(full) => {
                metrics::counter!("frontdesk_http_connections_refused_total").increment(1);
                if let Ok(slot) = self.turn_away_slots.clone().try_acquire_owned() {
                    self.connections.spawn(async move {
                        let _ = timeout(TURN_AWAY_LIMIT, turn_away(stream, full)).await;
                        drop(slot);
                    });
                }
            }
        }
    }
}

/// A connection's place among those that may be open, counted for the operator.
struct OpenConnection {
    _slot: Place<IpAddr>,
    gauge: metrics::Gauge,
}

impl OpenConnection {
    fn new(slot: Place<IpAddr>) -> Self {
        let gauge = metrics::gauge!("frontdesk_http_connections");
        gauge.increment(1.0);
        Self { _slot: slot, gauge }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.gauge.decrement(1.0);
    }
}

/// Answers the requests of one connection, one after another.
async fn attend(
    router: Router,
    stream: TcpStream,
    peer: SocketAddr,
    stop: &CancellationToken,
    abandon: &CancellationToken,
) {
    let has_asked = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        has_asked.store(true, Ordering::Relaxed);
        let mut request = request.map(bounded);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_LIMIT)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEADER_BYTES)
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(TokioIo::new(Impatient::new(stream)), service);
    let mut connection = pin!(connection);
    let mut first_head = pin!(sleep(FIRST_HEAD_LIMIT));
    let (mut waits_for_head, mut is_stopping) = (true, false);
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(error = %error, "a connection broke");
                }
                return;
            }
            () = first_head.as_mut(), if waits_for_head => {
                waits_for_head = false;
                if !has_asked.load(Ordering::Relaxed) {
                    return;
                }
            }
            () = stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = abandon.cancelled() => return,
        }
    }
}

/// A request's body that fails when the client falls silent in the middle of it, or sends it drop by drop.
fn bounded(body: Incoming) -> Body {
    if body.is_end_stream() {
        Body::empty()
    } else {
        Body::new(Paced::new(body))
    }
}

/// Tells a newcomer that there is no place left.
async fn turn_away(mut stream: TcpStream, full: Full) -> io::Result<()> {
    let (status, code, detail) = match full {
        Full::All => (
            StatusCode::SERVICE_UNAVAILABLE,
            "too_many_connections",
            "the server holds as many connections as it may: try again shortly",
        ),
        Full::Share => (
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_connections_from_address",
            "your address has as many connections open as one may: use those, or close some",
        ),
    };
    let (number, title) = (status.as_u16(), status.canonical_reason().unwrap_or_default());
    let body = format!(
        r#"{{"type":"about:blank","title":"{title}","status":{number},"code":"{code}","detail":"{detail}"}}"#
    );
    let head = format!(
        "HTTP/1.1 {number} {title}\r\ncontent-type: application/problem+json\r\nretry-after: 5\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await?;
    // Closing with the request still unread would make the kernel reset the connection and take the answer back.
    let mut unread = [0; 1024];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

/// Whether accepting failed because of what the client did: the next one may be fine.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

/// A stream that fails when its other end takes nothing for [`WRITE_STALL_LIMIT`].
struct Impatient {
    stream: TcpStream,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            stalled: None,
        }
    }

    fn judge<T>(&mut self, context: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.stalled = None;
            return progress;
        }
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(WRITE_STALL_LIMIT)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client takes nothing",
        )))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, progress)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.judge(context, progress)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
