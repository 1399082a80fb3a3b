//! The wall between tenants: statements run in a transaction that is for one tenant, and each has that tenant's id as its
//! first parameter.
//!
//! The transaction sets the tenant that row-level security asks for, so that a statement that forgets its `tenant_id`
//! still finds no other tenant's points. A transaction of somebody else is one for a tenant while its index is changed, and
//! as it was afterwards.

use std::time::{Duration, Instant};

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{
    Arguments as _, AssertSqlSafe, Encode, FromRow, PgConnection, PgPool, Postgres, Transaction, Type,
};
use tokio::time::timeout;

use super::open::WAIT_LIMIT;
use super::schema::ROLE;
use super::{failure, unavailable};
use crate::TenantId;
use crate::index::IndexError;

/// So long, a connection that proves dead is replaced by another one: a restart of the server leaves as many as rested.
const RETRY_LIMIT: Duration = Duration::from_secs(2);

/// An open transaction, while its statements are for one tenant.
pub(super) struct Tenant<'c> {
    tenant_id: TenantId,
    connection: &'c mut PgConnection,
}

/// A transaction for one tenant; rolled back unless committed.
pub(super) struct TenantTransaction {
    tenant_id: TenantId,
    transaction: Transaction<'static, Postgres>,
}

/// A statement with its values; `$1` is the tenant.
pub(super) struct Statement {
    text: String,
    values: PgArguments,
    bound: usize,
}

impl TenantTransaction {
    /// All its statements see the tables as they are at the first one.
    pub(super) async fn read(pool: &PgPool, tenant_id: TenantId) -> Result<Self, IndexError> {
        Self::begin(pool, tenant_id, "begin isolation level repeatable read read only").await
    }

    pub(super) async fn write(pool: &PgPool, tenant_id: TenantId) -> Result<Self, IndexError> {
        Self::begin(pool, tenant_id, "begin").await
    }

    /// In a task of its own: a caller who stops waiting in the midst of it would leave a connection in the pool whose
    /// transaction is open, without sqlx knowing of it. And nobody waits for a server that says nothing: the limit of statements
    /// is the server's own.
    async fn begin(pool: &PgPool, tenant_id: TenantId, begin: &str) -> Result<Self, IndexError> {
        let text = format!("{begin}; set local frontdesk_index.tenant_id = '{tenant_id}'");
        let pool = pool.clone();
        let begun = tokio::spawn(async move {
            let started = Instant::now();
            loop {
                match pool.begin_with(AssertSqlSafe(text.clone())).await {
                    // A connection that rested while the server went away: the next one may be good, nothing is done yet.
                    Err(error) if is_dead(&error) && started.elapsed() < RETRY_LIMIT => {}
                    begun => return begun,
                }
            }
        });
        let transaction = match timeout(WAIT_LIMIT, begun).await {
            Ok(Ok(begun)) => begun.map_err(failure)?,
            Ok(Err(error)) => return Err(unavailable("the call was ended", Some(error.into()))),
            Err(_) => return Err(failure(sqlx::Error::PoolTimedOut)),
        };
        Ok(Self {
            tenant_id,
            transaction,
        })
    }

    pub(super) fn tenant(&mut self) -> Tenant<'_> {
        Tenant {
            tenant_id: self.tenant_id,
            connection: &mut self.transaction,
        }
    }

    pub(super) async fn commit(self) -> Result<(), IndexError> {
        self.transaction.commit().await.map_err(failure)
    }
}

impl<'c> Tenant<'c> {
    /// The caller's transaction, between [`Before::enter`] and [`Before::restore`].
    pub(super) const fn of(connection: &'c mut PgConnection, tenant_id: TenantId) -> Self {
        Self {
            tenant_id,
            connection,
        }
    }

    /// A statement whose text may name the tenant as `$1`.
    pub(super) fn statement(&self, text: impl Into<String>) -> Statement {
        let mut statement = Statement {
            text: text.into(),
            values: PgArguments::default(),
            bound: 0,
        };
        statement.bind(self.tenant_id.0);
        statement
    }

    pub(super) async fn fetch<Row>(&mut self, statement: Statement) -> Result<Vec<Row>, IndexError>
    where
        Row: Send + Unpin + for<'r> FromRow<'r, PgRow>,
    {
        sqlx::query_as_with(AssertSqlSafe(statement.text), statement.values)
            .fetch_all(&mut *self.connection)
            .await
            .map_err(failure)
    }

    /// How many rows it changed.
    pub(super) async fn execute(&mut self, statement: Statement) -> Result<u64, IndexError> {
        let done = sqlx::query_with(AssertSqlSafe(statement.text), statement.values)
            .execute(&mut *self.connection)
            .await
            .map_err(failure)?;
        Ok(done.rows_affected())
    }

    /// The connection itself, for statements that make or drop tables and so take no parameters.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        self.connection
    }
}

/// What a transaction of somebody else was before it was one for a tenant.
pub(super) struct Before {
    /// `none` for the login itself.
    role: String,
}

impl Before {
    /// Makes the caller's transaction one for `tenant_id`, also where `bypasses_row_security` says that its login is not held by
    /// row-level security.
    pub(super) async fn enter(
        connection: &mut PgConnection,
        tenant_id: TenantId,
        bypasses_row_security: bool,
    ) -> Result<Self, IndexError> {
        let role: String = sqlx::query_scalar("select current_setting('role')")
            .fetch_one(&mut *connection)
            .await
            .map_err(failure)?;
        let entered = if bypasses_row_security { ROLE } else { &role };
        set(connection, &tenant_id.to_string(), entered).await?;
        Ok(Self { role })
    }

    /// Gives the transaction back as it was.
    pub(super) async fn restore(self, connection: &mut PgConnection) -> Result<(), IndexError> {
        set(connection, "", &self.role).await
    }
}

/// Sets for whom and as whom the rest of the transaction is.
async fn set(connection: &mut PgConnection, tenant_id: &str, role: &str) -> Result<(), IndexError> {
    sqlx::query("select set_config('frontdesk_index.tenant_id', $1, true), set_config('role', $2, true)")
        .bind(tenant_id)
        .bind(role)
        .execute(connection)
        .await
        .map_err(failure)?;
    Ok(())
}

impl Statement {
    /// Adds a value and returns what the text calls it.
    pub(super) fn bind<'t, T>(&mut self, value: T) -> String
    where
        T: Encode<'t, Postgres> + Type<Postgres>,
    {
        self.values
            .add(value)
            .expect("ids, numbers, texts and vectors of these lengths can be encoded");
        self.bound += 1;
        format!("${}", self.bound)
    }

    pub(super) fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }
}

/// Whether the connection is at its end rather than the request wrong: it broke, or the server said good-bye over it.
fn is_dead(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code.starts_with("57P")),
        _ => false,
    }
}
