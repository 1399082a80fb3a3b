//! Name resolution that judges: the addresses given to the connector are those that were judged, and no others.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::guard::{Refusal, judge_address};

/// Where addresses come from. Tests and operators with a DNS server of their own bring another one.
pub trait Resolver: Send + Sync + 'static {
    /// All addresses of `host`, a name without a final dot or port. An empty list counts as not found.
    fn resolve(&self, host: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The resolver of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, host: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let host = host.to_owned();
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((host.as_str(), 0)).await?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    }
}

/// What the connector gets instead of an address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error(transparent)]
    Refused(Refusal),
    #[error("the name could not be resolved")]
    NotResolved(#[source] io::Error),
}

/// Puts a [`Resolver`] under the HTTP client. Called once per new connection, with its result dialled as it is.
pub(crate) struct Connecting {
    pub(crate) resolver: Arc<dyn Resolver>,
    /// False only for the client that serves the hosts the operator listed.
    pub(crate) judged: bool,
}

impl Resolve for Connecting {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name
            .as_str()
            .strip_suffix('.')
            .unwrap_or(name.as_str())
            .to_owned();
        let answer = self.resolver.resolve(&host);
        let judged = self.judged;
        Box::pin(async move {
            let addresses = judge_answer(&host, answer.await, judged)?;
            // Port 0 stands for the port of the URL.
            let sockets: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(sockets)
        })
    }
}

/// One address that is not public spoils the whole answer: a mixed answer is how names are rebound.
pub(crate) fn judge_answer(
    host: &str,
    answer: io::Result<Vec<IpAddr>>,
    judged: bool,
) -> Result<Vec<IpAddr>, ResolveError> {
    let addresses = answer.map_err(ResolveError::NotResolved)?;
    if addresses.is_empty() {
        return Err(ResolveError::NotResolved(io::ErrorKind::NotFound.into()));
    }
    if judged {
        for address in &addresses {
            judge_address(host, *address).map_err(ResolveError::Refused)?;
        }
    }
    Ok(addresses)
}
