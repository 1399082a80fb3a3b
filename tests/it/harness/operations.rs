//! The operations of the OpenAPI document, each with a request that fits it, for tests that walk all of them. An
//! operation, a parameter or a body that has no example here fails those tests: a new route cannot be forgotten.

use frontdesk::http::router;
use frontdesk::tenancy::role::Permission;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::app::{Reply, TestApp};

/// Query parameters that name no row.
const PLAIN_QUERY: &[&str] = &[
    "limit",
    "cursor",
    "state",
    "group_by",
    "from",
    "to",
    "from_chunk",
    "after_stale",
    "title",
    "url",
    "language",
    "code",
    "error",
    "text_part",
    "tags",
    "access_groups",
    "activate",
];

/// Fields that are called like ids of rows, and name things of others.
const IDS_OF_OTHERS: &[&str] = &["folder_id", "file_ids", "shared_drive_id"];

/// What a caller must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Nothing,
    Credential,
    Permission(Permission),
}

/// One operation of the document.
pub struct Operation {
    pub method: Method,
    pub path: String,
    pub need: Need,
    document: Value,
}

/// What an id is the id of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Chatbot,
    Document,
    Conversation,
    Key,
    Member,
    Job,
    Source,
    Run,
    Chunk,
    Exclusion,
    Invite,
    Eval,
    EvalRun,
    Generation,
}

impl Kind {
    pub const ALL: [Self; 14] = [
        Self::Chatbot,
        Self::Document,
        Self::Conversation,
        Self::Key,
        Self::Member,
        Self::Job,
        Self::Source,
        Self::Run,
        Self::Chunk,
        Self::Exclusion,
        Self::Invite,
        Self::Eval,
        Self::EvalRun,
        Self::Generation,
    ];
}

/// One id of each kind.
#[derive(Clone, Debug)]
pub struct Ids(pub [String; Kind::ALL.len()]);

impl Ids {
    /// Ids that never were.
    pub fn random() -> Self {
        Self(std::array::from_fn(|_| Uuid::now_v7().to_string()))
    }

    pub fn of(&self, kind: Kind) -> &str {
        &self.0[kind as usize]
    }

    /// The same, but for one kind's.
    pub fn with(&self, kind: Kind, id: &str) -> Self {
        let mut ids = self.clone();
        ids.0[kind as usize] = id.to_owned();
        ids
    }
}

/// A request that fits an operation.
pub struct Call {
    pub method: Method,
    pub target: String,
    pub body: CallBody,
}

pub enum CallBody {
    None,
    Json(Value),
    /// One small file, as multipart.
    File,
}

impl Call {
    /// Whether the id is anywhere in the request.
    pub fn mentions(&self, id: &str) -> bool {
        self.target.contains(id)
            || matches!(&self.body, CallBody::Json(body) if body.to_string().contains(id))
    }

    pub async fn send(self, service: &TestApp, credential: Option<&str>) -> Reply {
        let request = service.request(self.method, &self.target, credential);
        let request = match self.body {
            CallBody::None => request,
            CallBody::Json(body) => request.json(&body),
            CallBody::File => {
                let part = reqwest::multipart::Part::text("A new file.").file_name("new.txt");
                request.multipart(reqwest::multipart::Form::new().part("file", part))
            }
        };
        let mut response = request.send().await.expect("the service answers");
        let content_type = response.headers().get("content-type");
        if !content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream")) {
            return Reply::read(response).await;
        }
        // A stream may stay open for ever: its first event is its answer.
        let (status, headers) = (response.status(), response.headers().clone());
        let mut text = String::new();
        while !text.contains("\n\n") {
            let Some(piece) = response.chunk().await.expect("the stream goes on") else {
                break;
            };
            text += std::str::from_utf8(&piece).expect("events are text");
        }
        Reply {
            status,
            headers,
            text,
        }
    }
}

/// All operations of the document.
pub fn operations() -> Vec<Operation> {
    let document = serde_json::to_value(router::openapi()).expect("the document is JSON");
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("the document has paths") {
        for (method, operation) in item.as_object().expect("a path has methods") {
            let method: Method = method.to_uppercase().parse().expect("a method");
            let mut operation = Operation {
                method,
                path: path.clone(),
                need: Need::Nothing,
                document: operation.clone(),
            };
            operation.need = operation.read_need();
            operation.check_example(&document);
            operations.push(operation);
        }
    }
    operations
}

