//! Strict request input: JSON bodies, paths, queries and pages, each refused with a problem that names the fault.

use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, Request};
use http::request::Parts;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_path_to_error::{Deserializer as Tracked, Segment, Track};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::objects::Objects;
use super::pace;
use super::problem::Problem;
use crate::app::App;
use crate::error::Error;

/// How deep arrays and objects may nest in a body.
const MAX_JSON_DEPTH: usize = 64;

/// Items on a page unless asked otherwise, and at most.
const DEFAULT_PAGE: i64 = 50;
const MAX_PAGE: i64 = 100;

/// A JSON body: `application/json`, within the size limit, without unknown or duplicate fields.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        require_json(request.headers())?;
        let body = read_body(request, app.config.server.body_limit_bytes).await?;
        parse(&body).map(Self)
    }
}

/// A body that may be left out: a request with neither a content type nor a length has none.
impl<T: DeserializeOwned> OptionalFromRequest<App> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Option<Self>, Problem> {
        let headers = request.headers();
        let is_sized = headers
            .get(header::CONTENT_LENGTH)
            .is_some_and(|length| length != "0");
        if !headers.contains_key(header::CONTENT_TYPE)
            && !is_sized
            && !headers.contains_key(header::TRANSFER_ENCODING)
        {
            return Ok(None);
        }
        <Self as FromRequest<App>>::from_request(request, app)
            .await
            .map(Some)
    }
}

/// Reads a field of a change, where absent means unchanged: `Some` when the field is there. Around an `Option`, null
/// becomes `Some(None)`; around anything else it is refused. Use with `#[serde(default)]`.
pub fn present<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// Whether the body is announced as JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    if is_json(headers) {
        return Ok(());
    }
    Err(Error::UnsupportedType {
        code: "unsupported_media_type",
        message: "send a JSON body with Content-Type: application/json".into(),
    }
    .into())
}

/// The whole body, at most `limit` bytes, counted as they arrive.
pub async fn read_body(request: Request, limit: usize) -> Result<bytes::Bytes, Problem> {
    match Limited::new(request.into_body(), limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Error::TooLarge {
            code: "body_too_large",
            message: format!("the body is larger than {limit} bytes").into(),
        }
        .into()),
        Err(error) if pace::is_too_slow(error.as_ref()) => Err(too_slow().into()),
        Err(_) => Err(Error::Malformed {
            code: "body_incomplete",
            message: "the body ended before its announced length".into(),
        }
        .into()),
    }
}

/// What a client is told whose body made us wait for too long.
pub fn too_slow() -> Error {
    Error::Malformed {
        code: "body_too_slow",
        message: "the body came too slowly: nothing for 30 seconds, or less than 4 kB in each second".into(),
    }
}

/// Reads `body` as a `T`. 400 when it is not JSON, 422 when it is JSON of another shape.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    if nesting_depth(body) > MAX_JSON_DEPTH {
        return Err(Error::Malformed {
            code: "json_too_deep",
            message: format!("the JSON nests deeper than {MAX_JSON_DEPTH} levels").into(),
        }
        .into());
    }
    if has_nul(body) {
        // PostgreSQL stores no such text, and nobody means it.
        return Err(Error::Invalid {
            code: "nul_character",
            field: None,
            message: "text must not hold the character U+0000".into(),
        }
        .into());
    }
    if body.trim_ascii_start().first() == Some(&b'[') {
        // A list would be read as the fields in their order: nobody means it, and nobody documented it.
        return Err(Error::Invalid {
            code: "invalid_body",
            field: None,
            message: "the body must be a JSON object".into(),
        }
        .into());
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let mut place = Track::new();
    let parsed = T::deserialize(Tracked::new(Objects(&mut deserializer), &mut place))
        .and_then(|value| deserializer.end().map(|()| value));
    parsed.map_err(|error| {
        let message = in_words(&without_type_names(&error.to_string()));
        if error.is_data() {
            Error::Invalid {
                code: "invalid_body",
                field: field_at(&place.path()),
                message: message.into(),
            }
            .into()
        } else {
            Error::Malformed {
                code: "malformed_json",
                message: format!("the body is not valid JSON: {message}").into(),
            }
            .into()
        }
    })
}

