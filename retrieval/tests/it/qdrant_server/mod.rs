//! A stand-in for a Qdrant server: its gRPC services by the client crate's own protocol definitions, its answers by
//! `qdrant-edge`. It does what we use, in the way that is documented, and refuses the rest; tests can take it down.

mod collection;
mod collections;
mod convert;
mod faults;
mod points;
mod shard;
mod words;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use qdrant_client::qdrant::collections_server::CollectionsServer;
use qdrant_client::qdrant::payload_index_params::IndexParams;
use qdrant_client::qdrant::points_server::PointsServer;
use qdrant_client::qdrant::qdrant_server::{Qdrant, QdrantServer as HealthServer};
use qdrant_client::qdrant::{
    CreateCollection, CreateFieldIndexCollection, HealthCheckReply, HealthCheckRequest, ReadConsistency,
    ReadConsistencyType, SearchParams, WriteOrdering, read_consistency,
};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use self::collection::Collection;
pub(crate) use self::faults::Faults;
use self::shard::Shard;

/// Who vouches for the certificate of an encrypted server.
pub(crate) const AUTHORITY: &str = include_str!("certificates/authority.crt");

/// A running server. Dropping it ends it.
pub(crate) struct QdrantServer {
    pub(crate) state: Arc<State>,
    address: SocketAddr,
    is_encrypted: bool,
    /// A runtime of its own, so that ending it ends its connections, too.
    running: Option<Runtime>,
}

/// What the server holds; it outlives a restart.
pub(crate) struct State {
    /// When set, calls need it.
    api_key: Option<String>,
    version: Mutex<String>,
    pub(crate) faults: Faults,
    collections: Mutex<BTreeMap<String, Arc<Collection>>>,
    /// Calls by method, the failed ones included.
    calls: Mutex<HashMap<&'static str, usize>>,
    /// With which order of writes or agreement of copies each method was called.
    guarantees: Mutex<BTreeSet<(&'static str, &'static str)>>,
    field_indexes: Mutex<Vec<CreateFieldIndexCollection>>,
}

/// The services of a server.
#[derive(Clone)]
struct Service(Arc<State>);

impl QdrantServer {
    pub(crate) async fn start() -> Self {
        Self::start_with_key(None).await
    }

    pub(crate) async fn start_with_key(api_key: Option<&str>) -> Self {
        Self::start_at_any_port(api_key, false)
    }

    /// With a certificate for this machine, by [`AUTHORITY`].
    pub(crate) async fn start_encrypted(api_key: &str) -> Self {
        Self::start_at_any_port(Some(api_key), true)
    }

    fn start_at_any_port(api_key: Option<&str>, is_encrypted: bool) -> Self {
        let state = Arc::new(State {
            api_key: api_key.map(str::to_owned),
            version: Mutex::new("1.20.0".to_owned()),
            faults: Faults::default(),
            collections: Mutex::default(),
            calls: Mutex::default(),
            guarantees: Mutex::default(),
            field_indexes: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let running = Some(serve(listener, state.clone(), is_encrypted));
        Self {
            state,
            address,
            is_encrypted,
            running,
        }
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Cuts all connections; newcomers are refused until [`QdrantServer::restart`].
    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            let ended = tokio::task::spawn_blocking(|| running.shutdown_timeout(Duration::from_secs(5)));
            ended.await.expect("the runtime ends");
        }
    }

    /// Listens at the same address again.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        let listener = TcpListener::bind(self.address).expect("the port is ours");
        self.running = Some(serve(listener, self.state.clone(), self.is_encrypted));
    }
}

impl Drop for QdrantServer {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown_background();
        }
    }
}

impl State {
    pub(crate) fn set_version(&self, version: &str) {
        version.clone_into(&mut lock(&self.version));
    }

    pub(crate) fn collection_names(&self) -> Vec<String> {
        lock(&self.collections).keys().cloned().collect()
    }

    pub(crate) fn rename_collection(&self, name: &str, to: &str) {
        let mut collections = lock(&self.collections);
        let collection = collections.remove(name).expect("the collection");
        collections.insert(to.to_owned(), collection);
    }

    pub(crate) fn delete_collection(&self, name: &str) {
        lock(&self.collections).remove(name);
    }

    /// From now on filters let everything through.
    pub(crate) fn ignore_filters(&self) {
        for collection in lock(&self.collections).values() {
            collection.is_blind.store(true, Ordering::Relaxed);
        }
    }

