//! Monthly limits: nothing is spent past them, refusals name them, and nothing stays held.

use chrono::TimeDelta;
use frontdesk::app::App;
use frontdesk::id::{ChatbotId, TenantId};
use frontdesk::jobs::schedule;
use frontdesk::usage::{self, Spend};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::app::{Chatbot, TestApp, TestOptions};
use crate::harness::openai::{Reply, Script, ScriptedModel};

const RETURNS: &str =
    "# Returns\n\nGoods may be returned within 30 days of delivery. Engraved goods cannot be returned.\n";
const QUESTION: &str = "Within how many days may goods be returned?";

/// A token read costs one micro-USD, a cached one nothing, one written three.
const PRICES: &str = "version = \"test\"\n[[model]]\nname = \"scripted\"\ninput = 1000000\ncached_input = 0\noutput = 3000000\n";

/// A service whose model costs money. The folder holds its prices.
async fn priced(model: &ScriptedModel) -> (TestApp, TempDir) {
    let folder = TempDir::new().expect("a folder");
    let prices = folder.path().join("prices.toml");
    std::fs::write(&prices, PRICES).expect("the prices are written");
    let service = TestOptions::default()
        .model(model)
        .set("llm.price_book", prices.display())
        .set("llm.max_answer_tokens", 64)
        .start()
        .await;
    (service, folder)
}

/// The model writes fifty words, or as many as it is allowed.
fn obedient(model: &ScriptedModel) {
    model.reply_with(|asked| {
        let allowed = asked.body["max_completion_tokens"].as_u64().expect("a limit") as usize;
        Script::Reply(Reply::new("word ".repeat(allowed.min(50))))
    });
}

async fn chatbot_budget(desk: &Chatbot<'_, '_>) -> Value {
    desk.tenant
        .get(&format!("/api/usage/budget?chatbot_id={}", desk.id))
        .await
        .expect(200)
        .json()["chatbot"]
        .clone()
}

async fn set_limits(desk: &Chatbot<'_, '_>, of_tenant: bool, limits: Value) {
    let path = if of_tenant {
        "/api/tenant".to_owned()
    } else {
        format!("/api/chatbots/{}", desk.id)
    };
    desk.tenant.patch(&path, limits).await.expect(200);
}

#[tokio::test]
async fn parallel_turns_never_spend_more_than_the_limit() {
    for (field, used, limit) in [
        ("monthly_token_limit", "used_tokens", 1500),
        ("monthly_cost_limit_micro_usd", "used_micro_usd", 1800),
    ] {
        for of_tenant in [true, false] {
            let model = ScriptedModel::start().await;
            obedient(&model);
            let (service, _prices) = priced(&model).await;
            let acme = service.tenant("acme").await;
            let desk = acme.chatbot("Desk").await;
            desk.publish("returns.md", RETURNS).await;
            set_limits(&desk, of_tenant, json!({ field: limit })).await;

            let mut answered = 0;
            for _ in 0..3 {
                for reply in futures::future::join_all((0..10).map(|_| desk.ask(QUESTION))).await {
                    match reply.status.as_u16() {
                        200 => answered += 1,
                        status => assert_eq!(status, 402, "{}", reply.text),
                    }
                }
            }

            service.wait_idle().await;
            let budget = if of_tenant {
                acme.budget().await
            } else {
                chatbot_budget(&desk).await
            };
            assert!(
                budget[used]
                    .as_i64()
                    .is_some_and(|used| used <= limit && used > limit / 2),
                "{field} of {limit}: {budget}"
            );
            assert_eq!(
                (&budget["reserved_tokens"], &budget["reserved_micro_usd"]),
                (&json!(0), &json!(0))
            );
            assert!(answered >= 3, "{answered} answers");
            assert_eq!(
                acme.conversations().await.len(),
                answered,
                "a refused turn leaves nothing"
            );
            assert_eq!(
                model.chat_requests().len(),
                answered,
                "a refused turn asks nobody"
            );
        }
    }
}

