//! Commands that change rows and nothing else, so that they work whether or not a server runs on the same data.

use chrono::TimeDelta;
use serde_json::json;

use super::args::{CreateKeyArgs, KeyCommand, TenantCommand};
use super::{Failure, failed, print_line};
use crate::app::open_database;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::db::Db;
use crate::id::TenantId;
use crate::tenancy::keys::NewApiKey;
use crate::tenancy::{TenantState, operator};

/// Brings the schema up to date and tells what that took.
pub(super) async fn migrate(config: &Config) -> Result<(), Failure> {
    let url = config.database_url();
    let before = Db::applied_migrations(&url)
        .await
        .map_err(|error| failed("database.url: cannot open the database", &error))?;
    open_database(config).await?.close().await;
    let after = Db::applied_migrations(&url).await?;
    for migration in after.iter().filter(|migration| !before.contains(migration)) {
        print_line(&format!(
            "applied {:04} {}",
            migration.version, migration.description
        ));
    }
    print_line(&format!("the schema is up to date ({} migrations)", after.len()));
    Ok(())
}

/// `frontdesk tenant …`
pub(super) async fn tenant(config: &Config, command: TenantCommand) -> Result<(), Failure> {
    let db = open_database(config).await?;
    let done = match command {
        TenantCommand::Create { name, json } => create_tenant(&db, &name, json).await,
        TenantCommand::List { json } => list_tenants(&db, json).await,
        TenantCommand::Suspend { id } => set_state(&db, id, TenantState::Suspended).await,
        TenantCommand::Resume { id } => set_state(&db, id, TenantState::Active).await,
    };
    db.close().await;
    done
}

async fn create_tenant(db: &Db, name: &str, as_json: bool) -> Result<(), Failure> {
    let (tenant, secret) = operator::create_tenant(db, &SystemClock, name).await?;
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

/// `frontdesk key …`
pub(super) async fn key(config: &Config, command: KeyCommand) -> Result<(), Failure> {
    let db = open_database(config).await?;
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
