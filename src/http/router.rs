//! All routes, and the OpenAPI document that is generated from them.

use axum::Router;
use axum::extract::State;
use axum::middleware;
use axum::routing::get;
use http::StatusCode;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ContactBuilder, ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref, RefOr,
    ResponseBuilder,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use super::problem::Problem;
use super::{cors, envelope, health, idempotency};
use crate::app::App;
use crate::config::{self, Config};
use crate::{chat, chatbots, evals, generations, integrations, jobs, knowledge, tenancy, usage};

fn api() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(describe())
        .merge(health::routes())
        .merge(tenancy::routes::routes())
        .merge(chatbots::routes::routes())
        .merge(knowledge::routes::routes())
        .merge(knowledge::sources::routes::routes())
        .merge(integrations::google::routes::routes())
        .merge(chat::routes::routes())
        .merge(evals::routes::routes())
        .merge(generations::routes::routes())
        .merge(usage::routes::routes())
        .merge(jobs::routes::routes())
}

fn describe() -> OpenApi {
    let mut components = utoipa::openapi::Components::new();
    components.add_security_scheme(
        "bearer",
        SecurityScheme::Http(
            HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .description(Some("An API key (fdk_…), an access token from /api/auth/login, or a token of the configured issuer. The scope of each operation is the permission it needs."))
                .build(),
        ),
    );
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Frontdesk")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some("Multi-tenant knowledge and chat engine: documents in, streamed and cited answers out. Errors are application/problem+json with a stable `code`."))
                .contact(Some(ContactBuilder::new().name(Some("Frontdesk")).build()))
                .license(Some(LicenseBuilder::new().name("Apache-2.0").build()))
                .build(),
        )
        .components(Some(components))
        .build()
}

/// The OpenAPI document of all routes.
pub fn openapi() -> OpenApi {
    let defaults = Config::load(None, [], &[]).expect("the defaults are a configuration");
    completed(api().split_for_parts().1, &defaults.chat)
}

/// What the routes' own descriptions leave out: what lies around all of them, and what is configured.
fn completed(mut document: OpenApi, chat: &config::Chat) -> OpenApi {
    name_idempotency_key(&mut document);
    bound_questions(&mut document, chat.message_limit_chars);
    name_outages(&mut document);
    document
}

/// What any route answers while a part that it needs does not.
fn name_outages(document: &mut OpenApi) {
    let schema = Ref::from_schema_name("Problem");
    let outage = ResponseBuilder::new()
        .description("A part that is needed does not answer, or not in time: try again")
        .content(
            "application/problem+json",
            ContentBuilder::new().schema(Some(schema)).build(),
        )
        .build();
    let of_api = |(path, _): &(&String, &mut PathItem)| path.starts_with("/api/");
    for (_, item) in document.paths.paths.iter_mut().filter(of_api) {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.patch,
            &mut item.delete,
        ];
        for operation in operations.into_iter().flatten() {
            let responses = &mut operation.responses.responses;
            responses
                .entry("503".to_owned())
                .or_insert_with(|| outage.clone().into());
        }
    }
}

/// How long a question may be.
fn bound_questions(document: &mut OpenApi, most_chars: usize) {
    let Some(components) = &mut document.components else {
        return;
    };
    for (schema, field) in [("MessageRequest", "message"), ("SearchRequest", "query")] {
        if let Some(RefOr::T(Schema::Object(request))) = components.schemas.get_mut(schema)
            && let Some(RefOr::T(Schema::Object(text))) = request.properties.get_mut(field)
        {
            text.max_length = Some(most_chars);
        }
    }
}

/// The header that a layer around all routes takes, named where it has an effect.
fn name_idempotency_key(document: &mut OpenApi) {
    let header = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .description(Some(
            "Makes a repeat safe: the same key and body within 24 hours give the same answer once more.",
        ))
        .schema(Some(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .min_length(Some(1))
                .max_length(Some(255)),
        ))
        .build();
    for (path, item) in &mut document.paths.paths {
        let takes_json = |post: &Operation| matches!(&post.request_body, Some(RefOr::T(body)) if body.content.contains_key("application/json"));
        if let Some(post) = item.post.as_mut().filter(|post| takes_json(post))
            && !path.starts_with("/api/auth/")
        {
            post.parameters
                .get_or_insert_default()
                .push(header.clone().into());
        }
    }
}

/// The whole service.
pub fn router(app: App) -> Router {
    let (routes, document) = api().split_for_parts();
    let document = completed(document, &app.config.chat);
    let document = serde_json::to_value(&document).unwrap_or_default();
    routes
        .route("/metrics", get(metrics))
        .merge(SwaggerUi::new("/docs").external_url_unchecked("/api/openapi.json", document))
        .fallback(|| async {
            Problem::new(
                StatusCode::NOT_FOUND,
                "no_such_route",
                "there is no such address; /docs lists all",
            )
        })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this address does not take this method; /docs lists all",
            )
        })
        .layer(middleware::from_fn_with_state(app.clone(), idempotency::layer))
        .layer(middleware::from_fn_with_state(app.clone(), cors::layer))
        .layer(middleware::from_fn_with_state(app.clone(), envelope::layer))
        .with_state(app)
}

/// Prometheus metrics; no tenant's data is in them.
async fn metrics(State(app): State<App>) -> String {
    app.metrics.render()
}