    /// Points of each shard by its key; empty for one without.
    pub(crate) fn points_by_shard(&self) -> BTreeMap<String, usize> {
        let collections = lock(&self.collections);
        collections
            .values()
            .flat_map(|collection| collection.points_by_shard())
            .collect()
    }

    /// Vectors that are in a graph.
    pub(crate) fn vectors_in_graphs(&self) -> usize {
        let collections = lock(&self.collections);
        let in_graphs = collections.values().flat_map(|collection| {
            let shards = collection.shards();
            shards.iter().map(Shard::in_graphs).collect::<Vec<usize>>()
        });
        in_graphs.sum()
    }

    /// What the only collection was made with.
    pub(crate) fn made_with(&self) -> CreateCollection {
        let collections = lock(&self.collections);
        collections
            .values()
            .next()
            .expect("a collection")
            .made_with
            .clone()
    }

    /// How vectors of the only collection were asked for last.
    pub(crate) fn asked_with(&self) -> Option<SearchParams> {
        let collections = lock(&self.collections);
        let collection = collections.values().next().expect("a collection");
        lock(&collection.asked_with).clone()
    }

    /// What was asked to be indexed of the fields of this name.
    pub(crate) fn field_index(&self, name: &str) -> Option<IndexParams> {
        let indexes = lock(&self.field_indexes);
        let asked = indexes.iter().find(|index| index.field_name == name)?;
        asked.field_index_params.clone()?.index_params
    }

    /// The methods that were called, each with the order of writes or the agreement of copies that was asked for, by its name in
    /// the protocol; empty where the server was left to choose.
    pub(crate) fn guarantees(&self) -> BTreeSet<(&'static str, &'static str)> {
        lock(&self.guarantees).clone()
    }

    fn note_ordering(&self, method: &'static str, ordering: Option<WriteOrdering>) {
        let name = ordering.map_or("", |ordering| ordering.r#type().as_str_name());
        lock(&self.guarantees).insert((method, name));
    }

    fn note_consistency(&self, method: &'static str, consistency: Option<ReadConsistency>) {
        let name = match consistency.and_then(|consistency| consistency.value) {
            None => "",
            Some(read_consistency::Value::Type(kind)) => {
                ReadConsistencyType::try_from(kind).map_or("unknown", |kind| kind.as_str_name())
            }
            Some(read_consistency::Value::Factor(_)) => "a factor",
        };
        lock(&self.guarantees).insert((method, name));
    }

    /// How often a method was called.
    pub(crate) fn calls(&self, method: &str) -> usize {
        lock(&self.calls).get(method).copied().unwrap_or_default()
    }

    fn collection(&self, name: &str) -> Result<Arc<Collection>, Status> {
        let found = lock(&self.collections).get(name).cloned();
        found.ok_or_else(|| Status::not_found(format!("Not found: Collection `{name}` doesn't exist!")))
    }

    /// What every call but the health check goes through.
    async fn enter<T>(&self, method: &'static str, request: &Request<T>) -> Result<(), Status> {
        *lock(&self.calls).entry(method).or_default() += 1;
        if let Some(api_key) = &self.api_key {
            let given = request
                .metadata()
                .get("api-key")
                .and_then(|key| key.to_str().ok());
            if given != Some(api_key) {
                return Err(Status::unauthenticated(
                    "Must provide an API key or an Authorization bearer token",
                ));
            }
        }
        self.faults.strike().await
    }
}

#[tonic::async_trait]
impl Qdrant for Service {
    async fn health_check(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckReply>, Status> {
        Ok(Response::new(HealthCheckReply {
            title: "qdrant - vector search engine".to_owned(),
            version: lock(&self.0.version).clone(),
            commit: None,
        }))
    }
}

fn serve(listener: TcpListener, state: Arc<State>, is_encrypted: bool) -> Runtime {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let service = Service(state);
    listener.set_nonblocking(true).expect("a socket of ours");
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket of ours");
        let mut server = Server::builder();
        if is_encrypted {
            // The server asks for one of the whole process; it may be there already.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let identity = Identity::from_pem(
                include_str!("certificates/server.crt"),
                include_str!("certificates/server.key"),
            );
            let tls = ServerTlsConfig::new().identity(identity);
            server = server.tls_config(tls).expect("the key fits the certificate");
        }
        server
            .add_service(HealthServer::new(service.clone()))
            .add_service(CollectionsServer::new(service.clone()).max_decoding_message_size(usize::MAX))
            .add_service(PointsServer::new(service).max_decoding_message_size(usize::MAX))
            .serve_with_incoming(TcpIncoming::from(listener))
            .await
            .expect("the stand-in serves until it is stopped");
    });
    runtime
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
