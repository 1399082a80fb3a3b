//! The first start: a first tenant with its key, and, where asked for, a chatbot that already knows something.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncReadExt as _;

use super::{client, print_line};
use crate::app::App;
use crate::chatbots::{self, Settings};
use crate::error::{Error, Result};
use crate::http::access::{Caller, Reach};
use crate::id::{ChatbotId, DocumentId};
use crate::knowledge::files::clean_name;
use crate::knowledge::{self, Document, DocumentState, NewFile};
use crate::tenancy::audit::Origin;
use crate::tenancy::{Caps, keys, operator};

/// How long the demo's documents may take before the question is printed all the same.
const INDEXING_LIMIT: Duration = Duration::from_secs(120);

/// How often to look whether they are done.
const INDEXING_POLL: Duration = Duration::from_millis(200);

/// Bytes read from a file at once.
const READ_BYTES: usize = 64 * 1024;

/// What the demo suggests to ask; `fixtures/demo` has the answer.
const QUESTION: &str = "How long can I return something?";

/// Makes the first tenant where there is none, and prints its key, this once. Returns the key when it did.
pub(super) async fn first_tenant(app: &App, name: &str) -> Result<Option<String>> {
    if operator::has_tenants(&app.db).await? {
        tracing::info!(
            "keys are shown once: `frontdesk tenant list` shows the tenants, `frontdesk key create --tenant ID --scope admin` makes another key"
        );
        return Ok(None);
    }
    let (tenant, secret) = operator::create_tenant(
        &app.db,
        &*app.clock,
        name,
        Caps::of_new_tenants(&app.config.limits),
    )
    .await?;
    tracing::info!(tenant.id = %tenant.id, name, "there was no tenant: the first one is made");
    print_line(&format!("first API key (shown once): {secret}"));
    Ok(Some(secret))
}

/// Makes a chatbot for the holder of `secret`, feeds it the files of `folder`, and prints how to ask it something.
pub(super) async fn feed(app: &App, secret: &str, folder: &Path, address: SocketAddr) -> Result<()> {
    let caller = keys::authenticate(app, secret)
        .await?
        .ok_or_else(|| Error::internal("the key of the first tenant does not open it"))?;
    let reach = Reach::whole(caller.tenant_id);
    let chatbot = chatbots::create(
        app,
        caller.tenant_id,
        Settings::named("Demo assistant".to_owned()),
        &caller.actor,
        &Origin::default(),
    )
    .await?;
    let documents = upload(app, &caller, reach, chatbot.id, folder).await?;
    let ids: Vec<DocumentId> = documents.iter().map(|document| document.id).collect();
    match tokio::time::timeout(INDEXING_LIMIT, wait_until_indexed(app, reach, &ids)).await {
        Ok(indexed) => {
            tracing::info!(chatbot.id = %chatbot.id, documents = ids.len(), indexed = indexed?, "the demo chatbot is ready")
        }
        Err(_) => tracing::warn!(chatbot.id = %chatbot.id, "the demo's documents are still being read"),
    }
    print_line(&question(secret, chatbot.id, address));
    Ok(())
}

async fn upload(
    app: &App,
    caller: &Caller,
    reach: Reach,
    chatbot_id: ChatbotId,
    folder: &Path,
) -> Result<Vec<Document>> {
    let mut files = Vec::new();
    for path in list_files(folder).await? {
        files.push(stage(app, &path).await?);
    }
    if files.is_empty() {
        return Err(Error::invalid(
            "empty_folder",
            "demo",
            format!("there is no file in {}", folder.display()),
        ));
    }
    let (labels, origin) = (knowledge::Labels::default(), Origin::default());
    knowledge::upload(app, reach, chatbot_id, files, labels, &caller.actor, &origin).await
}

/// The folder's own files, by name. Hidden ones and folders in it are left out.
async fn list_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let mut entries = tokio::fs::read_dir(folder).await?;
    while let Some(entry) = entries.next_entry().await? {
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && tokio::fs::metadata(entry.path()).await?.is_file() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

async fn stage(app: &App, path: &Path) -> Result<NewFile> {
    let mut file = tokio::fs::File::open(path).await?;
    let mut incoming = app.files.receive().await?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let length = file.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        incoming.write(&buffer[..length]).await?;
    }
    let file_name = clean_name(&path.file_name().unwrap_or_default().to_string_lossy());
    Ok(NewFile {
        file_name,
        staged: incoming.finish().await?,
    })
}

/// Waits until none of the documents is under way; returns how many were indexed.
async fn wait_until_indexed(app: &App, reach: Reach, ids: &[DocumentId]) -> Result<usize> {
    let mut indexed = 0;
    for id in ids {
        loop {
            let document = knowledge::get_document(app, reach, *id).await?;
            match document.state {
                DocumentState::Queued | DocumentState::Processing => tokio::time::sleep(INDEXING_POLL).await,
                DocumentState::Indexed => {
                    indexed += 1;
                    break;
                }
                DocumentState::Failed { code, message } => {
                    tracing::warn!(document.id = %id, file_name = document.file_name, code, message, "a demo file cannot be read");
                    break;
                }
            }
        }
    }
    Ok(indexed)
}

/// A command that can be pasted into a shell as it is.
fn question(secret: &str, chatbot_id: ChatbotId, address: SocketAddr) -> String {
    let body = json!({ "chatbot_id": chatbot_id, "message": QUESTION }).to_string();
    format!(
        "\nask the demo chatbot (add \"stream\": true to watch it answer):\n\n  curl {}api/chat/message \\\n    -H 'Authorization: Bearer {secret}' \\\n    -H 'Content-Type: application/json' \\\n    -d '{body}'\n",
        client::reachable(address)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_can_be_pasted() {
        let text = question(
            "fdk_x",
            ChatbotId::new(),
            "0.0.0.0:81".parse().expect("an address"),
        );

        assert!(
            text.contains("curl http://127.0.0.1:81/api/chat/message \\\n"),
            "{text}"
        );
        assert_eq!(text.matches('\'').count(), 6, "three quoted arguments: {text}");
    }
}
