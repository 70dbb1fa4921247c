//! The JSON Schema of the configuration, from the same description that reads it.

use serde_json::{Map, Value, json};

use super::keys::{self, Key, Kind, Need, Table};

/// A JSON Schema (draft 7) of a configuration file.
pub fn schema() -> Value {
    let mut schema = titled("rathole", true);
    schema["anyOf"] = json!([{ "required": ["server"] }, { "required": ["client"] }]);
    schema
}

/// The same of a fragment: what it leaves out is in the main file. Only its services must be whole.
pub fn fragment() -> Value {
    titled("rathole: a fragment", false)
}

fn titled(title: &str, whole: bool) -> Value {
    let mut schema = table(&keys::ROOT, whole);
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!(title);
    schema
}

fn table(table: &Table, whole: bool) -> Value {
    let properties: Map<String, Value> =
        table.keys.iter().map(|each| (each.name.to_owned(), key(each, whole))).collect();
    let required = table.keys.iter().filter(|key| whole && matches!(key.need, Need::Required));
    let required: Vec<&str> = required.map(|key| key.name).collect();
    let mut schema = json!({
        "description": table.doc,
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    let pairs = table.keys.iter().filter(|key| matches!(key.kind, Kind::Secret));
    let both: Vec<Value> =
        pairs.map(|key| json!({ "not": { "required": [key.name, format!("{}_file", key.name)] } })).collect();
    if !both.is_empty() {
        schema["allOf"] = json!(both);
    }
    schema
}

fn key(key: &Key, whole: bool) -> Value {
    let mut schema = match key.kind {
        Kind::Table(inner) => table(inner, whole),
        Kind::Services(inner) => json!({ "type": "object", "additionalProperties": table(inner, true) }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Seconds { .. } | Kind::Count { .. } => {
            json!({ "type": "integer", "minimum": 0, "maximum": i64::MAX })
        }
        Kind::Prefixes => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Choice(choices) => json!({ "type": "string", "enum": choices }),
        Kind::Url => json!({ "type": "string", "pattern": "^([Hh][Tt][Tt][Pp]|[Ss][Oo][Cc][Kk][Ss]5)://" }),
        Kind::Address => json!({ "type": "string", "pattern": "^.+:[0-9]+$" }),
        Kind::Text | Kind::Secret | Kind::Path => json!({ "type": "string" }),
    };
    let unit = if matches!(key.kind, Kind::Seconds { .. }) { " Seconds." } else { "" };
    let ours = if key.ours { " Not known to rathole 0.5." } else { "" };
    schema["description"] = json!(format!("{}{unit}{ours}", key.doc));
    match key.need {
        Need::Required | Need::Optional => {}
        Need::Number(number) => schema["default"] = json!(number),
        Need::Flag(flag) => schema["default"] = json!(flag),
        Need::Text(text) => schema["default"] = json!(text),
    }
    schema
}