/// A decoding error in words of JSON: what our types are called says nothing to a caller.
fn without_type_names(message: &str) -> String {
    for kind in [
        "struct ",
        "enum ",
        "internally tagged enum ",
        "adjacently tagged enum ",
    ] {
        let wanted = format!("expected {kind}");
        if let Some((before, after)) = message.split_once(&wanted) {
            let rest = after.find(|character: char| !character.is_alphanumeric() && character != '_');
            let rest = rest.map_or("", |end| &after[end..]);
            return format!("{before}expected an object{rest}");
        }
    }
    message.to_owned()
}

/// Where in the body a value is that is not taken; none: the body as a whole, or a part of it that was read ahead.
fn field_at(path: &serde_path_to_error::Path) -> Option<String> {
    let is_known = path.iter().next().is_some() && !path.iter().any(|step| matches!(step, Segment::Unknown));
    is_known.then(|| path.to_string())
}

/// What chrono says of a text that is no time.
const NO_TIME: [&str; 6] = [
    "input contains invalid characters",
    "premature end of input",
    "trailing input",
    "input is out of range",
    "input is not enough for unique date and time",
    "no possible date and time matching input",
];

/// A decoding error in words of what is wanted, where the decoder of a single value only says what it stumbled over.
fn in_words(message: &str) -> String {
    for unclear in NO_TIME {
        if let Some(rest) = message.strip_prefix(unclear) {
            return format!("a time is expected, such as 2026-11-20T10:00:00Z{rest}");
        }
    }
    message.to_owned()
}

/// What is wrong with a query, without the decoder's own preface.
fn plain_query_error(message: &str) -> String {
    let (_, reason) = message.split_once("query string: ").unwrap_or(("", message));
    reason.replace("invalid digit found in string", "a whole number is expected")
}

/// The deepest nesting of arrays and objects, read without recursion.
fn nesting_depth(body: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for &byte in body {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Whether a string holds an escaped U+0000 (a bare one is no JSON).
fn has_nul(body: &[u8]) -> bool {
    const ESCAPE: &[u8] = b"\\u0000";
    let is_nul = |start: usize| {
        let backslashes_before = body[..start]
            .iter()
            .rev()
            .take_while(|byte| **byte == b'\\')
            .count();
        // After an odd number of backslashes this one is text, and "u0000" too.
        backslashes_before % 2 == 0
    };
    body.windows(ESCAPE.len())
        .enumerate()
        .any(|(start, window)| window == ESCAPE && is_nul(start))
}

/// Path parameters. An id that is no id names nothing: 404, like one that never was.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(_) => Err(Error::NotFound("thing").into()),
        }
    }
}

/// Query parameters, without unknown ones.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        axum::extract::Query::<T>::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|error| {
                Error::Invalid {
                    code: "invalid_query",
                    field: None,
                    message: plain_query_error(&error.body_text()).into(),
                }
                .into()
            })
    }
}

/// Which page of a list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Items on the page, 1 to 100; 50 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100)]
    pub limit: Option<i64>,
    /// `next_cursor` of the page before.
    #[param(value_type = Option<String>, format = "uuid")]
    pub cursor: Option<String>,
}

/// A checked [`PageQuery`]: lists run newest first, by time-ordered id.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest {
    /// Items on the page.
    pub limit: i64,
    /// Only ids below this one.
    pub before: Uuid,
}

impl PageQuery {
    /// Checks limit and cursor.
    pub fn check(&self) -> Result<PageRequest, Error> {
        let limit = self.limit.unwrap_or(DEFAULT_PAGE);
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Error::invalid(
                "invalid_limit",
                "limit",
                format!("limit must be 1 to {MAX_PAGE}"),
            ));
        }
        let before = match &self.cursor {
            None => Uuid::max(),
            Some(cursor) => Uuid::try_parse(cursor).map_err(|_| unknown_cursor())?,
        };
        Ok(PageRequest { limit, before })
    }
}

