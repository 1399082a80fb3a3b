//! `frontdesk serve`: start, first key, demo, stop.

use super::*;

#[tokio::test]
async fn the_first_start_shows_a_key_that_works_and_no_later_start_shows_one() {
    let (_folder, data) = data_dir();

    let server = Server::start(&data, &[]).await;

    let key = server.first_key.clone().expect("the first start shows a key");
    assert!(
        server
            .get("/api/chatbots", &key)
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        server.log().contains("search goes by keywords alone"),
        "{}",
        server.log()
    );
    assert!(!server.log().contains(&key), "the key is in the log");
    server.stop().await;
    let server = Server::start(&data, &[]).await;
    assert_eq!(server.first_key, None);
    assert!(
        server
            .get("/api/chatbots", &key)
            .await
            .starts_with("HTTP/1.1 200")
    );
    server.stop().await;
}

#[tokio::test]
async fn a_second_server_is_told_what_is_in_use_and_what_to_do() {
    let (_folder, data) = data_dir();
    let (_other_folder, other_data) = data_dir();
    let server = Server::start(&data, &[]).await;

    let same_folder = run(&data, &["serve", "--listen", "127.0.0.1:0"]).await;
    let same_address = run(&other_data, &["serve", "--listen", &server.address]).await;

    assert_eq!(same_folder.status.code(), Some(5), "{}", told(&same_folder));
    assert!(
        told(&same_folder).contains("in use by another frontdesk process")
            && told(&same_folder).contains("--data-dir"),
        "{}",
        told(&same_folder)
    );
    assert_eq!(same_address.status.code(), Some(5), "{}", told(&same_address));
    assert!(
        told(&same_address).contains("--listen"),
        "{}",
        told(&same_address)
    );
    assert_eq!(same_address.stdout, b"", "no key is shown by a start that fails");
    server.stop().await;
}

#[tokio::test]
async fn a_request_that_runs_when_the_server_is_stopped_gets_its_answer() {
    let (_folder, data) = data_dir();
    let mut server = Server::start(&data, &[]).await;
    let key = server.first_key.clone().expect("the first key");
    let body = r#"{"name":"Late"}"#;
    let mut request = server.begin_request(&key, body).await;

    server.signal(Signal::TERM);
    server.logged("stopping").await;
    request.write_all(body.as_bytes()).await.expect("written");

    let answer = read_all(request).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert_eq!(server.exit_code().await, Some(0), "{}", server.log());
    assert!(
        TcpStream::connect(&server.address).await.is_err(),
        "the port is closed"
    );
}

