//! Persons with a password: signing up, logging in, inviting each other.

use reqwest::Method;
use serde_json::{Value, json};

use super::app::{Reply, Tenant, TestApp};

/// Every person's password, unless a test is about passwords.
pub const PASSWORD: &str = "correct horse battery";

/// Someone who is logged in.
pub struct Person<'a> {
    pub service: &'a TestApp,
    pub email: String,
    pub access_token: String,
    pub refresh_token: String,
    pub tenant_id: String,
    pub member_id: String,
}

impl<'a> Person<'a> {
    /// The person whom this answer to a login describes.
    #[track_caller]
    pub fn of(service: &'a TestApp, email: &str, login: &Value) -> Self {
        let field = |name: &str| {
            login[name]
                .as_str()
                .unwrap_or_else(|| panic!("no {name} in {login}"))
                .to_owned()
        };
        Self {
            service,
            email: email.to_owned(),
            access_token: field("access_token"),
            refresh_token: field("refresh_token"),
            tenant_id: field("tenant_id"),
            member_id: field("member_id"),
        }
    }

    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        self.service
            .send(method, path, Some(&self.access_token), body)
            .await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(Method::POST, path, Some(body)).await
    }

    /// Whether the access token still opens something.
    pub async fn is_let_in(&self) -> bool {
        self.get("/api/me").await.status == 200
    }

    /// Whether the refresh token still opens something. Spends it.
    pub async fn can_refresh(&self) -> bool {
        self.service.refresh(&self.refresh_token).await.status == 200
    }

    /// Invites someone; returns the invitation's token.
    pub async fn invite(&self, email: &str, role: &str) -> String {
        let reply = self
            .post("/api/members", json!({ "email": email, "role": role }))
            .await
            .expect(201);
        reply.json()["token"].as_str().expect("a token").to_owned()
    }

    /// Invites someone who accepts at once.
    pub async fn bring(&self, email: &str, role: &str) -> Person<'a> {
        let token = self.invite(email, role).await;
        let reply = self.service.accept_invite(&token, PASSWORD).await.expect(200);
        Person::of(self.service, email, &reply.json())
    }

    /// Gives a member another role.
    pub async fn change_role(&self, member_id: &str, role: &str) -> Reply {
        self.send(
            Method::PATCH,
            &format!("/api/members/{member_id}"),
            Some(json!({ "role": role })),
        )
        .await
    }

    /// Ends a membership.
    pub async fn remove(&self, member_id: &str) -> Reply {
        self.send(Method::DELETE, &format!("/api/members/{member_id}"), None)
            .await
    }
}

impl TestApp {
    /// Signs up with a tenant of one's own, as its owner.
    pub async fn sign_up(&self, email: &str, tenant_name: &str) -> Person<'_> {
        let body = json!({ "email": email, "password": PASSWORD, "tenant_name": tenant_name });
        let reply = self
            .send(Method::POST, "/api/auth/signup", None, Some(body))
            .await
            .expect(201);
        Person::of(self, email, &reply.json())
    }

    /// Tries to log in.
    pub async fn log_in(&self, email: &str, password: &str) -> Reply {
        self.send(
            Method::POST,
            "/api/auth/login",
            None,
            Some(json!({ "email": email, "password": password })),
        )
        .await
    }

    /// Tries to trade a refresh token.
    pub async fn refresh(&self, refresh_token: &str) -> Reply {
        self.send(
            Method::POST,
            "/api/auth/refresh",
            None,
            Some(json!({ "refresh_token": refresh_token })),
        )
        .await
    }

    /// Tries to accept an invitation.
    pub async fn accept_invite(&self, token: &str, password: &str) -> Reply {
        self.send(
            Method::POST,
            "/api/auth/accept-invite",
            None,
            Some(json!({ "token": token, "password": password })),
        )
        .await
    }
}

impl<'a> Tenant<'a> {
    /// Invites someone who does not answer; the invitation's id.
    pub async fn open_invite(&self, email: &str) -> String {
        let body = json!({ "email": email, "role": "viewer" });
        self.post("/api/members", body).await.expect(201).id()
    }

    /// Invites someone by the tenant's key; they accept at once.
    pub async fn bring(&self, email: &str, role: &str) -> Person<'a> {
        let invite = self
            .post("/api/members", json!({ "email": email, "role": role }))
            .await
            .expect(201)
            .json();
        let reply = self
            .service
            .accept_invite(invite["token"].as_str().expect("a token"), PASSWORD)
            .await
            .expect(200);
        Person::of(self.service, email, &reply.json())
    }
}