#[tokio::test]
async fn past_a_limit_turns_are_refused_by_name_and_another_chatbot_goes_on() {
    let model = ScriptedModel::start().await;
    let (service, _prices) = priced(&model).await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let other = acme.chatbot("Other").await;
    desk.publish("returns.md", RETURNS).await;
    other.publish("returns.md", RETURNS).await;

    for (field, code) in [
        ("monthly_token_limit", "token_budget_exceeded"),
        ("monthly_cost_limit_micro_usd", "cost_budget_exceeded"),
    ] {
        set_limits(&desk, false, json!({ field: 20 })).await;
        let before = (acme.conversations().await.len(), model.chat_requests().len());
        for streamed in [true, false] {
            let body = json!({ "chatbot_id": desk.id, "message": QUESTION, "stream": streamed });
            let refused = acme.post("/api/chat/message", body).await.expect(402);
            assert_eq!(refused.code(), code);
            assert!(
                refused.json()["detail"]
                    .as_str()
                    .is_some_and(|detail| detail.contains("chatbot") && detail.contains("2026-12-01")),
                "{}",
                refused.text
            );
        }
        assert_eq!(
            (acme.conversations().await.len(), model.chat_requests().len()),
            before
        );
        other.ask(QUESTION).await.expect(200);

        set_limits(&desk, false, json!({ field: null })).await;
        set_limits(&desk, true, json!({ field: 1 })).await;
        let refused = other.ask(QUESTION).await.expect(402);
        assert_eq!(refused.code(), code);
        assert!(
            refused.json()["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains("tenant")),
            "{}",
            refused.text
        );
        set_limits(&desk, true, json!({ field: null })).await;
    }
    desk.ask(QUESTION).await.expect(200);
}

#[tokio::test]
async fn a_limit_of_nothing_refuses_and_an_answer_without_a_model_costs_nothing() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    desk.ask(QUESTION).await.expect(200);
    assert_eq!(
        acme.budget().await["used_tokens"],
        0,
        "what this machine does itself is taken from no budget"
    );

    set_limits(&desk, true, json!({ "monthly_token_limit": 0 })).await;

    assert_eq!(
        desk.ask(QUESTION).await.expect(402).code(),
        "token_budget_exceeded"
    );
}

#[tokio::test]
async fn a_limit_starts_anew_with_the_month_and_opens_when_it_is_raised() {
    let model = ScriptedModel::start().await;
    obedient(&model);
    let (service, _prices) = priced(&model).await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    set_limits(&desk, true, json!({ "monthly_token_limit": 400 })).await;
    let spend_all = async || {
        for _ in 0..10 {
            if desk.ask(QUESTION).await.status == 402 {
                return;
            }
        }
        panic!("the limit never refused");
    };

    spend_all().await;
    set_limits(&desk, true, json!({ "monthly_token_limit": 2000 })).await;
    desk.ask(QUESTION).await.expect(200);
    spend_all().await;
    let november = acme.get("/api/usage/budget").await.expect(200).json();
    service.clock.advance(TimeDelta::days(11));
    let december = acme.get("/api/usage/budget").await.expect(200).json();
    desk.ask(QUESTION).await.expect(200);

    assert_eq!(
        (&november["period"], &november["resets_on"]),
        (&json!("2026-11"), &json!("2026-12-01"))
    );
    assert_eq!(
        (&december["period"], &december["tenant"]["used_tokens"]),
        (&json!("2026-12"), &json!(0))
    );
    assert!(
        acme.budget().await["used_tokens"]
            .as_i64()
            .is_some_and(|used| used > 0)
    );
}

#[tokio::test]
async fn a_nearly_spent_budget_gives_a_shorter_answer_before_it_gives_none() {
    let model = ScriptedModel::start().await;
    obedient(&model);
    let (service, _prices) = priced(&model).await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    set_limits(&desk, true, json!({ "monthly_token_limit": 1000 })).await;

    while desk.ask(QUESTION).await.status == 200 {}

    let allowed: Vec<u64> = model
        .chat_requests()
        .iter()
        .filter_map(|asked| asked.body["max_completion_tokens"].as_u64())
        .collect();
    assert_eq!(allowed.first(), Some(&64));
    assert!(
        allowed.iter().all(|tokens| (16..=64).contains(tokens)),
        "{allowed:?}"
    );
    assert!(
        acme.budget().await["used_tokens"]
            .as_i64()
            .is_some_and(|used| used <= 1000)
    );
}

#[tokio::test]
async fn turns_that_fail_give_their_share_back() {
    let model = ScriptedModel::start().await;
    let (service, _prices) = priced(&model).await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    set_limits(&desk, true, json!({ "monthly_token_limit": 600 })).await;
    model.reply_with(|_| Script::quota_exhausted());

    for _ in 0..10 {
        desk.ask(QUESTION).await.expect(502);
    }

    let budget = acme.budget().await;
    assert_eq!(
        (&budget["used_tokens"], &budget["reserved_tokens"]),
        (&json!(0), &json!(0))
    );
    model.reply("Thirty days [1].");
    desk.ask(QUESTION).await.expect(200);
}