impl Operation {
    /// For example `GET /api/chatbots/{id}`.
    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// A request that fits, with these ids wherever it takes one.
    pub fn call(&self, ids: &Ids) -> Call {
        let mut target = self
            .path
            .split('/')
            .scan("", |above, part| {
                let value = match part.strip_prefix('{').and_then(|name| name.strip_suffix('}')) {
                    Some(parameter) => self.parameter(above, parameter, ids),
                    None => part.to_owned(),
                };
                *above = part;
                Some(value)
            })
            .collect::<Vec<_>>()
            .join("/");
        let id_queries: Vec<String> = self
            .query_names()
            .filter(|name| !PLAIN_QUERY.contains(&name.as_str()))
            .collect();
        for (position, name) in id_queries.iter().enumerate() {
            assert_eq!(
                name,
                "chatbot_id",
                "{} takes the unknown query parameter {name}",
                self.name()
            );
            target += &format!(
                "{}{name}={}",
                if position == 0 { "?" } else { "&" },
                ids.of(Kind::Chatbot)
            );
        }
        Call {
            method: self.method.clone(),
            target,
            body: self.example(ids),
        }
    }

    /// What stands for a parameter of the path, below the part `above`.
    fn parameter(&self, above: &str, parameter: &str, ids: &Ids) -> String {
        let kind = match (above, parameter) {
            ("chatbots", "id") => Kind::Chatbot,
            ("documents", "id") => Kind::Document,
            ("conversations", "id") => Kind::Conversation,
            ("keys", "id") => Kind::Key,
            ("members", "id") => Kind::Member,
            ("jobs", "id") => Kind::Job,
            ("sources", "id") => Kind::Source,
            ("runs", "run_id") => Kind::Run,
            ("invites", "id") => Kind::Invite,
            ("chunks", "chunk_id") => Kind::Chunk,
            ("exclusions", "exclusion_id") => Kind::Exclusion,
            ("generations", "id") => Kind::Generation,
            ("evals", "eval_id") => Kind::Eval,
            ("runs", "eval_run_id") | ("compare", "other_run_id") => Kind::EvalRun,
            // Named by who puts it there: no id of ours.
            ("documents", "external_id") => return "returns%2Fdomestic".to_owned(),
            _ => panic!("{}: make a fixture for {{{parameter}}} of {above}", self.name()),
        };
        ids.of(kind).to_owned()
    }

    /// Whether its body may be a file of any type.
    pub fn takes_files(&self) -> bool {
        !self.document["requestBody"]["content"]["application/octet-stream"].is_null()
    }

    /// Whether it takes any query.
    pub fn has_query(&self) -> bool {
        self.query_names().next().is_some()
    }

    /// Whether it takes this query parameter.
    pub fn takes_query(&self, name: &str) -> bool {
        self.query_names().any(|own| own == name)
    }

