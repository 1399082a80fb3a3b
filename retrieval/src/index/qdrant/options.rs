//! What an operator can decide about the server backend.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;
use url::{Host, Url};

/// Where the server is, what the collection holds, and how it is kept and asked.
pub struct QdrantOptions {
    /// The server's gRPC address, for example `http://127.0.0.1:6334`; `https` for TLS by the system's certificates.
    pub url: String,
    pub api_key: Option<String>,
    /// The embedding model, by which the collection is named; `None` keeps words alone.
    pub model_id: Option<String>,
    /// Length of the model's vectors; `None` keeps words alone.
    pub dimension: Option<usize>,
    pub tuning: QdrantTuning,
}

/// The key is nobody's to read in a log.
impl fmt::Debug for QdrantOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("QdrantOptions")
            .field("url", &self.url)
            .field("api_key", &self.api_key.as_ref().map(|_| "***"))
            .field("model_id", &self.model_id)
            .field("dimension", &self.dimension)
            .field("tuning", &self.tuning)
            .finish()
    }
}

/// How the collection is laid out and how patient we are. What is marked *at creation* is what a new collection is made
/// with; an existing one keeps what it has.
#[derive(Debug, Clone, PartialEq)]
pub struct QdrantTuning {
    /// Begins the collection's name, so that installations can share a cluster.
    pub collection_prefix: String,
    /// Lets the API key go to another machine without TLS, for a private network.
    pub allow_plain_api_key: bool,
    pub connect_timeout: Duration,
    /// How long a search or count may take, tries included.
    pub read_timeout: Duration,
    /// How long a change may take, tries included.
    pub write_timeout: Duration,
    /// How long opening waits for a server that does not answer yet.
    pub start_timeout: Duration,
    /// Tries of one call, the first included.
    pub attempts: u32,
    /// Shards over which points are spread, *at creation*; `None` leaves it to the server, as is always so with
    /// `promote_from_chunks`.
    pub shards: Option<u32>,
    /// Copies of each shard, *at creation* of the collection and of a promoted tenant's shard.
    pub replication_factor: u32,
    /// Copies that must have a change before it counts as done, *at creation*.
    pub write_consistency_factor: u32,
    pub read_consistency: ReadConsistency,
    pub write_ordering: WriteOrdering,
    /// Vectors stay on disk instead of being loaded into memory, *at creation*.
    pub vectors_on_disk: bool,
    /// A smaller copy of each vector to search by, *at creation*.
    pub quantisation: Quantisation,
    /// With quantisation: how many times the wanted number of points is taken by the copies, then compared in full.
    pub oversampling: f64,
    /// Points looked at per search of a graph; `None` leaves it to the server.
    pub search_width: Option<u32>,
    /// Tenants with as many chunks get a shard of their own (tiered multitenancy), *at creation*; `None`: all share
    /// shards. Needs a server in distributed mode.
    pub promote_from_chunks: Option<u64>,
}

impl Default for QdrantTuning {
    fn default() -> Self {
        Self {
            collection_prefix: "frontdesk".to_owned(),
            allow_plain_api_key: false,
            connect_timeout: Duration::from_secs(3),
            read_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(60),
            start_timeout: Duration::from_secs(30),
            attempts: 4,
            shards: None,
            replication_factor: 1,
            write_consistency_factor: 1,
            read_consistency: ReadConsistency::One,
            write_ordering: WriteOrdering::Weak,
            vectors_on_disk: false,
            quantisation: Quantisation::None,
            oversampling: 2.0,
            search_width: None,
            promote_from_chunks: None,
        }
    }
}

/// How many copies of a shard are asked, and which answer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadConsistency {
    /// One copy, the fastest.
    One,
    /// What the majority of copies says.
    Majority,
    /// What a majority of copies that were asked says.
    Quorum,
    /// What all copies say.
    All,
}

/// Who puts changes of one point in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WriteOrdering {
    /// Nobody: copies may see changes in another order for a moment.
    Weak,
    /// A leader that may change.
    Medium,
    /// The permanent leader; changes wait while it is down.
    Strong,
}

/// A smaller copy of each vector to search by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantisation {
    None,
    /// One byte for each value, a quarter of the memory.
    Scalar,
    /// One bit for each value; for models of 1,024 dimensions and more.
    Binary,
}

/// An option that cannot work, and what it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongOption {
    #[error("the address {0}")]
    Url(&'static str),
    #[error("the API key {0}")]
    ApiKey(&'static str),
}

impl QdrantOptions {
    /// Refuses addresses that cannot work and a key that would travel in the open.
    pub fn check(&self) -> Result<(), WrongOption> {
        let url = Url::parse(&self.url).map_err(|_| WrongOption::Url("must be a URL"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(WrongOption::Url("must be an http or https URL"));
        }
        if url.port().is_none() {
            return Err(WrongOption::Url(
                "must name the server's gRPC port, which is 6334 unless changed",
            ));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(WrongOption::Url("must not hold a name or password"));
        }
        let Some(key) = &self.api_key else { return Ok(()) };
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(WrongOption::ApiKey("must be of visible ASCII characters"));
        }
        if url.scheme() == "http" && !is_this_machine(&url) && !self.tuning.allow_plain_api_key {
            return Err(WrongOption::ApiKey(
                "would go to another machine unencrypted: use https, or allow it for a private network",
            ));
        }
        Ok(())
    }
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str, api_key: Option<&str>) -> QdrantOptions {
        QdrantOptions {
            url: url.to_owned(),
            api_key: api_key.map(str::to_owned),
            model_id: None,
            dimension: None,
            tuning: QdrantTuning::default(),
        }
    }

    #[test]
    fn an_api_key_leaves_this_machine_encrypted_only() {
        for url in [
            "https://qdrant.example.com:6334",
            "http://localhost:6334",
            "http://127.0.0.9:6334",
            "http://[::1]:6334",
        ] {
            options(url, Some("secret")).check().expect(url);
        }
        for url in [
            "http://qdrant:6334",
            "http://10.0.0.7:6334",
            "http://localhost.example.com:6334",
        ] {
            options(url, Some("secret")).check().expect_err(url);
            options(url, None).check().expect(url);
            let mut allowed = options(url, Some("secret"));
            allowed.tuning.allow_plain_api_key = true;
            allowed.check().expect(url);
        }
    }

    #[test]
    fn addresses_that_cannot_work_are_refused() {
        for url in [
            "",
            "qdrant:6334",
            "grpc://qdrant:6334",
            "http://qdrant",
            "http://name:word@localhost:6334",
        ] {
            options(url, None).check().expect_err(url);
        }
        options("http://localhost:6334", Some("two words"))
            .check()
            .expect_err("a key that no header can hold");
    }

    #[test]
    fn the_key_stays_out_of_logs() {
        let shown = format!("{:?}", options("http://localhost:6334", Some("secret-key")));

        assert!(!shown.contains("secret-key"), "{shown}");
    }
}
