//! A file of the embedded index is damaged: everybody is served, those who were in that part are told until it is filled again,
//! and the others notice nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use frontdesk::app::{App, Replacements};
use frontdesk::generations::operator;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Tenant, TestApp, TestOptions, WordEmbedder};
use crate::harness::work::until;

const QUESTION: &str = "Within how many days may goods be returned?";

/// Two tenants who share no shard.
struct Held {
    tenants: [Owner; 2],
}

struct Owner {
    id: frontdesk::id::TenantId,
    key: String,
    chatbot: String,
}

impl Owner {
    fn shard(&self) -> u64 {
        // As the index spreads them.
        self.id.0.as_u64_pair().1 % 2
    }

    fn tenant<'a>(&self, service: &'a TestApp) -> Tenant<'a> {
        Tenant {
            service,
            id: self.id,
            key: self.key.clone(),
        }
    }

    async fn search(&self, service: &TestApp) -> Value {
        let path = format!("/api/chatbots/{}/search", self.chatbot);
        let question = json!({ "query": QUESTION });
        self.tenant(service)
            .post(&path, question)
            .await
            .expect(200)
            .json()
    }

    /// What a search does without; empty: nothing, and the passage is found.
    async fn lacks(&self, service: &TestApp) -> Vec<String> {
        let found = self.search(service).await;
        let degraded = found["degraded"].as_array().cloned().unwrap_or_default();
        if degraded.is_empty() {
            let text = found["items"][0]["text"].as_str().unwrap_or_default();
            assert!(text.contains("30 days"), "{found}");
        }
        let codes = degraded
            .iter()
            .map(|one| one["code"].as_str().expect("a code").to_owned());
        codes.collect()
    }
}

async fn start(settings: &[(&str, &str)]) -> TestApp {
    let options = TestOptions::default().set("index.shards", 2);
    let options = settings
        .iter()
        .fold(options, |options, (path, value)| options.set(path, value));
    options.start().await
}

/// The first is in the first shard.
async fn hold(service: &TestApp) -> Held {
    let mut of_shards = [None, None];
    for n in 0.. {
        let tenant = service.tenant(&format!("tenant-{n}")).await;
        let owner = Owner {
            id: tenant.id,
            key: tenant.key.clone(),
            chatbot: String::new(),
        };
        let place = &mut of_shards[owner.shard() as usize];
        if place.is_none() {
            let desk = tenant.chatbot("Desk").await;
            desk.publish("returns.md", "Goods may be returned within 30 days.")
                .await;
            *place = Some(Owner {
                chatbot: desk.id.clone(),
                ..owner
            });
        }
        if of_shards.iter().all(Option::is_some) {
            break;
        }
    }
    Held {
        tenants: of_shards.map(|owner| owner.expect("one for each shard")),
    }
}

fn collection(data: &Path) -> PathBuf {
    let collections = fs::read_dir(data.join("index")).expect("the index").flatten();
    let mut collections = collections
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_none());
    collections.next().expect("one")
}

fn tear_segments(shard: &Path) {
    for entry in fs::read_dir(shard.join("keywords")).expect("words").flatten() {
        if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "segment")
        {
            let bytes = fs::read(entry.path()).expect("a segment");
            fs::write(entry.path(), &bytes[..bytes.len() / 2]).expect("written");
        }
    }
}

fn break_vectors(shard: &Path) {
    for segment in fs::read_dir(shard.join("vectors/segments"))
        .expect("vectors")
        .flatten()
    {
        fs::write(segment.path().join("version.info"), "").expect("written");
    }
}

fn empty_list_of_segments(shard: &Path) {
    fs::write(shard.join("keywords/manifest.json"), "").expect("written");
}

#[tokio::test]
async fn the_service_starts_and_only_who_was_in_the_damaged_part_is_told_until_it_is_filled_again() {
    let mut service = start(&[]).await;
    let Held {
        tenants: [hurt, whole],
    } = hold(&service).await;

    for damage in [tear_segments, break_vectors, empty_list_of_segments] {
        service = service
            .restart_after(|data| damage(&collection(data).join("shard-0")))
            .await;

        assert_eq!(hurt.lacks(&service).await, ["index_incomplete"]);
        assert_eq!(whole.lacks(&service).await, Vec::<String>::new());
        assert!(service.drain_jobs().await > 0, "nothing was queued");
        for owner in [&hurt, &whole] {
            assert_eq!(owner.lacks(&service).await, Vec::<String>::new());
            assert_eq!(owner.tenant(&service).indexed_chunks().await, 1);
        }
    }

    let aside = collection(&service.data_dir()).join("shard-0.damaged");
    assert!(aside.is_dir(), "for whoever wants to know what happened");
    let removed = |at_least| operator::remove_put_aside(&service.app, at_least);
    assert_eq!(removed(Duration::from_secs(3_600)).await.expect("looked"), 0);
    assert_eq!(removed(Duration::ZERO).await.expect("removed"), 1);
    assert!(!aside.exists());
}

