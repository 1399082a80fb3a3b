//! The short commands, and what their exit codes tell.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::harness::stored::stored_files;

#[tokio::test]
async fn all_problems_of_a_configuration_are_told_together_before_anything_is_made() {
    let (folder, data) = data_dir();
    let file = folder.path().join("my.toml");
    std::fs::write(&file, "colour = 'red'\n[jobs]\nworkers = 0\n").expect("written");

    let output = run(
        &data,
        &[
            "serve",
            "--config",
            file.to_str().expect("text"),
            "--listen",
            "everywhere",
            "--set",
            "log.level=a=b=c",
        ],
    )
    .await;

    assert_eq!(output.status.code(), Some(3));
    let listed = told(&output);
    for setting in ["colour", "server.listen"] {
        assert!(listed.contains(setting), "{setting} is missing in {listed}");
    }
    assert_eq!(output.stdout, b"");
    assert!(!data.exists(), "a data folder was made");
    let output = run(
        &data,
        &[
            "serve",
            "--config",
            file.to_str().expect("text"),
            "--set",
            "log.level=a=b=c",
        ],
    )
    .await;
    assert_eq!(output.status.code(), Some(3));
    for setting in ["colour", "jobs.workers", "log.level"] {
        assert!(
            told(&output).contains(setting),
            "{setting} is missing in {}",
            told(&output)
        );
    }
}

