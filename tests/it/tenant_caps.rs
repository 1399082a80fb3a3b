//! What the operator allows a tenant in a month: the tenant's own limits can only lower it.

use frontdesk::tenancy::operator::{self, CapChange};
use serde_json::{Value, json};

use crate::harness::app::{Tenant, TestApp, TestOptions};

async fn cap_tokens(service: &TestApp, tenant: &Tenant<'_>, cap: Option<i64>) {
    let change = CapChange {
        monthly_tokens: Some(cap),
        ..CapChange::default()
    };
    operator::set_caps(&service.app.db, service.clock.as_ref(), tenant.id, change)
        .await
        .expect("capped");
}

async fn limit_of(tenant: &Tenant<'_>) -> Value {
    tenant.get("/api/tenant").await.expect(200).json()["monthly_token_limit"].clone()
}

#[tokio::test]
async fn a_tenants_own_limit_can_only_lower_what_the_operator_allows() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let set = async |limit: Value| {
        acme.patch("/api/tenant", json!({ "monthly_token_limit": limit }))
            .await
    };
    set(json!(5_000)).await.expect(200);

    cap_tokens(&service, &acme, Some(1_000)).await;

    assert_eq!(limit_of(&acme).await, 1_000);
    let refused = set(json!(1_001)).await.expect(422);
    assert_eq!(refused.code(), "limit_over_cap");
    set(json!(400)).await.expect(200);
    let cleared = set(Value::Null).await.expect(200).json();
    assert_eq!(
        (&cleared["monthly_token_limit"], &cleared["monthly_token_cap"]),
        (&json!(1_000), &json!(1_000)),
        "no limit of its own is as much as it may have"
    );
    let audit = acme.get("/api/audit").await.expect(200).text;
    assert!(audit.contains("tenant.set_caps"), "{audit}");

    cap_tokens(&service, &acme, None).await;
    assert_eq!(limit_of(&acme).await, Value::Null);
}

#[tokio::test]
async fn who_signs_up_starts_with_the_caps_of_new_tenants_and_is_held_to_them() {
    let service = TestOptions::default()
        .set("limits.tenant_monthly_tokens", 900)
        .set("limits.tenant_monthly_cost_micro_usd", 70)
        .start()
        .await;

    let ada = service.sign_up("ada@example.com", "Engines").await;

    let tenant = ada.get("/api/tenant").await.expect(200).json();
    assert_eq!(
        (
            &tenant["monthly_token_limit"],
            &tenant["monthly_cost_limit_micro_usd"]
        ),
        (&json!(900), &json!(70))
    );
    let body = json!({ "monthly_token_limit": null, "monthly_cost_limit_micro_usd": 71 });
    let raised = ada.send(reqwest::Method::PATCH, "/api/tenant", Some(body)).await;
    assert_eq!(raised.expect(422).code(), "limit_over_cap");
}
