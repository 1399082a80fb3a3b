//! `frontdesk ingest`: websites, folders and files from the command line.

use serde_json::json;

use super::*;
use crate::harness::stored::fixture;
use crate::sync::site::{Answer, Site};

/// A folder with two pages of one name, a picture, a hidden file and a link.
fn handbook() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    let root = folder.path();
    std::fs::create_dir(root.join("guides")).expect("made");
    for (name, bytes) in [
        ("index.md", b"# Handbook\n\nAll about our shop.".as_slice()),
        (
            "guides/index.md",
            b"# Guides\n\nGoods may be returned within 30 days.",
        ),
        (
            "logo.png",
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0",
        ),
        (".notes.md", b"Not for anybody."),
    ] {
        std::fs::write(root.join(name), bytes).expect("written");
    }
    std::os::unix::fs::symlink("/etc/passwd", root.join("link.txt")).expect("linked");
    folder
}

/// A server that may read `site`, with a chatbot. The chatbot's id.
async fn serve_with_chatbot(data: &Path, site: &Site) -> (Server, String) {
    let allow = format!("outbound.allow={}", site.address);
    let server = Server::start(data, &["--set", &allow]).await;
    let chatbot = request(&server, "POST", "/api/chatbots", Some(json!({ "name": "Desk" }))).await["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    (server, chatbot)
}

/// What a route answers.
#[expect(
    clippy::disallowed_methods,
    reason = "a test talks to its own server on loopback"
)]
async fn request(server: &Server, method: &str, path: &str, body: Option<Value>) -> Value {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let method = method.parse().expect("a method");
    let mut request = client
        .request(method, format!("http://{}{path}", server.address))
        .bearer_auth(server.first_key.as_deref().expect("the first key"));
    if let Some(body) = body {
        request = request.json(&body);
    }
    request
        .send()
        .await
        .expect("the server answers")
        .json()
        .await
        .expect("JSON")
}

/// The names of a chatbot's documents and their states.
async fn documents(server: &Server, chatbot: &str) -> Vec<(String, String)> {
    let listed = request(server, "GET", &format!("/api/chatbots/{chatbot}/documents"), None).await;
    let mut documents: Vec<(String, String)> = listed["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| {
            let text = |name: &str| item[name].as_str().expect("text").to_owned();
            (text("external_id"), text("state"))
        })
        .collect();
    documents.sort();
    documents
}

#[tokio::test]
async fn folders_files_and_websites_are_followed_until_they_are_known() {
    let (_folder, data) = data_dir();
    let site = Site::start(&[
        (
            "/",
            Answer::page("Shop", "We sell ladders and tables.", &["/about"]),
        ),
        ("/about", Answer::page("About", "Our shop is in Bremen.", &[])),
    ])
    .await;
    let (server, chatbot) = serve_with_chatbot(&data, &site).await;
    let handbook = handbook();
    let prices = handbook
        .path()
        .join("guides/index.md")
        .with_file_name("prices.csv");
    std::fs::write(&prices, "item,price\nladder,30\n").expect("written");
    let url = site.url("/");
    let address = format!("http://{}", server.address);

    let output = run(
        &data,
        &[
            "ingest",
            handbook.path().to_str().expect("text"),
            &url,
            "--chatbot",
            &chatbot,
            "--server",
            &address,
        ],
    )
    .await;

    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}{}", told(&output));
    assert!(
        shown.contains("logo.png") && shown.contains("link.txt: a link"),
        "{shown}"
    );
    assert!(!shown.contains(".notes.md"), "{shown}");
    assert!(shown.ends_with("5 known, 2 skipped, 0 failed\n"), "{shown}");
    let expected = [
        "guides - index.md",
        "guides - prices.csv",
        &site.url("/"),
        &site.url("/about"),
        "index.md",
    ];
    let indexed: Vec<(String, String)> = expected
        .map(|name| (name.to_owned(), "indexed".to_owned()))
        .into();
    assert_eq!(documents(&server, &chatbot).await, indexed);
    let again = run_well(
        &data,
        &[
            "ingest",
            handbook.path().to_str().expect("text"),
            &url,
            "--chatbot",
            &chatbot,
            "--server",
            &address,
        ],
    )
    .await;
    assert!(again.ends_with("5 known, 2 skipped, 0 failed\n"), "{again}");
    assert_eq!(documents(&server, &chatbot).await, indexed);
    let keys = request(&server, "GET", "/api/keys", None).await;
    let keys = keys["items"].as_array().expect("items");
    assert!(
        keys.iter().all(|key| key["name"] != "frontdesk ingest"),
        "a key that was made for one use is left: {keys:?}"
    );
    server.stop().await;
}

