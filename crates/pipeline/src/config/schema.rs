//! The JSON schema of the file, made from the table of keys, for editors that complete and check.
//!
//! Guarantees: every key of the table is in it and no other. It is a little wider than the reader: what only counts
//! together (a flat step's first key, one probe of `ready`) is left to `sealift check`.

use serde_json::{Map, Value, json};

use super::keys::{Key, KeyMap, Kind, MAPS, SCRIPT, STEP};

/// The schema, in the dialect of draft-07, which editors know best.
#[must_use]
pub fn schema() -> Value {
    let mut definitions: Map<String, Value> =
        MAPS.iter().map(|map| (map.name.to_owned(), map_schema(map))).collect();
    definitions.insert("step".to_owned(), step_schema());
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "wercker.yml",
        "description": "Pipelines for Sealift. Keys that need `sealift: 1` say so.",
        "$ref": "#/definitions/file",
        "definitions": definitions,
    })
}

fn map_schema(map: &KeyMap) -> Value {
    let script = if map.name == "step-properties" { SCRIPT } else { &[] };
    let mut out = Map::new();
    out.insert("type".into(), json!("object"));
    out.insert("description".into(), json!(map.about));
    out.insert("properties".into(), properties(map.keys.iter().chain(script)));
    let others = map.others.map_or(json!(false), |kind| match map.name {
        // A property of a step may be left empty.
        "step-properties" => json!({ "anyOf": [kind_schema(kind), { "type": "null" }] }),
        _ => kind_schema(kind),
    });
    out.insert("additionalProperties".into(), others);
    if map.name == "file" {
        // A place for anchors.
        out.insert("patternProperties".into(), json!({ "^(x-|\\.)": {} }));
    }
    if !map.required.is_empty() {
        out.insert("required".into(), json!(map.required));
    }
    Value::Object(out)
}

fn properties<'a>(keys: impl Iterator<Item = &'a Key>) -> Value {
    let one = |key: &Key| {
        let mut schema = match kind_schema(key.kind) {
            Value::Object(schema) => schema,
            other => Map::from_iter([("const".to_owned(), other)]),
        };
        // Beside a reference nothing else counts in this dialect.
        if let Some(reference) = schema.remove("$ref") {
            schema.insert("allOf".into(), json!([{ "$ref": reference }]));
        }
        let needs = if key.native { " Needs `sealift: 1`." } else { "" };
        schema.insert("description".into(), json!(format!("{}{needs}", key.about)));
        (key.name.to_owned(), Value::Object(schema))
    };
    Value::Object(keys.map(one).collect())
}

/// A name alone, `name: {properties}`, or `name:` with the properties beside it.
fn step_schema() -> Value {
    json!({
        "description": "A step: a name, or a name with properties.",
        "anyOf": [
            kind_schema(Kind::Text),
            {
                "type": "object",
                "minProperties": 1,
                "properties": properties(STEP.iter()),
                "additionalProperties": { "anyOf": [
                    { "$ref": "#/definitions/step-properties" },
                    kind_schema(Kind::Text),
                    { "type": "null" },
                ] },
            },
        ],
    })
}

fn kind_schema(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({ "type": ["string", "number", "boolean"] }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Integer(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Duration => json!({ "type": "string", "pattern": "^([0-9]+h)?([0-9]+m)?([0-9]+s)?$" }),
        Kind::Word(words) => json!({ "enum": words }),
        Kind::List(item) => json!({ "type": "array", "items": kind_schema(*item) }),
        Kind::OneOrList(item) => {
            json!({ "anyOf": [kind_schema(*item), { "type": "array", "items": kind_schema(*item) }] })
        }
        Kind::Map(value) => json!({ "type": "object", "additionalProperties": kind_schema(*value) }),
        Kind::Of(name) => json!({ "$ref": format!("#/definitions/{name}") }),
        Kind::Any(kinds) => json!({ "anyOf": kinds.iter().copied().map(kind_schema).collect::<Vec<_>>() }),
    }
}