    fn query_names(&self) -> impl Iterator<Item = String> {
        let parameters = self.document["parameters"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        parameters
            .into_iter()
            .filter(|parameter| parameter["in"] == "query")
            .filter_map(|parameter| parameter["name"].as_str().map(str::to_owned))
    }

    fn example(&self, ids: &Ids) -> CallBody {
        let content = &self.document["requestBody"]["content"];
        if content.is_null() {
            return CallBody::None;
        }
        if content.get("multipart/form-data").is_some() {
            return CallBody::File;
        }
        let (chatbot, conversation, document) = (
            ids.of(Kind::Chatbot),
            ids.of(Kind::Conversation),
            ids.of(Kind::Document),
        );
        CallBody::Json(match self.name().as_str() {
            "POST /api/chatbots" => json!({ "name": "Another desk" }),
            "PATCH /api/chatbots/{id}" => json!({ "name": "Renamed desk" }),
            "POST /api/chatbots/{id}/search" => {
                json!({ "query": "returned goods", "filter": { "source_ids": [ids.of(Kind::Source)], "document_ids": [document] } })
            }
            "PATCH /api/documents/{id}" => json!({ "tags": ["returns"] }),
            "POST /api/documents/{id}/chunks" => json!({ "text": "We mend chairs too." }),
            "PATCH /api/documents/{id}/chunks/{chunk_id}" => json!({ "enabled": false }),
            "POST /api/chunk-preview" => json!({ "text": "A text to be cut." }),
            "POST /api/chatbots/{id}/sources" => json!({ "kind": "push", "name": "Another source" }),
            "POST /api/chatbots/crawl" => {
                json!({ "chatbot_id": chatbot, "url": "https://another.example/" })
            }
            "PATCH /api/sources/{id}" => json!({ "name": "Renamed source" }),
            "POST /api/sources/{id}/sync" => json!({ "full": true }),
            "POST /api/index/generations" => {
                json!({ "source_id": ids.of(Kind::Source), "chunking": { "max_tokens": 100 } })
            }
            "PUT /api/sources/{id}/documents/{external_id}" => {
                json!({ "title": "Returns", "text": "Goods may be returned." })
            }
            "POST /api/chatbots/{id}/evals" | "PATCH /api/chatbots/{id}/evals/{eval_id}" => {
                json!({ "name": "Returns", "questions": [{ "question": "May oak be returned?", "document_ids": [document] }] })
            }
            "POST /api/chatbots/{id}/evals/{eval_id}/import" => json!({ "conversation_id": conversation }),
            "POST /api/chatbots/{id}/evals/{eval_id}/runs" => json!({ "answers": false }),
            "POST /api/chat/message" => {
                json!({ "chatbot_id": chatbot, "conversation_id": conversation, "message": "May goods be returned?" })
            }
            "POST /api/chat/inline" => {
                json!({ "chatbot_id": chatbot, "messages": [{ "role": "user", "content": "May goods be returned?" }] })
            }
            "POST /api/keys" => json!({ "name": "Another key", "scopes": ["chat"], "chatbot_id": chatbot }),
            "POST /api/members" => json!({ "email": "newcomer@example.com", "role": "viewer" }),
            "PATCH /api/members/{id}" => json!({ "role": "viewer" }),
            "PATCH /api/tenant" => json!({ "monthly_token_limit": 1_000_000 }),
            "POST /api/auth/signup" => {
                json!({ "email": "stranger@example.com", "password": "a long password", "tenant_name": "Strangers" })
            }
            "POST /api/auth/login" => {
                json!({ "email": "nobody@example.com", "password": "a long password", "tenant_id": ids.of(Kind::Job) })
            }
            "POST /api/auth/refresh" => json!({ "refresh_token": "fdr_unknown" }),
            "POST /api/auth/accept-invite" => {
                json!({ "token": "fdi_unknown", "password": "a long password" })
            }
            "POST /api/auth/logout" => json!({ "everywhere": false }),
            "PUT /api/auth/password" => {
                json!({ "current_password": "not the password", "new_password": "another long password" })
            }
            other => panic!("{other}: write an example of its body here"),
        })
    }

    /// Every field of the body that names a row is in the example, so that tests of ids reach it.
    fn check_example(&self, document: &Value) {
        let CallBody::Json(example) = self.example(&Ids::random()) else {
            return;
        };
        let mut fields = Vec::new();
        collect_id_fields(
            document,
            &self.document["requestBody"]["content"]["application/json"]["schema"],
            &mut fields,
        );
        for field in fields {
            assert!(
                example.to_string().contains(&format!("\"{field}\":")),
                "{}: put {field} into the example",
                self.name()
            );
        }
    }

    fn read_need(&self) -> Need {
        let Some(requirements) = self.document["security"].as_array() else {
            return Need::Nothing;
        };
        let [requirement] = requirements.as_slice() else {
            panic!("{} must have one security requirement", self.name())
        };
        let scopes = requirement["bearer"]
            .as_array()
            .unwrap_or_else(|| panic!("{} must take bearer tokens", self.name()));
        match scopes.as_slice() {
            [] => Need::Credential,
            [scope] => {
                let permission = Permission::ALL
                    .into_iter()
                    .find(|permission| scope == permission.name());
                Need::Permission(
                    permission.unwrap_or_else(|| panic!("{}: {scope} is no permission", self.name())),
                )
            }
            _ => panic!("{} must need one permission", self.name()),
        }
    }
}

/// The names of all properties below `schema` that hold ids of rows.
fn collect_id_fields(document: &Value, schema: &Value, fields: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference
            .strip_prefix('#')
            .expect("references stay in the document");
        return collect_id_fields(
            document,
            document.pointer(pointer).expect("the reference points somewhere"),
            fields,
        );
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let is_id = name.ends_with("_id") || name.ends_with("_ids");
        if is_id && !IDS_OF_OTHERS.contains(&name.as_str()) {
            fields.push(name.clone());
        }
        collect_id_fields(document, property, fields);
    }
    for part in ["oneOf", "anyOf", "allOf"]
        .iter()
        .flat_map(|name| schema[*name].as_array().into_iter().flatten())
    {
        collect_id_fields(document, part, fields);
    }
    if !schema["items"].is_null() {
        collect_id_fields(document, &schema["items"], fields);
    }
}