#[tokio::test]
async fn damage_that_waits_for_the_next_start_is_told_by_ready_until_then() {
    let service = start(&[]).await;
    hold(&service).await;
    let told = async |service: &TestApp| {
        let ready = service.send(Method::GET, "/ready", None, None).await;
        let ready = ready.expect(200).json();
        [ready["status"].clone(), ready["index"].clone()]
    };

    // As merging leaves it behind that met a block that is not what was written.
    let note = collection(&service.data_dir()).join("shard-0/damaged");
    fs::write(note, "a block").expect("written");
    assert_eq!(told(&service).await, ["degraded", "damaged"]);

    let service = service.restart_after(|_| ()).await;
    assert_eq!(told(&service).await, ["ok", "ok"]);
}

#[tokio::test]
async fn where_the_shards_of_their_own_are_not_known_any_more_the_others_go_on() {
    let service = start(&[("index.promote_from_chunks", "1")]).await;
    let Held {
        tenants: [moved, other],
    } = hold(&service).await;
    let notes = collection(&service.data_dir()).join("own-shards.json");
    let is_settled = || {
        let notes: Value = serde_json::from_slice(&fs::read(&notes).unwrap_or_default()).unwrap_or_default();
        [&moved, &other]
            .iter()
            .all(|owner| notes[owner.id.to_string()] == "settled")
    };
    until("both have moved", async || is_settled()).await;

    let service = service
        .restart_after(|data| {
            let own = collection(data).join(format!("tenant-{}", moved.id));
            empty_list_of_segments(&own);
        })
        .await;
    assert_eq!(moved.lacks(&service).await, ["index_incomplete"]);
    assert_eq!(other.lacks(&service).await, Vec::<String>::new());
    service.drain_jobs().await;
    assert_eq!(moved.lacks(&service).await, Vec::<String>::new());

    until("it has moved again", async || is_settled()).await;
    let service = service
        .restart_after(|data| fs::write(collection(data).join("own-shards.json"), "").expect("written"))
        .await;
    for owner in [&moved, &other] {
        assert_eq!(owner.lacks(&service).await, ["index_incomplete"]);
    }
    service.drain_jobs().await;
    for owner in [&moved, &other] {
        assert_eq!(owner.lacks(&service).await, Vec::<String>::new());
        assert_eq!(owner.tenant(&service).indexed_chunks().await, 1);
    }
}

#[tokio::test]
async fn an_index_of_which_nobody_can_tell_how_it_is_laid_out_is_made_anew() {
    let service = start(&[]).await;
    let Held { tenants } = hold(&service).await;

    let service = service
        .restart_after(|data| fs::write(collection(data).join("manifest.json"), "").expect("written"))
        .await;

    for owner in &tenants {
        assert_eq!(owner.lacks(&service).await, ["index_incomplete"]);
    }
    service.drain_jobs().await;
    for owner in &tenants {
        assert_eq!(owner.lacks(&service).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn who_repairs_a_damaged_index_leaves_it_whole_for_the_service() {
    let service = start(&[]).await;
    let Held {
        tenants: [hurt, whole],
    } = hold(&service).await;
    let (service, (told, mended)) = service
        .in_between(async |config, clock| {
            let replaced = || Replacements {
                clock: Some(clock.clone()),
                embedder: Some(Arc::new(WordEmbedder)),
                ..Replacements::default()
            };
            tear_segments(&collection(&config.data_dir).join("shard-0"));
            let refused = App::build_to_look_with(config.clone(), replaced()).await;
            let told = refused.err().expect("it is damaged").to_string();
            let command = App::build_to_repair_with(config.clone(), replaced())
                .await
                .expect("opened");
            let mended = operator::compare(&command, None, true).await.expect("mended");
            command.close().await;
            (told, mended)
        })
        .await;

    assert!(
        told.contains("shard-0: ") && told.contains("frontdesk index repair"),
        "{told}"
    );
    let missing_of = |owner: &Owner| {
        let mut compared = mended
            .iter()
            .filter(|compared| compared.generation.tenant_id == owner.id);
        compared.next().expect("compared").findings.missing
    };
    assert_eq!([&hurt, &whole].map(missing_of), [1, 0]);
    assert_eq!(service.drain_jobs().await, 0, "nothing is left to do");
    for owner in [&hurt, &whole] {
        assert_eq!(owner.lacks(&service).await, Vec::<String>::new());
    }
}