#[tokio::test]
async fn scripts_make_tenants_and_keys_with_and_without_a_server() {
    let (_folder, data) = data_dir();
    let acme = run_for_json(&data, &["tenant", "create", "--name", "acme", "--json"]).await;
    let server = Server::start(&data, &[]).await;
    assert_eq!(server.first_key, None, "there is a tenant already");
    let globex = run_for_json(&data, &["tenant", "create", "--name", "globex", "--json"]).await;
    let tenant_id = globex["tenant_id"].as_str().expect("an id");

    let key = run_for_json(
        &data,
        &[
            "key",
            "create",
            "--tenant",
            tenant_id,
            "--scope",
            "ingest",
            "--scope",
            "chat",
            "--expires-in-days",
            "1",
            "--json",
        ],
    )
    .await;

    for made in [&acme, &globex] {
        let answer = server
            .get("/api/chatbots", made["api_key"].as_str().expect("a key"))
            .await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let (key_id, secret) = (
        key["key_id"].as_str().expect("an id"),
        key["api_key"].as_str().expect("a key"),
    );
    assert!(
        server
            .get("/api/chatbots", secret)
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        server.get("/api/audit", secret).await.starts_with("HTTP/1.1 403"),
        "more than its scopes"
    );

    assert_eq!(
        run_well(&data, &["key", "revoke", key_id]).await,
        "the key is revoked\n"
    );

    assert!(
        server
            .get("/api/chatbots", secret)
            .await
            .starts_with("HTTP/1.1 401")
    );
    assert_eq!(
        run_well(&data, &["key", "revoke", key_id]).await,
        "the key was revoked already\n"
    );
    let tenants = run_for_json(&data, &["tenant", "list", "--json"]).await;
    let names: Vec<_> = tenants
        .as_array()
        .expect("a list")
        .iter()
        .map(|tenant| tenant["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(names, ["acme", "globex"]);
    server.stop().await;
}

#[tokio::test]
async fn a_tenant_is_closed_and_opened_again_while_the_server_runs() {
    let (_folder, data) = data_dir();
    let acme = run_for_json(&data, &["tenant", "create", "--name", "acme", "--json"]).await;
    let (id, key) = (
        acme["tenant_id"].as_str().expect("an id"),
        acme["api_key"].as_str().expect("a key"),
    );
    let server = Server::start(&data, &[]).await;

    let closed = run_well(&data, &["tenant", "suspend", id]).await;
    assert_eq!(closed, format!("tenant {id} is suspended\n"));
    let answer = server.get("/api/chatbots", key).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let closed = run_well(&data, &["tenant", "suspend", id]).await;
    assert_eq!(closed, format!("tenant {id} is already suspended\n"));

    run_well(&data, &["tenant", "resume", id]).await;
    let answer = server.get("/api/audit", key).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("tenant.set_state"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn the_operator_caps_what_a_tenant_may_use_in_a_month() {
    let (_folder, data) = data_dir();
    let acme = run_for_json(&data, &["tenant", "create", "--name", "acme", "--json"]).await;
    let id = acme["tenant_id"].as_str().expect("an id");

    let capped = run_well(&data, &["tenant", "limit", id, "--tokens", "1000"]).await;
    assert_eq!(
        capped,
        format!("tenant {id} may use 1000 tokens and any number of millionths of a US dollar in a month\n")
    );
    let lifted = run_well(
        &data,
        &["tenant", "limit", id, "--tokens", "none", "--cost-micro-usd", "5"],
    )
    .await;
    assert!(
        lifted.contains("any number of tokens and 5 millionths"),
        "{lifted}"
    );

    for wrong in [
        &["tenant", "limit", id][..],
        &["tenant", "limit", id, "--tokens", "-1"],
    ] {
        assert_eq!(run(&data, wrong).await.status.code(), Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn exit_codes_tell_what_kind_of_failure_it_was() {
    let (_folder, data) = data_dir();
    let nobody = uuid::Uuid::nil().to_string();

    for (args, code) in [
        (vec!["tenant", "create", "--name", ""], 2),
        (
            vec!["key", "create", "--tenant", &nobody, "--scope", "everything"],
            2,
        ),
        (vec!["key", "create", "--tenant", &nobody, "--scope", "chat"], 4),
        (vec!["key", "revoke", &nobody], 4),
        (
            vec![
                "ask",
                "--chatbot",
                &nobody,
                "Hello?",
                "--set",
                "server.listen=127.0.0.1:0",
            ],
            4,
        ),
        (
            vec![
                "ask",
                "--chatbot",
                &nobody,
                "Hello?",
                "--server",
                "http://127.0.0.1:1",
            ],
            1,
        ),
        (vec!["health", "--server", "http://127.0.0.1:1"], 1),
        (vec!["health", "--set", "server.listen=127.0.0.1:0"], 2),
        (vec!["serve", "--demo", "/nonexistent"], 2),
        (vec!["migrate", "--set", "database.url=mysql://x"], 3),
        (
            vec![
                "migrate",
                "--set",
                "database.url=postgres://nobody@127.0.0.1:1/nothing",
            ],
            1,
        ),
    ] {
        let output = run(&data, &args).await;

        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", told(&output));
        assert_eq!(output.stdout, b"", "{args:?}");
        assert!(!told(&output).is_empty(), "{args:?} says nothing");
    }
}

/// The first tenant's chatbot, made by a server that has stopped.
async fn make_chatbot(data: &Path) -> String {
    let server = Server::start(data, &[]).await;
    let key = server.first_key.clone().expect("the first key");
    let made = server
        .post("/api/chatbots", &key, "application/json", r#"{"name":"Desk"}"#)
        .await;
    let body = made.split_once("\r\n\r\n").expect("a body").1;
    let made: Value = serde_json::from_str(body).expect("JSON");
    server.stop().await;
    made["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn files_are_held_against_the_rows() {
    let (folder, data) = data_dir();
    let file = folder.path().join("returns.md");
    std::fs::write(&file, "Goods may be returned within thirty days.").expect("written");
    let chatbot = make_chatbot(&data).await;
    run_well(
        &data,
        &["ingest", "--chatbot", &chatbot, file.to_str().expect("text")],
    )
    .await;
    let files = stored_files(&data);
    let [original] = files.as_slice() else {
        panic!("one file, not {files:?}");
    };
    let stray = original.with_file_name(Uuid::now_v7().to_string());
    std::fs::write(&stray, "nobody's").expect("written");
    let opened = File::options().write(true).open(&stray).expect("it is there");
    let written = std::fs::metadata(original).and_then(|metadata| metadata.modified());
    let long_ago = written.expect("a time") - Duration::from_secs(3_700);
    opened.set_modified(long_ago).expect("made older");

    let verified = run_well(&data, &["index", "verify"]).await;
    assert!(verified.contains("files: 0 lost, 1 of nothing"), "{verified}");
    assert!(stray.exists(), "who looks removes nothing");
    let repaired = run_well(&data, &["index", "repair"]).await;
    assert!(repaired.contains("files: 0 lost, 1 removed"), "{repaired}");
    assert!(!stray.exists());

    let tenant = original.parent().and_then(Path::file_name);
    let tenant = tenant.and_then(OsStr::to_str).expect("a folder for each tenant");
    let aside = folder.path().join("aside");
    std::fs::rename(original, &aside).expect("moved");
    for command in ["verify", "repair"] {
        let lost = run(&data, &["index", command]).await;
        assert_eq!(lost.status.code(), Some(6), "{}", told(&lost));
        assert!(
            told(&lost).contains(&format!("of tenant {tenant}")),
            "{}",
            told(&lost)
        );
    }
    std::fs::rename(&aside, original).expect("moved back");
    let verified = run_well(&data, &["index", "verify"]).await;
    assert!(verified.contains("files: 0 lost, 0 of nothing"), "{verified}");
}

#[tokio::test]
async fn the_index_is_compared_where_no_server_has_it() {
    let (_folder, data) = data_dir();
    run_for_json(&data, &["tenant", "create", "--name", "acme", "--json"]).await;

    for command in ["verify", "repair"] {
        let output = run(&data, &["index", command]).await;
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            if command == "verify" {
                "0 compared, 0 differing\nfiles: 0 lost, 0 of nothing"
            } else {
                "0 compared, 0 mended\nfiles: 0 lost, 0 removed"
            }
        );
    }
    let _server = Server::start(&data, &[]).await;
    let output = run(&data, &["index", "verify"]).await;
    assert_eq!(output.status.code(), Some(5));
    assert!(
        told(&output).contains("stop the server first"),
        "{}",
        told(&output)
    );
}

/// The words of the one tenant.
fn first_segment(data: &Path) -> PathBuf {
    let folders_of = |dir: &Path| {
        let entries = std::fs::read_dir(dir).expect("a folder").flatten();
        let paths = entries.map(|entry| entry.path());
        paths
            .filter(|path| path.extension().is_none_or(|end| end == "segment"))
            .collect::<Vec<_>>()
    };
    let collections = folders_of(&data.join("index"));
    let shards = collections
        .iter()
        .filter(|path| path.is_dir())
        .flat_map(|collection| folders_of(collection));
    let words = shards
        .map(|shard| shard.join("keywords"))
        .filter(|words| words.is_dir());
    let mut segments = words.flat_map(|words| folders_of(&words));
    segments.next().expect("a segment")
}

fn tear(segment: &mut Vec<u8>) {
    segment.truncate(segment.len() / 2);
}

/// Overwrites a byte of the first term's postings, which opening does not read.
fn flip(segment: &mut [u8]) {
    segment[1] ^= 0x40;
}

#[tokio::test]
async fn a_lost_or_damaged_index_is_told_and_repaired_from_the_command_line() {
    let (folder, data) = data_dir();
    let file = folder.path().join("returns.md");
    std::fs::write(&file, "Goods may be returned within 30 days.").expect("written");
    let chatbot = make_chatbot(&data).await;
    let nowhere = ["--set", "server.listen=127.0.0.1:0"];
    let ingest = [
        "ingest",
        "--chatbot",
        &chatbot,
        file.to_str().expect("text"),
        nowhere[0],
        nowhere[1],
    ];
    run_well(&data, &ingest).await;
    run_well(&data, &["index", "verify"]).await;
    std::fs::remove_dir_all(data.join("index")).expect("removed");

    let question = "Within how many days may goods be returned?";
    let asked = run(
        &data,
        &["ask", "--chatbot", &chatbot, question, nowhere[0], nowhere[1]],
    )
    .await;
    assert_eq!(
        asked.status.code(),
        Some(1),
        "no \"I don't know\": {}",
        told(&asked)
    );
    let lost = run(&data, &["index", "verify"]).await;
    assert_eq!(lost.status.code(), Some(1), "{}", told(&lost));
    assert!(
        told(&lost).contains("it is gone: frontdesk index repair"),
        "{}",
        told(&lost)
    );
    let lying_there = std::fs::read_dir(data.join("index")).map_or(0, |entries| entries.count());
    assert_eq!(lying_there, 0, "who looks makes none");

    let repaired = run_well(&data, &["index", "repair"]).await;
    assert!(repaired.contains("1 compared, 1 mended"), "{repaired}");
    let agreed = run_well(&data, &["index", "verify"]).await;
    assert!(agreed.contains("1 compared, 0 differing"), "{agreed}");
    run_well(
        &data,
        &["ask", "--chatbot", &chatbot, question, nowhere[0], nowhere[1]],
    )
    .await;
    for (damage, code) in [(tear as fn(&mut Vec<u8>), 1), (|segment| flip(segment), 6)] {
        let segment = first_segment(&data);
        let mut bytes = std::fs::read(&segment).expect("a segment");
        damage(&mut bytes);
        std::fs::write(&segment, &bytes).expect("written");
        for _ in 0..2 {
            let damaged = run(&data, &["index", "verify"]).await;
            assert_eq!(damaged.status.code(), Some(code), "{}", told(&damaged));
            let told = told(&damaged);
            assert!(
                told.contains("shard-") && told.contains("frontdesk index repair"),
                "{told}"
            );
            assert_eq!(std::fs::read(&segment).expect("left as it is"), bytes);
        }
        let repaired = run_well(&data, &["index", "repair"]).await;
        assert!(repaired.contains("1 compared, 1 mended"), "{repaired}");
        let agreed = run_well(&data, &["index", "verify"]).await;
        assert!(agreed.contains("1 compared, 0 differing"), "{agreed}");
    }
    let nobody = uuid::Uuid::nil().to_string();
    for command in ["verify", "repair"] {
        let output = run(&data, &["index", command, "--tenant", &nobody]).await;
        assert_eq!(output.status.code(), Some(4), "{}", told(&output));
    }
}

#[tokio::test]
async fn migrating_tells_what_it_did() {
    let (_folder, data) = data_dir();

    let first = run_well(&data, &["migrate"]).await;
    let second = run_well(&data, &["migrate"]).await;

    assert!(first.starts_with("applied 0001 "), "{first}");
    assert!(second.starts_with("the schema is up to date"), "{second}");
    assert!(first.ends_with(&second), "{first}");
}

#[tokio::test]
async fn the_openapi_document_and_the_health_of_a_server_can_be_asked_for() {
    let (_folder, data) = data_dir();
    let server = Server::start(&data, &[]).await;

    let document = run_for_json(&data, &["openapi"]).await;
    let health = run(
        &data,
        &["health", "--set", &format!("server.listen={}", server.address)],
    )
    .await;

    assert!(document["paths"]["/api/chat/message"].is_object());
    assert_eq!(health.status.code(), Some(0), "{}", told(&health));
    server.stop().await;
}
