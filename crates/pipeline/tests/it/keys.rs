//! The table of keys, the reader, the schema and the reference say the same.
//!
//! `SEALIFT_BLESS=1` writes the schema and the tables of the reference anew.

use std::path::{Path, PathBuf};

use sealift_pipeline::config::keys::{Key, Kind, MAPS, SCRIPT};
use sealift_pipeline::config::{parse, schema};
use sealift_pipeline::yaml::{self, Meaning, Node};
use serde_json::{Map, Value};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

fn blessed(path: &Path, want: &str) {
    if std::env::var_os("SEALIFT_BLESS").is_some() {
        std::fs::write(path, want).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(there == want, "{} is not up to date: run this test with SEALIFT_BLESS=1", path.display());
}

/// A file that holds one key with its example.
fn file(map: &str, key: &str, value: &str) -> String {
    let pipeline = |inner: &str| {
        format!(
            "sealift: 1\nbox: a\nbuild:\n  steps: [a]\nlint:\n  steps: [a]\ntest:\n{inner}\n  steps: [a]\n"
        )
    };
    let setting = |name: &str, inner: &str| pipeline(&format!("  {name}: {{{inner}}}"));
    let entry = format!("{key}: {value}");
    match (map, key) {
        ("file", "sealift") => format!("{entry}\nbox: a\nbuild:\n  steps: [a]\n"),
        ("file", "box") => format!("sealift: 1\n{entry}\nbuild:\n  steps: [a]\n"),
        ("file", _) => format!("sealift: 1\nbox: a\n{entry}\nbuild:\n  steps: [a]\n"),
        ("pipeline", "steps") => {
            format!("sealift: 1\nbox: a\nbuild:\n  steps: [a]\nlint:\n  steps: [a]\ntest:\n  {entry}\n")
        }
        ("pipeline", _) => pipeline(&format!("  {entry}")),
        ("box", "id") => pipeline(&format!("  box: {{{entry}}}")),
        ("box", _) => pipeline(&format!("  box: {{id: a, {entry}}}")),
        ("step-properties", _) => pipeline(&format!("  after-steps: [{{script: {{{entry}}}}}]")),
        ("workflow", "name") => {
            pipeline("  timeout: 1m") + &format!("workflows: [{{{entry}, pipelines: [build]}}]\n")
        }
        ("workflow", _) => {
            let deploy = "deploy:\n  steps: [a]\n";
            pipeline("  timeout: 1m") + deploy + &format!("workflows: [{{name: w, {entry}}}]\n")
        }
        ("place", "name" | "pipelineName" | "pipeline") => {
            let name = if key == "name" { String::new() } else { "name: x, ".to_owned() };
            pipeline("  timeout: 1m") + &format!("workflows: [{{name: w, pipelines: [{{{name}{entry}}}]}}]\n")
        }
        ("place", _) => {
            let places = format!("build, lint, {{name: test, {entry}}}");
            pipeline("  timeout: 1m") + &format!("workflows: [{{name: w, pipelines: [{places}]}}]\n")
        }
        ("matrix", _) => setting("matrix", &format!("RUBY: ['3.2', '3.3'], DB: [pg, mysql], {entry}")),
        ("secret", "from") => pipeline(&format!("  secrets: [{{{entry}}}]")),
        ("secret", _) => pipeline(&format!("  secrets: [{{from: X, {entry}}}]")),
        ("cache", "key") => setting("cache", &format!("paths: [a], {entry}")),
        ("cache", "paths") => setting("cache", &format!("key: a, {entry}")),
        ("cache", _) => setting("cache", &format!("key: a, paths: [a], {entry}")),
        ("concurrency", "group") | ("artifacts", _) => setting(map, &entry),
        ("concurrency", _) => setting("concurrency", &format!("group: a, {entry}")),
        ("ready", "timeout") => pipeline(&format!("  services: [{{id: a, ready: {{port: 1, {entry}}}}}]")),
        ("ready", _) => pipeline(&format!("  services: [{{id: a, ready: {{{entry}}}}}]")),
        _ => setting(map, &entry),
    }
}

fn all_keys() -> impl Iterator<Item = (&'static str, &'static Key)> {
    let tables = MAPS.iter().map(|map| (map.name, map.keys)).chain([("step-properties", SCRIPT)]);
    tables.flat_map(|(map, keys)| keys.iter().map(move |key| (map, key)))
}

#[test]
fn every_key_is_read_and_is_in_the_schema() {
    let schema = schema();
    for (map, key) in all_keys() {
        let text = file(map, key.name, key.example);
        let (_, found) = parse(&text).unwrap_or_else(|found| panic!("{map}.{}: {found:?}\n{text}", key.name));
        assert!(found.is_empty(), "{map}.{}: {found:?}\n{text}", key.name);
        let known = &schema["definitions"][map]["properties"][key.name];
        assert!(known.is_object(), "{map}.{} is not in the schema", key.name);
        let wrong = validate(&schema, &schema, &json(&text), "");
        assert!(wrong.is_none(), "{map}.{}: {wrong:?}\n{text}", key.name);
    }
}

/// Native keys do nothing in a file that does not ask for them, and say so.
#[test]
fn without_the_version_native_keys_are_warned_of() {
    for (map, key) in all_keys().filter(|(map, key)| {
        key.native
            && key.name != "sealift"
            && matches!(*map, "pipeline" | "box" | "step-properties" | "workflow" | "place")
    }) {
        let text = file(map, key.name, key.example).replace("sealift: 1\n", "");
        let (Ok((_, found)) | Err(found)) = parse(&text);
        let told = found.iter().any(|d| d.help.as_deref().is_some_and(|help| help.contains("`sealift: 1`")));
        assert!(told, "{map}.{}: {found:?}\n{text}", key.name);
    }
}

/// The words that the reader's code compares keys with are all in the table.
#[test]
fn the_reader_knows_no_other_keys() {
    let sources = [
        include_str!("../../src/config/read.rs"),
        include_str!("../../src/config/read_settings.rs"),
        include_str!("../../src/config/read_workflow.rs"),
    ];
    let known: Vec<&str> = all_keys().map(|(_, key)| key.name).collect();
    let words = ["failed", "timed-out"];
    let mut seen = 0;
    for source in sources {
        let code = source.split("#[cfg(test)]").next().unwrap();
        for line in code.lines().map(str::trim).filter(|line| line.starts_with('"')) {
            let Some((arm, _)) = line.split_once("=>") else { continue };
            let arm = arm.split(" if ").next().unwrap();
            for name in arm.split('|').map(|name| name.trim().trim_matches('"')) {
                assert!(known.contains(&name) || words.contains(&name), "{name} is not in the table of keys");
                seen += 1;
            }
        }
    }
    assert!(seen > 40, "the reader's code is written in another way now: {seen}");
}

#[test]
fn the_schema_that_is_shipped_is_up_to_date() {
    let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    blessed(&docs().join("wercker.schema.json"), &text);
}

#[test]
fn clean_files_of_the_corpus_are_valid() {
    let Some(dir) = crate::corpus::corpus() else { return };
    let schema = schema();
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yml") {
            let text = std::fs::read_to_string(&path).unwrap();
            if parse(&text).is_ok_and(|(_, found)| found.is_empty()) {
                let wrong = validate(&schema, &schema, &json(&text), "");
                assert!(wrong.is_none(), "{}: {wrong:?}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn the_schema_refuses_what_is_wrong() {
    let schema = schema();
    for text in [
        "box: {id: a, tga: b}\n",
        "box: [a]\n",
        "services: redis\n",
        "build: {steps: {a: b}}\n",
        "build: {timeout: 20}\n",
        "build: {retry: {attempt: 1}}\n",
        "build: {cache: {key: a}}\n",
        "sealift: 2\n",
        "workflows: [{name: a, pipelines: [{nmae: b}]}]\n",
        "build: {retry: {on: fialed}}\n",
    ] {
        assert!(validate(&schema, &schema, &json(text), "").is_some(), "{text}");
    }
}

/// As an editor sees a YAML file.
fn json(text: &str) -> Value {
    fn value(node: &Node) -> Value {
        if let Some(items) = node.sequence() {
            return items.iter().map(value).collect();
        }
        if let Some(pairs) = node.mapping() {
            let pair = |(key, content): &(Node, Node)| (key.text().unwrap().to_owned(), value(content));
            return Value::Object(pairs.iter().map(pair).collect::<Map<_, _>>());
        }
        match node.meaning() {
            Some(Meaning::Null) | None => Value::Null,
            Some(Meaning::Bool(flag)) => flag.into(),
            Some(Meaning::Int(number)) => number.into(),
            Some(Meaning::Float(text)) => text.parse::<f64>().unwrap().into(),
            Some(Meaning::Text(text)) => text.into(),
        }
    }
    value(&yaml::parse(text).unwrap().unwrap())
}

/// The first thing that is wrong, by the part of JSON schema that ours uses.
fn validate(root: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    let Some(schema) = schema.as_object() else {
        return (schema == &Value::Bool(false)).then(|| format!("{at} is not allowed"));
    };
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let name = reference.strip_prefix("#/definitions/").unwrap();
        return validate(root, &root["definitions"][name], value, at);
    }
    for (word, rule) in schema {
        let wrong = match word.as_str() {
            "description" | "patternProperties" | "properties" => None,
            "type" => {
                let types = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                let is = |name: &str| match name {
                    "string" => value.is_string(),
                    "number" => value.is_number(),
                    "integer" => value.is_i64(),
                    "boolean" => value.is_boolean(),
                    "array" => value.is_array(),
                    "object" => value.is_object(),
                    "null" => value.is_null(),
                    other => panic!("{other}"),
                };
                let any = types.iter().any(|name| is(name.as_str().unwrap()));
                (!any).then(|| format!("{at}: {value} is no {rule}"))
            }
            "anyOf" => {
                let wrong: Option<Vec<String>> =
                    rule.as_array().unwrap().iter().map(|one| validate(root, one, value, at)).collect();
                wrong.map(|all| all.join(" or "))
            }
            "allOf" => rule.as_array().unwrap().iter().find_map(|one| validate(root, one, value, at)),
            "enum" => {
                (!rule.as_array().unwrap().contains(value)).then(|| format!("{at}: {value} not in {rule}"))
            }
            "minimum" => value.as_i64().filter(|n| *n < rule.as_i64().unwrap()).map(|n| format!("{at}: {n}")),
            "maximum" => value.as_i64().filter(|n| *n > rule.as_i64().unwrap()).map(|n| format!("{at}: {n}")),
            "minProperties" => {
                value.as_object().filter(|map| map.is_empty()).map(|_| format!("{at} is empty"))
            }
            // There is one: durations.
            "pattern" => value
                .as_str()
                .filter(|text| sealift_pipeline::config::settings::parse_duration(text).is_none())
                .map(|text| format!("{at}: {text}")),
            "items" => value.as_array().and_then(|items| {
                items
                    .iter()
                    .enumerate()
                    .find_map(|(n, item)| validate(root, rule, item, &format!("{at}/{n}")))
            }),
            "required" => value.as_object().and_then(|map| {
                let names = rule.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
                names
                    .into_iter()
                    .find(|name| !map.contains_key(*name))
                    .map(|name| format!("{at} lacks {name}"))
            }),
            "additionalProperties" => None,
            other => panic!("the test's validator does not know {other}"),
        };
        if wrong.is_some() {
            return wrong;
        }
    }
    let held = |name: &str| {
        schema.contains_key("patternProperties") && (name.starts_with("x-") || name.starts_with('.'))
    };
    value.as_object().filter(|_| schema.contains_key("additionalProperties"))?.iter().find_map(
        |(name, value)| {
            let at = format!("{at}/{name}");
            match schema.get("properties").and_then(|known| known.get(name)) {
                Some(rule) => validate(root, rule, value, &at),
                None if held(name) => None,
                None => validate(root, &schema["additionalProperties"], value, &at),
            }
        },
    )
}

/// What a kind is called in the reference.
fn kind_name(kind: Kind) -> String {
    match kind {
        Kind::Text => "text".into(),
        Kind::Bool => "true or false".into(),
        Kind::Integer(least, most) if least == most => least.to_string(),
        Kind::Integer(least, most) => format!("{least} to {most}"),
        Kind::Duration => "duration".into(),
        Kind::Word(words) => words.join(", "),
        Kind::List(item) => format!("list of {}", kind_name(*item)),
        Kind::OneOrList(item) => format!("{}, or a list", kind_name(*item)),
        Kind::Map(_) => "map of names to text".into(),
        Kind::Of("step") => "steps".into(),
        Kind::Of(name) => format!("map ({name})"),
        Kind::Any(kinds) => kinds.iter().map(|kind| kind_name(*kind)).collect::<Vec<_>>().join(" or "),
    }
}

fn table(keys: &[&Key]) -> String {
    let mut out = String::from("| key | value | example | what it does |\n|---|---|---|---|\n");
    for key in keys {
        let version = if key.native { " **1**" } else { "" };
        // A bar would end the cell.
        let example = key.example.replace('|', "\\|");
        out.push_str(&format!(
            "| `{}`{version} | {} | `{example}` | {} |\n",
            key.name,
            kind_name(key.kind),
            key.about
        ));
    }
    out
}

/// The tables between `<!-- keys NAME -->` and `<!-- end -->` are the table of keys, and every block of YAML is a file
/// that is read without a word.
#[test]
fn the_reference_is_up_to_date_and_its_examples_are_read() {
    let path = docs().join("wercker-yml.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut out = String::new();
    let mut rest = text.as_str();
    let mut named = Vec::new();
    while let Some((before, after)) = rest.split_once("<!-- keys ") {
        let (name, inner) = after.split_once(" -->").unwrap();
        let (_, after) = inner.split_once("<!-- end -->").unwrap();
        let keys: Vec<&Key> = all_keys().filter(|(map, _)| *map == name).map(|(_, key)| key).collect();
        assert!(!keys.is_empty(), "{name}");
        out.push_str(&format!("{before}<!-- keys {name} -->\n{}<!-- end -->", table(&keys)));
        named.push(name);
        rest = after;
    }
    out.push_str(rest);
    for map in MAPS {
        assert!(named.contains(&map.name), "the reference has no table of {}", map.name);
    }
    blessed(&path, &out);
    let blocks: Vec<&str> =
        text.split("```yaml\n").skip(1).filter_map(|block| block.split("```").next()).collect();
    assert!(blocks.len() > 5);
    for block in blocks {
        let (_, found) = parse(block).unwrap_or_else(|found| panic!("{found:?}\n{block}"));
        assert_eq!(found, [], "{block}");
    }
}