#[tokio::test]
async fn what_could_not_be_read_is_told_and_in_the_exit_code() {
    let (_folder, data) = data_dir();
    let site = Site::start(&[("/", Answer::status(500))]).await;
    let (server, chatbot) = serve_with_chatbot(&data, &site).await;
    let folder = TempDir::new().expect("a temporary folder");
    std::fs::write(folder.path().join("locked.pdf"), fixture("broken/locked.pdf")).expect("written");
    std::fs::write(folder.path().join("good.txt"), "Goods may be returned.").expect("written");
    let address = format!("http://{}", server.address);
    let key = server.first_key.clone().expect("the first key");
    let ingest = async |target: &str| {
        run(
            &data,
            &[
                "ingest",
                target,
                "--chatbot",
                &chatbot,
                "--server",
                &address,
                "--key",
                &key,
            ],
        )
        .await
    };

    let output = ingest(folder.path().to_str().expect("text")).await;

    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{shown}{}", told(&output));
    assert!(shown.contains("failed   locked.pdf: "), "{shown}");
    assert!(shown.ends_with("1 known, 0 skipped, 1 failed\n"), "{shown}");
    let output = ingest("http://10.0.0.1/").await;
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("no public address"), "{shown}");
    let output = ingest("/nonexistent/folder").await;
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    server.stop().await;
}

#[tokio::test]
async fn without_a_server_the_work_is_done_here() {
    let (_folder, data) = data_dir();
    let site = Site::start(&[("/", Answer::page("Shop", "We sell ladders.", &[]))]).await;
    let (server, chatbot) = serve_with_chatbot(&data, &site).await;
    let key = server.first_key.clone();
    server.stop().await;
    let file = TempDir::new().expect("a temporary folder");
    let path = file.path().join("returns.md");
    std::fs::write(&path, "# Returns\n\nWithin 30 days.").expect("written");

    let shown = run_well(
        &data,
        &[
            "ingest",
            path.to_str().expect("text"),
            "--chatbot",
            &chatbot,
            "--set",
            "server.listen=127.0.0.1:0",
        ],
    )
    .await;

    assert!(shown.ends_with("1 known, 0 skipped, 0 failed\n"), "{shown}");
    let mut server = Server::start(&data, &[]).await;
    server.first_key = key;
    assert_eq!(
        documents(&server, &chatbot).await,
        [("returns.md".to_owned(), "indexed".to_owned())]
    );
    server.stop().await;
}

#[tokio::test]
async fn an_unknown_chatbot_is_told_from_a_missing_server() {
    let (_folder, data) = data_dir();
    let nobody = uuid::Uuid::nil().to_string();
    let file = TempDir::new().expect("a temporary folder");
    let path = file.path().join("returns.md");
    std::fs::write(&path, "# Returns").expect("written");
    let path = path.to_str().expect("text");

    for (rest, code) in [
        (["--set", "server.listen=127.0.0.1:0"], 4),
        (["--server", "http://127.0.0.1:1"], 1),
    ] {
        let mut args = vec!["ingest", path, "--chatbot", &nobody];
        args.extend(rest);
        let output = run(&data, &args).await;

        assert_eq!(output.status.code(), Some(code), "{}", told(&output));
    }
}
