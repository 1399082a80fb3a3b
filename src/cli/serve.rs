//! `frontdesk serve`: from a configuration to a running server, and back to nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use super::args::{Role, ServeArgs};
use super::{Failure, demo, failed, print_line};
use crate::app::{App, StartError};
use crate::config::Config;
use crate::http::{router, server};
use crate::jobs;

/// What the first tenant is called, without and with the demo.
const FIRST_TENANT: &str = "default";
const DEMO_TENANT: &str = "Demo";

/// The usual exit code of a program that a signal ended.
const ENDED_BY_SIGNAL: i32 = 130;

/// Runs until SIGTERM or SIGINT, or until a part of the server ends by itself.
pub(super) async fn serve(config: Config, args: ServeArgs) -> Result<(), Failure> {
    if let Some(folder) = &args.demo
        && !folder.is_dir()
    {
        return Err(Failure::Usage(format!(
            "--demo: there is no folder {}",
            folder.display()
        )));
    }
    if args.role != Role::All && !config.is_shareable() {
        return Err(Failure::Configuration(
            "--role: API and workers are apart only where they share rows, index and files, and SQLite and the embedded index belong to one process: use --role all, or set database.url to a PostgreSQL and index.backend to \"pgvector\" or \"qdrant\""
                .to_owned(),
        ));
    }
    let mut signals = Signals::listen()?;
    allow_many_files();
    let app = tokio::select! {
        built = build(config, args.role) => built?,
        () = signals.next() => return Ok(()),
    };
    let outcome = run(&app, &args, &mut signals).await;
    tokio::select! {
        () = app.close() => {}
        () = signals.next() => exit_at_once(),
    }
    outcome
}

async fn build(config: Config, role: Role) -> Result<App, StartError> {
    match role {
        Role::Api => App::build_to_answer(config).await,
        Role::All | Role::Worker => App::build(config).await,
    }
}

async fn run(app: &App, args: &ServeArgs, signals: &mut Signals) -> Result<(), Failure> {
    let grace = Duration::from_secs(app.config.server.shutdown_grace_s);
    let mut parts = JoinSet::new();
    if args.role != Role::Worker {
        let (listener, address) = open_port(app.config.server.listen)?;
        let first_key = demo::first_tenant(
            app,
            if args.demo.is_some() {
                DEMO_TENANT
            } else {
                FIRST_TENANT
            },
        )
        .await?;
        let stop = app.stopping.clone();
        parts.spawn(server::serve(
            router::router(app.clone()),
            listener,
            (&app.config.server).into(),
            stop,
            app.ending.clone(),
            grace,
        ));
        print_line(&format!("listening on http://{address}"));
        if let Some(folder) = &args.demo {
            start_demo(app, first_key, folder, address);
        }
    }
    if args.role != Role::Api {
        parts.spawn(jobs::runner::run(app.clone(), app.stopping.clone(), grace));
    }
    if args.role == Role::Worker {
        print_line("working");
    }
    let (looking, stop) = (app.clone(), app.stopping.clone());
    parts.spawn(async move { looking.keep_makings(stop).await });

    let ended_by_itself = tokio::select! {
        () = signals.next() => false,
        Some(_) = parts.join_next() => true,
    };
    tracing::info!(
        grace_s = grace.as_secs(),
        "stopping: what runs may finish, a second signal ends it at once"
    );
    app.stopping.cancel();
    tokio::select! {
        () = async { while parts.join_next().await.is_some() {} } => {}
        () = signals.next() => exit_at_once(),
    }
    if ended_by_itself {
        return Err(Failure::Failed(
            "a part of the server ended by itself; the log has the details".to_owned(),
        ));
    }
    tracing::info!("stopped");
    Ok(())
}

fn open_port(wanted: SocketAddr) -> Result<(TcpListener, SocketAddr), Failure> {
    let listener = server::bind(wanted).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            Failure::InUse(format!("server.listen: another process listens on {wanted}: stop it, or choose another address with --listen (port 0 picks a free one)"))
        }
        _ => failed(format!("server.listen: cannot listen on {wanted}"), &error),
    })?;
    let address = listener
        .local_addr()
        .map_err(|error| failed("server.listen", &error))?;
    Ok((listener, address))
}

/// Feeds the demo chatbot beside the running server, if this start made the first tenant.
fn start_demo(app: &App, first_key: Option<String>, folder: &Path, address: SocketAddr) {
    let Some(key) = first_key else {
        tracing::info!(
            "there is a tenant already: the demo is left out; it comes with an empty data folder, see --data-dir"
        );
        return;
    };
    let (app, folder) = (app.clone(), folder.to_owned());
    tokio::spawn(async move {
        tokio::select! {
            fed = demo::feed(&app, &key, &folder, address) => {
                if let Err(error) = fed {
                    tracing::error!(error = ?error, "the demo chatbot cannot be set up");
                }
            }
            () = app.stopping.cancelled() => {}
        }
    });
}

/// Lets this process hold as many connections as the system allows it; the usual default of 1,024 is for people.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    ) {
        tracing::warn!(error = %error, "cannot raise the limit of open files: fewer connections may be open than configured");
    }
}

/// The signals that ask this process to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let take = |kind| signal(kind).map_err(|error| failed("cannot listen for signals", &error));
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a second signal asks for just that; leases of running jobs lapse by themselves"
)]
fn exit_at_once() {
    std::process::exit(ENDED_BY_SIGNAL);
}