impl PageRequest {
    /// The cursor of the page; none for the first one.
    pub fn cursor(&self) -> Option<Uuid> {
        Some(self.before).filter(|before| *before != Uuid::max())
    }
}

/// For lists in an order of their own: what the page was to follow is not in the list, or not any more.
pub fn unknown_cursor() -> Error {
    Error::invalid(
        "invalid_cursor",
        "cursor",
        "cursor must be the next_cursor of an earlier page",
    )
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items, newest first.
    pub items: Vec<T>,
    /// Give this as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page from rows fetched with `limit + 1`: the extra one tells that there is a next page.
    pub fn of<R>(mut rows: Vec<R>, limit: i64, id: impl Fn(&R) -> Uuid, item: impl Fn(R) -> T) -> Self {
        let more = rows.len() as i64 > limit;
        rows.truncate(usize::try_from(limit).unwrap_or_default());
        let next_cursor = rows.last().filter(|_| more).map(|row| id(row).to_string());
        Self {
            items: rows.into_iter().map(item).collect(),
            next_cursor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_speak_of_json_and_not_of_our_types() {
        #[derive(Debug, Deserialize)]
        struct Wanted {
            #[allow(dead_code, reason = "decoding it is the test")]
            limit: i64,
        }

        let refused = serde_json::from_str::<Wanted>("null").expect_err("null is no object");
        assert_eq!(
            without_type_names(&refused.to_string()),
            "invalid type: null, expected an object at line 1 column 4"
        );
        assert_eq!(
            plain_query_error("Failed to deserialize query string: limit: invalid digit found in string"),
            "limit: a whole number is expected"
        );
    }

    #[test]
    fn depth_counts_nesting_outside_strings_only() {
        assert_eq!(nesting_depth(br#"{"a": [[1]], "b": "[[[[\"[[["}"#), 3);
    }

    #[test]
    fn an_escaped_nul_is_found_and_text_that_looks_like_one_is_not() {
        assert!(has_nul(br#"{"a": "x\u0000"}"#));
        assert!(has_nul(br#"{"a": "x\\\u0000"}"#));
        assert!(!has_nul(br#"{"a": "x\\u0000"}"#));
        assert!(!has_nul(br#"{"a": "u0000"}"#));
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Change {
        #[serde(default, deserialize_with = "present")]
        name: Option<String>,
        #[serde(default, deserialize_with = "present")]
        limit: Option<Option<i64>>,
    }

    #[test]
    fn a_change_tells_absent_from_null() {
        let read = |text: &str| serde_json::from_str::<Change>(text);

        assert_eq!(
            read("{}").expect("nothing changes"),
            Change {
                name: None,
                limit: None
            }
        );
        assert_eq!(
            read(r#"{"limit": null}"#).expect("a limit may be null"),
            Change {
                name: None,
                limit: Some(None)
            }
        );
        assert_eq!(
            read(r#"{"limit": 3}"#).expect("a limit"),
            Change {
                name: None,
                limit: Some(Some(3))
            }
        );
        assert!(read(r#"{"name": null}"#).is_err(), "a name cannot be null");
    }

    #[test]
    fn a_page_has_a_cursor_only_when_there_is_more() {
        let rows: Vec<Uuid> = (1..=3).map(Uuid::from_u128).collect();

        let page: Page<Uuid> = Page::of(rows.clone(), 2, |row| *row, |row| row);
        assert_eq!(
            (page.items.len(), page.next_cursor),
            (2, Some(Uuid::from_u128(2).to_string()))
        );

        let page: Page<Uuid> = Page::of(rows, 3, |row| *row, |row| row);
        assert_eq!((page.items.len(), page.next_cursor), (3, None));
    }
}