/// Holds a share as a turn does, and dies.
async fn die_in_a_turn(app: &App, tenant_id: TenantId, chatbot_id: &str, tokens: i64) {
    let chatbot_id: ChatbotId = serde_json::from_value(json!(chatbot_id)).expect("an id");
    let mut write = app.db.write(tenant_id).await.expect("a transaction");
    let limits = usage::load_limits(&mut write, tenant_id, chatbot_id)
        .await
        .expect("limits");
    let held = usage::reserve(
        &mut write,
        &limits,
        (tenant_id, chatbot_id),
        Spend { tokens, micro_usd: 0 },
        Vec::new(),
        app.clock.now(),
    )
    .await
    .expect("it fits");
    write.commit().await.expect("it is held");
    drop(held);
}

#[tokio::test]
async fn what_a_dead_turn_holds_is_given_back_by_the_upkeep() {
    let model = ScriptedModel::start().await;
    let (service, _prices) = priced(&model).await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    set_limits(&desk, true, json!({ "monthly_token_limit": 600 })).await;
    schedule::fire_due(&service.app)
        .await
        .expect("the schedule is made");
    die_in_a_turn(&service.app, acme.id, &desk.id, 590).await;
    desk.ask(QUESTION).await.expect(402);
    assert_eq!(acme.budget().await["reserved_tokens"], 590);

    service.clock.advance(TimeDelta::minutes(16));
    schedule::fire_due(&service.app)
        .await
        .expect("the schedule is due");
    service.drain_jobs().await;

    assert_eq!(acme.budget().await["reserved_tokens"], 0);
    desk.ask(QUESTION).await.expect(200);
}

#[tokio::test]
async fn a_budget_shows_limits_and_what_is_spent_of_them() {
    let model = ScriptedModel::start().await;
    model.reply_with(|_| Script::Reply(Reply::new("Thirty days.").cached(10)));
    let (service, _prices) = priced(&model).await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    set_limits(
        &desk,
        true,
        json!({ "monthly_token_limit": 5000, "monthly_cost_limit_micro_usd": 7000 }),
    )
    .await;
    set_limits(&desk, false, json!({ "monthly_token_limit": 4000 })).await;

    let answer = desk.ask(QUESTION).await.expect(200).json();

    let served = model.served();
    let cost = served.prompt - 10 + 3 * served.completion;
    assert_eq!(answer["usage"]["cost_micro_usd"], json!(cost));
    let shown = acme
        .get(&format!("/api/usage/budget?chatbot_id={}", desk.id))
        .await
        .expect(200)
        .json();
    let spent = json!({ "used_tokens": served.prompt + served.completion, "used_micro_usd": cost, "reserved_tokens": 0, "reserved_micro_usd": 0 });
    let with_limits = |tokens: i64, micro_usd: Value| {
        let mut state = spent.clone();
        state["monthly_token_limit"] = json!(tokens);
        state["monthly_cost_limit_micro_usd"] = micro_usd;
        state
    };
    let expected = json!({
        "period": "2026-11", "resets_on": "2026-12-01", "currency": "USD",
        "tenant": with_limits(5000, json!(7000)), "chatbot": with_limits(4000, Value::Null),
    });
    assert_eq!(shown, expected);
    acme.get(&format!("/api/usage/budget?chatbot_id={}", uuid::Uuid::now_v7()))
        .await
        .expect(404);
}

#[tokio::test]
async fn the_owner_is_told_once_a_month_that_a_limit_was_reached() {
    let model = ScriptedModel::start().await;
    let (service, _prices) = priced(&model).await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    set_limits(&desk, false, json!({ "monthly_token_limit": 0 })).await;

    let refusals = futures::future::join_all((0..4).map(|_| desk.ask(QUESTION))).await;
    for refusal in refusals {
        assert_eq!(refusal.expect(402).code(), "token_budget_exceeded");
    }
    assert_eq!(lines_about_limits(&desk).await.len(), 1);

    service.clock.advance(TimeDelta::days(31));
    desk.ask(QUESTION).await.expect(402);
    let lines = lines_about_limits(&desk).await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0]["after"]["chatbot_id"], json!(desk.id));
}

async fn lines_about_limits(desk: &Chatbot<'_, '_>) -> Vec<Value> {
    let log = desk.tenant.get("/api/audit").await.expect(200).json();
    let lines = log["items"].as_array().expect("lines").iter();
    lines
        .filter(|line| line["action"] == "budget.reached")
        .cloned()
        .collect()
}
