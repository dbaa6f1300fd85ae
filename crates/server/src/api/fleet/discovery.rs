//! The description of fleet's API that its client generators read, in Google's discovery format.

use axum::Json;
use serde_json::{Value, json};

pub(in crate::api) async fn discovery() -> Json<Value> {
    let string = || json!({ "type": "string" });
    let object =
        |id: &str, properties: Value| json!({ "id": id, "type": "object", "properties": properties });
    let page_of = |id: &str, name: &str, of: &str| {
        let items = json!({ "type": "array", "items": { "$ref": of } });
        object(id, json!({ name: items, "nextPageToken": { "type": "string" } }))
    };
    let in_path = |name: &str| json!({ name: { "type": "string", "location": "path", "required": true } });
    let paging = || json!({ "nextPageToken": { "type": "string", "location": "query" } });
    let filters = json!({
        "nextPageToken": { "type": "string", "location": "query" },
        "unitName": { "type": "string", "location": "query" },
        "machineID": { "type": "string", "location": "query" },
    });
    let list = |id: &str, path: &str, parameters: Value, answer: &str| {
        json!({ "id": id, "description": "Retrieve a page of them.", "httpMethod": "GET", "path": path,
            "parameters": parameters, "response": { "$ref": answer } })
    };
    let unit_name = || in_path("unitName");
    let states = json!({ "type": "string", "enum": ["inactive", "loaded", "launched"] });
    Json(json!({
        "discoveryVersion": "v1",
        "id": "fleet:v1",
        "title": "fleet API",
        "description": "",
        "documentationLink": "http://github.com/coreos/fleet",
        "name": "schema",
        "version": "v1",
        "revision": "20141106",
        "kind": "discovery#restDescription",
        "protocol": "rest",
        "icons": { "x16": "", "x32": "" },
        "labels": [],
        "baseUrl": "/fleet/v1/",
        "basePath": "/fleet/v1/",
        "rootUrl": "/",
        "servicePath": "fleet/v1/",
        "batchPath": "batch",
        "parameters": {},
        "auth": {},
        "schemas": {
            "Machine": object("Machine", json!({
                "id": string(),
                "primaryIP": string(),
                "metadata": { "type": "object", "additionalProperties": { "type": "string" } },
            })),
            "MachinePage": page_of("MachinePage", "machines", "Machine"),
            "UnitOption": object("UnitOption", json!({ "section": string(), "name": string(), "value": string() })),
            "Unit": object("Unit", json!({
                "name": string(),
                "options": { "type": "array", "items": { "$ref": "UnitOption" } },
                "desiredState": states,
                "currentState": states,
                "machineID": string(),
            })),
            "UnitPage": page_of("UnitPage", "units", "Unit"),
            "UnitState": object("UnitState", json!({
                "name": string(),
                "hash": string(),
                "machineID": string(),
                "systemdLoadState": string(),
                "systemdActiveState": string(),
                "systemdSubState": string(),
            })),
            "UnitStatePage": page_of("UnitStatePage", "states", "UnitState"),
        },
        "resources": {
            "Machines": { "methods": {
                "List": list("fleet.Machine.List", "machines", paging(), "MachinePage"),
            } },
            "Units": { "methods": {
                "List": list("fleet.Unit.List", "units", paging(), "UnitPage"),
                "Get": {
                    "id": "fleet.Unit.Get", "description": "Retrieve a single Unit object.", "httpMethod": "GET",
                    "path": "units/{unitName}", "parameters": unit_name(), "parameterOrder": ["unitName"],
                    "response": { "$ref": "Unit" },
                },
                "Delete": {
                    "id": "fleet.Unit.Delete", "description": "Delete the referenced Unit object.",
                    "httpMethod": "DELETE", "path": "units/{unitName}", "parameters": unit_name(),
                    "parameterOrder": ["unitName"],
                },
                "Set": {
                    "id": "fleet.Unit.Set", "description": "Create or update a Unit.", "httpMethod": "PUT",
                    "path": "units/{unitName}", "parameters": unit_name(), "parameterOrder": ["unitName"],
                    "request": { "$ref": "Unit" },
                },
            } },
            "UnitState": { "methods": {
                "List": list("fleet.UnitState.List", "state", filters, "UnitStatePage"),
                "Get": {
                    "id": "fleet.UnitState.Get", "description": "Retrieve the state of one unit.",
                    "httpMethod": "GET", "path": "state/{unitName}", "parameters": unit_name(),
                    "parameterOrder": ["unitName"], "response": { "$ref": "UnitState" },
                },
            } },
        },
    }))
}
