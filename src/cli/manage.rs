//! Commands that change rows and nothing else, so that they work whether or not a server runs on the same data.

use chrono::TimeDelta;
use serde_json::json;

use super::args::{Cap, CreateKeyArgs, KeyCommand, TenantCommand};
use super::{Failure, failed, print_line};
use crate::app::{adopt_data_dir, open_database};
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::db::{DatabaseUrl, Db};
use crate::id::TenantId;
use crate::tenancy::keys::NewApiKey;
use crate::tenancy::{Caps, TenantState, operator};

/// Brings the schema up to date and tells what that took.
pub(super) async fn migrate(config: &Config, adopts: bool) -> Result<(), Failure> {
    let url = config.database_url();
    if adopts && matches!(url, DatabaseUrl::Sqlite(_)) {
        return Err(Failure::Usage(
            "--adopt-data-dir: only a database in PostgreSQL notes where its files are".to_owned(),
        ));
    }
    let before = Db::applied_migrations(&url)
        .await
        .map_err(|error| failed("database.url: cannot open the database", &error))?;
    let db = open_database(config).await?;
    let adopted = match adopts {
        true => adopt_data_dir(config, &db).await,
        false => Ok(()),
    };
    db.close().await;
    adopted?;
    let after = Db::applied_migrations(&url).await?;
    for migration in after.iter().filter(|migration| !before.contains(migration)) {
        print_line(&format!(
            "applied {:04} {}",
            migration.version, migration.description
        ));
    }
    print_line(&format!("the schema is up to date ({} migrations)", after.len()));
    if adopts {
        print_line(&format!(
            "the files of this database are in {} from now on",
            config.data_dir.display()
        ));
    }
    Ok(())
}

/// Opens the database, and says so when that brought a schema up to date that an older server may be running on.
async fn open_telling(config: &Config) -> Result<Db, Failure> {
    let url = config.database_url();
    let before = Db::applied_migrations(&url)
        .await
        .map_err(|error| failed("database.url: cannot open the database", &error))?;
    let db = open_database(config).await?;
    if !before.is_empty() {
        let news = Db::applied_migrations(&url).await?.len() - before.len();
        if news > 0 {
            tracing::warn!(
                migrations = news,
                "the schema was of an older version and is up to date now: restart a server that still runs with the older program"
            );
        }
    }
    Ok(db)
}

/// `frontdesk tenant …`
pub(super) async fn tenant(config: &Config, command: TenantCommand) -> Result<(), Failure> {
    let db = open_telling(config).await?;
    let done = match command {
        TenantCommand::Create { name, json } => create_tenant(config, &db, &name, json).await,
        TenantCommand::List { json } => list_tenants(&db, json).await,
        TenantCommand::Suspend { id } => set_state(&db, id, TenantState::Suspended).await,
        TenantCommand::Resume { id } => set_state(&db, id, TenantState::Active).await,
        TenantCommand::Limit {
            id,
            tokens,
            cost_micro_usd,
        } => {
            let change = operator::CapChange {
                monthly_tokens: tokens.map(|Cap(cap)| cap),
                monthly_cost_micro_usd: cost_micro_usd.map(|Cap(cap)| cap),
            };
            set_caps(&db, id, change).await
        }
    };
    db.close().await;
    done
}

async fn create_tenant(config: &Config, db: &Db, name: &str, as_json: bool) -> Result<(), Failure> {
    let caps = Caps::of_new_tenants(&config.limits);
    let (tenant, secret) = operator::create_tenant(db, &SystemClock, name, caps).await?;
    if as_json {
        print_line(&json!({ "tenant_id": tenant.id, "api_key": secret }).to_string());
    } else {
        print_line(&format!("tenant {} ({})", tenant.id, tenant.name));
        print_line(&format!("first API key, scope admin (shown once): {secret}"));
    }
    Ok(())
}

async fn list_tenants(db: &Db, as_json: bool) -> Result<(), Failure> {
    let tenants = operator::list_tenants(db).await?;
    if as_json {
        let items: Vec<_> = tenants
            .iter()
            .map(|tenant| json!({ "id": tenant.id, "name": tenant.name, "state": tenant.state.name(), "created_at": tenant.created_at }))
            .collect();
        print_line(&json!(items).to_string());
        return Ok(());
    }
    for tenant in tenants {
        print_line(&format!(
            "{}  {:<9}  {}  {}",
            tenant.id,
            tenant.state.name(),
            tenant.created_at.format("%Y-%m-%d"),
            tenant.name
        ));
    }
    Ok(())
}

async fn set_state(db: &Db, id: TenantId, state: TenantState) -> Result<(), Failure> {
    let changed = operator::set_state(db, &SystemClock, id, state).await?;
    let already = if changed { "" } else { "already " };
    print_line(&format!("tenant {id} is {already}{}", state.name()));
    Ok(())
}

async fn set_caps(db: &Db, id: TenantId, change: operator::CapChange) -> Result<(), Failure> {
    let tenant = operator::set_caps(db, &SystemClock, id, change).await?;
    let told = |cap: Option<i64>, unit: &str| {
        cap.map_or_else(|| format!("any number of {unit}"), |cap| format!("{cap} {unit}"))
    };
    print_line(&format!(
        "tenant {id} may use {} and {} in a month",
        told(tenant.caps.monthly_tokens, "tokens"),
        told(tenant.caps.monthly_cost_micro_usd, "millionths of a US dollar")
    ));
    Ok(())
}

/// `frontdesk key …`
pub(super) async fn key(config: &Config, command: KeyCommand) -> Result<(), Failure> {
    let db = open_telling(config).await?;
    let done = match command {
        KeyCommand::Create(args) => create_key(&db, args).await,
        KeyCommand::Revoke { id } => match operator::revoke_key(&db, &SystemClock, id).await {
            Ok(true) => {
                print_line("the key is revoked");
                Ok(())
            }
            Ok(false) => {
                print_line("the key was revoked already");
                Ok(())
            }
            Err(error) => Err(error.into()),
        },
    };
    db.close().await;
    done
}

async fn create_key(db: &Db, args: CreateKeyArgs) -> Result<(), Failure> {
    let expires_at = args
        .expires_in_days
        .map(|days| SystemClock.now() + TimeDelta::days(days.into()));
    let new = NewApiKey {
        name: args.name,
        scopes: args.scopes,
        chatbot_id: args.chatbot,
        expires_at,
    };
    let (key, secret) = operator::create_key(db, &SystemClock, args.tenant, new).await?;
    if args.json {
        print_line(&json!({ "key_id": key.id, "api_key": secret }).to_string());
    } else {
        print_line(&format!("key {}", key.id));
        print_line(&format!("API key (shown once): {secret}"));
    }
    Ok(())
}