#[tokio::test]
async fn a_second_signal_ends_the_server_at_once() {
    let (_folder, data) = data_dir();
    let mut server = Server::start(&data, &["--set", "server.shutdown_grace_s=600"]).await;
    let key = server.first_key.clone().expect("the first key");
    let _request = server.begin_request(&key, r#"{"name":"Never sent"}"#).await;
    server.signal(Signal::INT);
    server.logged("stopping").await;

    server.signal(Signal::INT);

    assert_eq!(server.exit_code().await, Some(130));
}

#[tokio::test]
async fn api_and_workers_are_not_apart_where_the_index_belongs_to_one_process() {
    for role in ["api", "worker"] {
        let (_folder, data) = data_dir();

        let output = run(&data, &["serve", "--role", role]).await;

        assert_eq!(output.status.code(), Some(3), "{role}");
        assert!(told(&output).contains("--role all"), "{}", told(&output));
        assert!(!data.exists(), "a data folder was made");
    }
}

#[tokio::test]
async fn the_demo_declines_what_it_knows_nothing_of() {
    let (_folder, data) = data_dir();
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/demo");
    let model = concat!(
        "embedding.model_dir=",
        env!("CARGO_MANIFEST_DIR"),
        "/models/all-MiniLM-L6-v2"
    );
    let mut server = Server::start(&data, &["--demo", demo, "--set", model]).await;
    let chatbot_id = chatbot_of_demo(&mut server).await;
    let url = format!("http://{}", server.address);

    for (question, source) in [
        ("How long can I return something?", "extractive"),
        ("Which wood are the tables made of?", "extractive"),
        ("How tall is the Eiffel Tower?", "no_answer"),
        ("Who won the football world cup?", "no_answer"),
    ] {
        let ask = [
            "ask",
            "--chatbot",
            &chatbot_id,
            question,
            "--json",
            "--server",
            &url,
        ];
        let answer = run_for_json(&data, &ask).await;
        assert_eq!(answer["source"], source, "{question}: {answer}");
    }
    server.stop().await;
}

/// Reads what a server that made the demo prints, and takes the chatbot's id out of it.
async fn chatbot_of_demo(server: &mut Server) -> String {
    let mut pasted = String::new();
    while !pasted.ends_with("}'\n") {
        pasted.push_str(&server.line().await);
        pasted.push('\n');
    }
    let key = server.first_key.as_deref().expect("the first key");
    assert!(pasted.contains(key), "{pasted}");
    let id = pasted
        .split("\"chatbot_id\":\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    id.expect("an id").to_owned()
}

#[tokio::test]
async fn the_demo_answers_with_citations_through_the_server_and_without_one() {
    let (_folder, data) = data_dir();
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/demo");
    let mut server = Server::start(&data, &["--demo", demo]).await;
    let chatbot_id = chatbot_of_demo(&mut server).await;
    let url = format!("http://{}", server.address);

    let told = run_well(
        &data,
        &[
            "ask",
            "--chatbot",
            &chatbot_id,
            "How long can I return something?",
            "--server",
            &url,
        ],
    )
    .await;

    assert!(told.contains("45 days"), "{told}");
    assert!(told.contains("\n[1] "), "no citation in {told}");
    let first_key = server.first_key.clone().expect("the first key");
    let keys = server.get("/api/keys", &first_key).await;
    assert!(keys.starts_with("HTTP/1.1 200"), "{keys}");
    assert!(
        !keys.contains("frontdesk ask"),
        "a key that was made for one use is left: {keys}"
    );
    let audit = server.get("/api/audit", &first_key).await;
    assert!(
        audit.contains("frontdesk ask") && audit.contains("api_key.revoke"),
        "{audit}"
    );
    server.stop().await;

    let answer = run_for_json(
        &data,
        &[
            "ask",
            "--chatbot",
            &chatbot_id,
            "How long can I return something?",
            "--json",
            "--set",
            "server.listen=127.0.0.1:0",
        ],
    )
    .await;

    assert!(
        answer["answer"].as_str().expect("text").contains("45 days"),
        "{answer}"
    );
    assert_eq!(answer["source"], "extractive");
    assert!(answer["citations"][0]["document_id"].is_string(), "{answer}");
    let restarted = Server::start(&data, &["--demo", demo]).await;
    restarted.logged("the demo is left out").await;
    restarted.stop().await;
}

#[tokio::test]
async fn what_the_server_writes_is_readable_by_its_user_alone() {
    let (_folder, data) = data_dir();
    let server = Server::start(&data, &[]).await;

    let mut folders = vec![data.clone()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("readable") {
            let entry = entry.expect("readable");
            let metadata = entry.metadata().expect("known");
            assert_eq!(
                metadata.permissions().mode() & 0o077,
                0,
                "{} is open to others",
                entry.path().display()
            );
            seen += 1;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }

    assert!(seen >= 3, "database, key and files are there");
    server.stop().await;
}

#[tokio::test]
async fn a_data_folder_that_others_can_read_is_closed_and_one_they_can_change_is_refused() {
    let (_folder, data) = data_dir();
    std::fs::create_dir(&data).expect("ours");
    let open_for =
        |mode| std::fs::set_permissions(&data, std::fs::Permissions::from_mode(mode)).expect("ours");

    open_for(0o755);
    Server::start(&data, &[]).await.stop().await;

    let mode = std::fs::metadata(&data).expect("known").permissions().mode();
    assert_eq!(mode & 0o007, 0, "{mode:o}");
    open_for(0o777);
    let output = run(&data, &["serve", "--listen", "127.0.0.1:0"]).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(told(&output).contains("chmod 700"), "{}", told(&output));
}
