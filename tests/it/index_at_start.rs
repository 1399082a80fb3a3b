//! An index server that is not there when the service starts: everybody is served from the rows meanwhile, and it is taken up as
//! soon as it answers.

use std::net::SocketAddr;

use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use crate::harness::app::{Chatbot, Tenant, TestApp, TestOptions, engine};
use crate::harness::work::until;

const OAK: &str = "Oak tables are oiled twice a year.";

/// Nobody listens there.
const NOBODY: &str = "http://127.0.0.1:9";

/// A chatbot that outlives its process.
struct Held {
    tenant_id: frontdesk::id::TenantId,
    key: String,
    chatbot_id: String,
}

impl Held {
    async fn with_oak(service: &TestApp) -> Self {
        let acme = service.tenant("acme").await;
        let desk = acme.chatbot("Desk").await;
        desk.publish("oak.md", OAK).await;
        Self {
            tenant_id: acme.id,
            key: acme.key.clone(),
            chatbot_id: desk.id.clone(),
        }
    }

    fn tenant<'a>(&self, service: &'a TestApp) -> Tenant<'a> {
        Tenant {
            service,
            id: self.tenant_id,
            key: self.key.clone(),
        }
    }

    async fn search(&self, service: &TestApp) -> Value {
        let path = format!("/api/chatbots/{}/search", self.chatbot_id);
        let question = json!({ "query": "When are oak tables oiled?" });
        let found = self
            .tenant(service)
            .post(&path, question)
            .await
            .expect(200)
            .json();
        assert_eq!(found["items"][0]["title"], "oak.md", "{found}");
        found
    }
}

async fn ready(service: &TestApp) -> Value {
    let ready = service.send(Method::GET, "/ready", None, None).await;
    ready.expect(200).json()
}

async fn check_does_without(service: &TestApp, held: &Held) {
    let found = held.search(service).await;
    assert_eq!(found["degraded"][0]["code"], "index_unavailable", "{found}");
    let told = ready(service).await;
    assert_eq!(
        (&told["status"], &told["index"]),
        (&json!("degraded"), &json!("failing"))
    );
}

#[tokio::test]
async fn the_service_starts_without_it_and_answers_from_the_rows() {
    let service = TestApp::start().await;
    let held = Held::with_oak(&service).await;

    let service = service
        .restart(&[
            ("index.backend", "qdrant"),
            ("index.url", NOBODY),
            ("index.qdrant.start_timeout_s", "0"),
        ])
        .await;

    check_does_without(&service, &held).await;
    let tenant = held.tenant(&service);
    let desk = Chatbot {
        tenant: &tenant,
        id: held.chatbot_id.clone(),
    };
    let teak = desk.publish("teak.md", "Teak tables are never oiled.").await;
    assert_eq!(desk.document(&teak).await["state"], "processing", "it waits");
}

/// Lets `address` lead to `target` from now on.
async fn lead(address: SocketAddr, target: String) {
    let listener = TcpListener::bind(address).await.expect("the port is still free");
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let target = target.clone();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(target).await.expect("the database answers");
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
}

#[tokio::test]
async fn it_is_taken_up_as_soon_as_it_answers() {
    if engine() != "postgres" {
        return;
    }
    let service = TestOptions::default()
        .set("index.backend", "pgvector")
        .set("index.pgvector.max_connections", 4)
        .start()
        .await;
    let held = Held::with_oak(&service).await;
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = free.local_addr().expect("its address");
    drop(free);
    let mut url: Url = service.app.config.database.url.parse().expect("an address");
    let target = format!(
        "{}:{}",
        url.host_str().expect("a host"),
        url.port().expect("a port")
    );
    url.set_host(Some("127.0.0.1")).expect("a host");
    url.set_port(Some(address.port())).expect("a port");
    let service = service
        .restart(&[
            ("index.backend", "pgvector"),
            ("index.url", url.as_str()),
            ("index.pgvector.max_connections", "4"),
        ])
        .await;
    check_does_without(&service, &held).await;

    lead(address, target).await;
    service.clock.advance(TimeDelta::seconds(11));

    until("it is open", async || ready(&service).await["index"] == "ok").await;
    let found = held.search(&service).await;
    assert!(found["degraded"].is_null(), "{found}");
    assert!(found["items"][0]["similarity"].is_number(), "{found}");
}
