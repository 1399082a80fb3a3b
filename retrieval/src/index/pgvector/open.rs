//! Opening: settings, pools, the role that row-level security applies to.

use std::str::FromStr as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgPool};

use super::own::Movers;
use super::schema::{self, ROLE};
use super::{Inner, PgvectorIndex, PgvectorTuning, failure};
use crate::index::IndexError;

/// How long a call waits for a connection, and for its transaction to begin.
pub(super) const WAIT_LIMIT: Duration = Duration::from_secs(10);

/// Statements of a call that run longer are cut off.
const STATEMENT_TIMEOUT: &str = "30s";

/// Values of a vector that pgvector builds a graph of: at full precision, at half.
const MOST_VALUES: usize = 2_000;
const MOST_HALF_VALUES: usize = 4_000;

/// Where an index in PostgreSQL is and what it holds.
#[derive(Debug, Clone)]
pub struct PgvectorOptions<'a> {
    /// `postgres://…` of a database with the extension `vector`, or of one where this login may create it.
    pub url: &'a str,
    /// The embedding model, with its dimension; both `None` for an index that finds by words alone.
    pub model_id: Option<&'a str>,
    pub dimension: Option<usize>,
    /// Vectors take half the room, and lie at most a thousandth from where they were.
    pub halfvec: bool,
    /// Neighbours of a point in a graph, and candidates looked at while it is built: for graphs built from now on.
    pub m: u32,
    pub ef_construction: u32,
    /// Candidates looked at while a graph is searched.
    pub ef_search: u32,
    /// What the server may use to build one graph. Building takes many times as long once the graph is larger.
    pub build_memory_mb: u32,
    pub max_connections: u32,
}

/// What the tables hold.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// Differs where the tables have to.
    pub(super) name: String,
    /// The name at the other precision; `None` when chunks are found by words alone.
    pub(super) other_name: Option<String>,
    /// `None` when chunks are found by words alone.
    pub(super) dimension: Option<usize>,
    pub(super) halfvec: bool,
    pub(super) m: u32,
    pub(super) ef_construction: u32,
    pub(super) build_memory_mb: u32,
}

impl Layout {
    fn new(options: &PgvectorOptions<'_>) -> Result<Self, IndexError> {
        let (name, other_name, dimension) = match (options.model_id, options.dimension) {
            (Some(model_id), Some(dimension)) if dimension > 0 => {
                let name_at =
                    |precision: &str| format!("{model_id}, {dimension} values, {precision} precision");
                let (own, other) = if options.halfvec {
                    ("half", "full")
                } else {
                    ("full", "half")
                };
                (name_at(own), Some(name_at(other)), Some(dimension))
            }
            (None, None) => ("words alone".to_owned(), None, None),
            _ => {
                return Err(refused(
                    "a model and its dimension are given together or not at all",
                ));
            }
        };
        let most = if options.halfvec {
            MOST_HALF_VALUES
        } else {
            MOST_VALUES
        };
        match dimension {
            Some(dimension) if dimension > MOST_HALF_VALUES => Err(refused(&format!(
                "pgvector indexes vectors of at most {MOST_HALF_VALUES} values, and the embedding model's have {dimension}"
            ))),
            Some(dimension) if dimension > most => Err(refused(&format!(
                "pgvector indexes vectors of more than {MOST_VALUES} values at half precision only, and the embedding model's have {dimension}: set index.halfvec"
            ))),
            _ => Ok(Self {
                name,
                other_name,
                dimension,
                halfvec: options.halfvec,
                m: options.m,
                ef_construction: options.ef_construction,
                build_memory_mb: options.build_memory_mb,
            }),
        }
    }

    pub(super) fn vector_type(&self) -> String {
        match self.dimension {
            Some(dimension) if self.halfvec => format!("halfvec({dimension})"),
            Some(dimension) => format!("vector({dimension})"),
            None => "vector".to_owned(),
        }
    }
}

impl PgvectorIndex {
    /// Opens the index, and makes its tables where there are none. What is unavailable may come back, all other errors need
    /// somebody to change something.
    pub async fn open(options: PgvectorOptions<'_>) -> Result<Self, IndexError> {
        Self::open_tuned(options, PgvectorTuning::default()).await
    }

    /// As [`PgvectorIndex::open`], for tests and measurements.
    pub async fn open_tuned(
        options: PgvectorOptions<'_>,
        tuning: PgvectorTuning,
    ) -> Result<Self, IndexError> {
        let layout = Layout::new(&options)?;
        let connect = PgConnectOptions::from_str(options.url)
            .map_err(|_| refused("not a PostgreSQL URL: write postgres://user:password@host:5432/database"))?
            .application_name("frontdesk-index")
            .disable_statement_logging();
        let mut connection = connect.connect().await.map_err(connect_failure)?;
        let (collection, bypasses_row_security) = schema::prepare(&mut connection, layout).await?;
        connection.close().await.map_err(failure)?;
        let pool = calls_pool(&options, connect.clone(), bypasses_row_security);
        let movers = Movers::start(connect, collection.clone(), tuning, bypasses_row_security);
        Ok(Self {
            inner: Arc::new(Inner {
                pool,
                generation: Mutex::new(collection.generation.clone()),
                collection,
                movers,
                bypasses_row_security,
            }),
        })
    }
}

/// Connections for what calls ask.
///
/// Plans do not depend on values, as each statement has one that is right for all of them: it is made once. A filtered
/// search of a graph goes on until enough has passed.
fn calls_pool(
    options: &PgvectorOptions<'_>,
    connect: PgConnectOptions,
    bypasses_row_security: bool,
) -> PgPool {
    let connect = connect.options([
        ("statement_timeout", STATEMENT_TIMEOUT),
        ("idle_in_transaction_session_timeout", "60s"),
        ("plan_cache_mode", "force_generic_plan"),
        ("hnsw.iterative_scan", "relaxed_order"),
        ("hnsw.ef_search", &options.ef_search.to_string()),
    ]);
    PgPoolOptions::new()
        .max_connections(options.max_connections)
        .acquire_timeout(WAIT_LIMIT)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                if bypasses_row_security {
                    connection
                        .execute(AssertSqlSafe(format!("set role {ROLE}")))
                        .await?;
                }
                Ok(())
            })
        })
        .connect_lazy_with(connect)
}

/// What a failed login means to the caller.
fn connect_failure(error: sqlx::Error) -> IndexError {
    /// Classes of SQLSTATE: who asks is not let in, or asks for a database that there is not.
    const NOT_LET_IN: [&str; 2] = ["28", "3D"];
    let code = error.as_database_error().and_then(|error| error.code());
    match code {
        Some(code) if NOT_LET_IN.iter().any(|class| code.starts_with(class)) => {
            refused(&format!("PostgreSQL does not let us in: {error}"))
        }
        _ => failure(error),
    }
}

pub(super) fn refused(reason: &str) -> IndexError {
    IndexError::Refused {
        reason: reason.to_owned(),
    }
}
