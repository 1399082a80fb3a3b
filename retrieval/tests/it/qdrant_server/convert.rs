//! Between the protocol's types and the engine's, by way of the JSON that both have in common.

use std::collections::HashMap;

use qdrant_client::qdrant::condition::ConditionOneOf;
use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::value::Kind;
use qdrant_client::qdrant::{Condition, FieldCondition, Filter, ListValue, PointId, Struct, Value};
use qdrant_edge::{Filter as EngineFilter, Payload, PointId as EngineId};
use serde_json::{Map, Value as Json, json};
use tonic::Status;
use uuid::Uuid;

pub(super) fn refused(reason: impl Into<String>) -> Status {
    Status::invalid_argument(format!("Wrong input: {}", reason.into()))
}

pub(super) fn engine_id(id: &PointId) -> Result<Uuid, Status> {
    match &id.point_id_options {
        Some(PointIdOptions::Uuid(id)) => id
            .parse()
            .map_err(|_| refused(format!("Unable to parse UUID: {id}"))),
        _ => Err(refused("point ids are UUIDs here")),
    }
}

pub(super) fn protocol_id(id: EngineId) -> PointId {
    match id {
        EngineId::Uuid(id) => id.to_string().into(),
        EngineId::NumId(id) => id.into(),
    }
}

pub(super) fn payload_to_engine(payload: &HashMap<String, Value>) -> Payload {
    let fields = payload.iter().map(|(name, value)| (name.clone(), to_json(value)));
    Payload(fields.collect())
}

pub(super) fn payload_to_protocol(payload: Payload) -> HashMap<String, Value> {
    payload
        .0
        .into_iter()
        .map(|(name, value)| (name, from_json(value)))
        .collect()
}

/// The engine's filter, and the fields it asks for.
pub(super) fn filter(filter: &Filter) -> Result<(EngineFilter, Vec<String>), Status> {
    let mut fields = Vec::new();
    let json = filter_json(filter, &mut fields)?;
    let filter = serde_json::from_value(json).map_err(|error| refused(error.to_string()))?;
    Ok((filter, fields))
}

fn filter_json(filter: &Filter, fields: &mut Vec<String>) -> Result<Json, Status> {
    if filter.min_should.is_some() {
        return Err(Status::unimplemented("min_should"));
    }
    let mut parts = Map::new();
    for (name, conditions) in [
        ("must", &filter.must),
        ("should", &filter.should),
        ("must_not", &filter.must_not),
    ] {
        if !conditions.is_empty() {
            let conditions: Result<Vec<Json>, Status> = conditions
                .iter()
                .map(|condition| condition_json(condition, fields))
                .collect();
            parts.insert(name.to_owned(), conditions?.into());
        }
    }
    Ok(parts.into())
}

fn condition_json(condition: &Condition, fields: &mut Vec<String>) -> Result<Json, Status> {
    match &condition.condition_one_of {
        Some(ConditionOneOf::Field(field)) => field_json(field, fields),
        Some(ConditionOneOf::IsEmpty(empty)) => {
            fields.push(empty.key.clone());
            Ok(json!({ "is_empty": { "key": empty.key } }))
        }
        Some(ConditionOneOf::Filter(filter)) => filter_json(filter, fields),
        other => Err(Status::unimplemented(format!("condition {other:?}"))),
    }
}

fn field_json(field: &FieldCondition, fields: &mut Vec<String>) -> Result<Json, Status> {
    fields.push(field.key.clone());
    let matched = field
        .r#match
        .as_ref()
        .and_then(|matched| matched.match_value.as_ref());
    match (matched, &field.range) {
        (Some(MatchValue::Keyword(value)), None) => {
            Ok(json!({ "key": field.key, "match": { "value": value } }))
        }
        (Some(MatchValue::Keywords(values)), None) => {
            Ok(json!({ "key": field.key, "match": { "any": values.strings } }))
        }
        (None, Some(range)) => Ok(json!({
            "key": field.key,
            "range": { "lt": range.lt, "gt": range.gt, "gte": range.gte, "lte": range.lte },
        })),
        _ => Err(Status::unimplemented(format!("field condition {field:?}"))),
    }
}

fn to_json(value: &Value) -> Json {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => json!(value),
        Some(Kind::IntegerValue(value)) => json!(value),
        Some(Kind::DoubleValue(value)) => json!(value),
        Some(Kind::StringValue(value)) => json!(value),
        Some(Kind::ListValue(list)) => list.values.iter().map(to_json).collect(),
        Some(Kind::StructValue(fields)) => fields
            .fields
            .iter()
            .map(|(name, value)| (name.clone(), to_json(value)))
            .collect(),
    }
}

fn from_json(value: Json) -> Value {
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(value) => match value.as_i64() {
            Some(value) => Kind::IntegerValue(value),
            None => Kind::DoubleValue(value.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(value) => Kind::StringValue(value),
        Json::Array(values) => Kind::ListValue(ListValue {
            values: values.into_iter().map(from_json).collect(),
        }),
        Json::Object(fields) => Kind::StructValue(Struct {
            fields: fields
                .into_iter()
                .map(|(name, value)| (name, from_json(value)))
                .collect(),
        }),
    };
    Value { kind: Some(kind) }
}
