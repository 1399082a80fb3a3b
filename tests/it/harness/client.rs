//! Who uses the service in a test: tenants and their chatbots, through the API alone, and what they are answered.

use frontdesk::id::TenantId;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::app::TestApp;

/// An answer, read whole.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Reply {
    /// Reads the body.
    pub async fn read(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        Self {
            status,
            headers,
            text: response.text().await.expect("the body is text"),
        }
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The problem's code; empty when the answer is no problem.
    pub fn code(&self) -> String {
        let is_problem = self
            .headers
            .get("content-type")
            .is_some_and(|value| value == "application/problem+json");
        if is_problem {
            self.json()["code"].as_str().unwrap_or_default().to_owned()
        } else {
            String::new()
        }
    }

    /// Fails the test unless the status is `status`.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    /// The string field `id`.
    #[track_caller]
    pub fn id(&self) -> String {
        self.json()["id"].as_str().expect("an id").to_owned()
    }
}

/// A tenant and its first key, of scope admin.
pub struct Tenant<'a> {
    pub service: &'a TestApp,
    pub id: TenantId,
    pub key: String,
}

impl<'a> Tenant<'a> {
    pub async fn get(&self, path: &str) -> Reply {
        self.service.send(Method::GET, path, Some(&self.key), None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.service
            .send(Method::POST, path, Some(&self.key), Some(body))
            .await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Reply {
        self.service
            .send(Method::PATCH, path, Some(&self.key), Some(body))
            .await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.service
            .send(Method::DELETE, path, Some(&self.key), None)
            .await
    }

    /// Makes a key with these fields and returns its secret.
    pub async fn make_key(&self, body: Value) -> String {
        let reply = self.post("/api/keys", body).await.expect(201);
        reply.json()["secret"].as_str().expect("a secret").to_owned()
    }

    /// Makes a chatbot.
    pub async fn chatbot(&self, name: &str) -> Chatbot<'_, 'a> {
        let id = self
            .post("/api/chatbots", json!({ "name": name }))
            .await
            .expect(201)
            .id();
        Chatbot { tenant: self, id }
    }
}

/// A chatbot of a tenant.
pub struct Chatbot<'t, 'a> {
    pub tenant: &'t Tenant<'a>,
    pub id: String,
}

impl Chatbot<'_, '_> {
    /// Uploads files in one request, without waiting for them to be indexed.
    pub async fn upload(&self, files: &[(&str, &[u8])]) -> Reply {
        let mut form = reqwest::multipart::Form::new();
        for (name, bytes) in files {
            form = form.part(
                "file",
                reqwest::multipart::Part::bytes(bytes.to_vec()).file_name((*name).to_owned()),
            );
        }
        let path = format!("/api/chatbots/{}/documents", self.id);
        let request = self
            .tenant
            .service
            .request(Method::POST, &path, Some(&self.tenant.key))
            .multipart(form);
        Reply::read(request.send().await.expect("the service answers")).await
    }

    /// Uploads one text and indexes it; returns the document's id.
    pub async fn publish(&self, file_name: &str, text: &str) -> String {
        let reply = self.upload(&[(file_name, text.as_bytes())]).await.expect(202);
        self.tenant.service.drain_jobs().await;
        reply.json()["items"][0]["id"]
            .as_str()
            .expect("a document")
            .to_owned()
    }

    /// A document as the API shows it.
    pub async fn document(&self, id: &str) -> Value {
        self.tenant
            .get(&format!("/api/documents/{id}"))
            .await
            .expect(200)
            .json()
    }

    /// Makes a source of a website that nobody reads: its first run is cancelled. The ids of both.
    pub async fn aborted_source(&self, url: &str) -> (String, String) {
        let source = self
            .tenant
            .post(
                &format!("/api/chatbots/{}/sources", self.id),
                json!({ "kind": "website", "website": { "url": url } }),
            )
            .await
            .expect(202)
            .id();
        let cancelled = self
            .tenant
            .post(&format!("/api/sources/{source}/cancel"), json!({}))
            .await
            .expect(200)
            .json();
        let run = cancelled["last_run"]["id"].as_str().expect("a run").to_owned();
        (source, run)
    }

    /// A test set of one question, and a run over it that is done.
    pub async fn run_eval(&self, document: &str) -> (String, String) {
        let evals = format!("/api/chatbots/{}/evals", self.id);
        let question =
            json!({ "question": "Within how many days may goods be returned?", "document_ids": [document] });
        let body = json!({ "name": "Questions", "questions": [question] });
        let eval = self.tenant.post(&evals, body).await.expect(201).id();
        let runs = format!("{evals}/{eval}/runs");
        let run = self.tenant.post(&runs, json!({})).await.expect(202).id();
        self.tenant.service.drain_jobs().await;
        (eval, run)
    }

    /// The id of a document's first chunk.
    pub async fn first_chunk(&self, document: &str) -> String {
        let document = self.document(document).await;
        document["chunk_list"][0]["id"]
            .as_str()
            .expect("the document has a chunk")
            .to_owned()
    }

    /// Asks in a new conversation; the whole answer.
    pub async fn ask(&self, message: &str) -> Reply {
        self.tenant
            .post(
                "/api/chat/message",
                json!({ "chatbot_id": self.id, "message": message }),
            )
            .await
    }

    /// Asks in a conversation.
    pub async fn ask_in(&self, conversation_id: &str, message: &str) -> Reply {
        self.tenant
            .post(
                "/api/chat/message",
                json!({ "chatbot_id": self.id, "conversation_id": conversation_id, "message": message }),
            )
            .await
    }

    /// Asks for a stream and reads it to its end; the events in order.
    pub async fn stream(&self, message: &str) -> Vec<Event> {
        let reply = self.open_stream(message).await;
        assert_eq!(reply.status(), StatusCode::OK);
        Event::parse_all(&reply.text().await.expect("the stream ends"))
    }

    /// Asks for a stream and leaves the reading to the test.
    pub async fn open_stream(&self, message: &str) -> reqwest::Response {
        let body = json!({ "chatbot_id": self.id, "message": message, "stream": true });
        self.tenant
            .service
            .request(Method::POST, "/api/chat/message", Some(&self.tenant.key))
            .json(&body)
            .send()
            .await
            .expect("the service answers")
    }

    /// Passages for a query.
    pub async fn search(&self, query: &str) -> Vec<Value> {
        let reply = self
            .tenant
            .post(
                &format!("/api/chatbots/{}/search", self.id),
                json!({ "query": query }),
            )
            .await
            .expect(200);
        reply.json()["items"].as_array().expect("items").clone()
    }
}

/// A server-sent event.
#[derive(Debug)]
pub struct Event {
    pub name: String,
    pub data: Value,
}

impl Event {
    /// Reads a whole stream.
    pub fn parse_all(text: &str) -> Vec<Self> {
        let blocks = text
            .split("\n\n")
            .filter(|block| !block.trim().is_empty() && !block.starts_with(':'));
        blocks
            .map(|block| {
                let field = |name: &str| {
                    block
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .unwrap_or_default()
                };
                Self {
                    name: field("event: ").to_owned(),
                    data: serde_json::from_str(field("data: ")).expect("data is JSON"),
                }
            })
            .collect()
    }
}
