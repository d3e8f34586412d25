//! The OpenAPI 3.1 document, made of the types that are read and written. Names of apis and pods are those in force.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

use super::input::{LeaseAnswer, LeaseRequest, ReleaseAnswer, ReleaseRequest, RenewRequest};
use super::reply::Reply;
use crate::names::ANY_ID_PATTERN;
use crate::server::Shared;

/// `GET /v1/openapi.json`: with the names of the apis and pods now in force.
pub(super) fn answer(shared: &Shared) -> Response<Reply> {
    let mut document = document();
    let rules = shared.directory.rules();
    let apis: Vec<&str> = rules.apis.iter().map(|api| api.name.as_str()).collect();
    let pods: Vec<&str> = rules.pods().map(|pod| pod.name.as_str()).collect();
    let asked = &mut document["components"]["schemas"]["LeaseRequest"]["properties"];
    asked["api"]["enum"] = json!(apis);
    asked["pod"]["enum"] = json!(pods);
    asked["prefer"]["enum"] = json!(pods);
    if shared.pods.is_none()
        && let Some(paths) = document["paths"].as_object_mut()
    {
        paths.remove("/v1/pods/{name}");
    }
    let mut answer = Response::new(Reply::full(Bytes::from(document.to_string())));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// The document of any pool.
pub(crate) fn document() -> Value {
    let mut types = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let mut paths = json!({
        "/v1/leases": {"post": acquire(&mut types)},
        "/v1/leases/release": {"post": release(&mut types)},
        "/v1/leases/{id}": {
            "parameters": [parameter("id", "The lease's id, or its name at this gate.", ANY_ID_PATTERN)],
            "put": renew(&mut types),
            "delete": give_back(),
        },
        "/v1/pods/{name}": {
            "parameters": [parameter("name", "The pod's name.", "^[A-Za-z0-9._-]{1,128}$")],
            "put": register(),
            "delete": deregister(),
        },
        "/v1/openapi.json": {"get": openapi()},
    });
    guard(&mut paths);
    let mut schemas = Value::Object(types.take_definitions(true));
    schemas["Problem"] = problem_schema();
    // Of those that are not always there the schema's maker knows only in what is read.
    schemas["LeaseAnswer"]["required"] = json!(["id", "pod", "url", "weight"]);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sluicegate decisions",
            "version": "1",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Asks for the capacity units of one request, and gives them back.",
        },
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {
                "type": "http", "scheme": "bearer",
                "description": "Needed where `decisions.token` is set, but not on a Unix socket.",
            }},
        },
    })
}

/// Every call may be answered 401, but for this document.
fn guard(paths: &mut Value) {
    let calls = paths.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut);
    for call in calls.filter_map(Value::as_object_mut).flat_map(serde_json::Map::values_mut) {
        if call.get("responses").is_some() && call.get("security").is_none() {
            call["responses"]["401"] = problem_response("The token is missing or wrong.");
        }
    }
}

fn acquire(types: &mut SchemaGenerator) -> Value {
    let mut call =
        operation("acquireLease", "Asks for a lease; waits for room as long as the api or `wait_ms` says.");
    call["description"] = json!(
        "The caller's leaving withdraws an ask that waits. With the request header `Connection-lifetime: held` the \
         answer is one line of JSON in a body that stays open, with empty lines now and then: the lease lives until \
         either side closes it."
    );
    call["parameters"] = json!([
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": false,
            "description": "A call sent again with the same key gets the same lease. Not looked at when there is an `id`.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 128},
        },
    ]);
    call["requestBody"] = body::<LeaseRequest>(types, true);
    call["responses"]["201"] = json!({
        "description": "The lease.",
        "headers": {
            "Location": {"schema": {"type": "string"}},
            "Server-Timing": {"schema": {"type": "string"}, "description": "`admission;dur=` milliseconds waited."},
        },
        "content": content::<LeaseAnswer>(types),
        "links": {
            "renew": {"operationId": "renewLease", "parameters": {"id": "$response.body#/id"}},
            "giveBack": {"operationId": "giveBackLease", "parameters": {"id": "$response.body#/id"}},
        },
    });
    call["responses"]["409"] =
        problem_response("The id is taken by another ask, has ended, or was cancelled.");
    let mut refused = problem_response("No room. `elsewhere` names a pod with room, for pinned asks.");
    refused["headers"] = json!({
        "Retry-After": {"schema": {"type": "integer", "minimum": 1, "maximum": 60}},
        "x-sluicegate-reason": {"schema": {"type": "string"}},
    });
    call["responses"]["429"] = refused;
    call["responses"]["503"] =
        problem_response("Too heavy for every pod, no pod is ready, or the gate is draining.");
    call
}

fn renew(types: &mut SchemaGenerator) -> Value {
    let mut call = operation("renewLease", "Renews a lease: it lives on from now.");
    call["requestBody"] = body::<RenewRequest>(types, false);
    call["responses"]["200"] =
        json!({"description": "The lease, as it is now.", "content": content::<LeaseAnswer>(types)});
    call["responses"]["404"] = problem_response("There is no such lease, or no longer.");
    call
}

fn give_back() -> Value {
    let mut call = operation(
        "giveBackLease",
        "Gives a lease back, or cancels the ask that waits, or will come, under this id.",
    );
    call["parameters"] = json!([{
        "name": "outcome",
        "in": "query",
        "required": false,
        "description": "How the request ended: `failed` at its pod; the pod's own lock refused it (`pod_full`: its usable \
                        units drop for a while); it surely never reached the pod (`not_started`). After these two an \
                        ask with `after` keeps the place in the line, for a second. `unreachable`: as \
                        `not_started`, without another ask.",
        "schema": {"type": "string", "enum": ["done", "failed", "unreachable", "pod_full", "not_started"]},
    }]);
    call["responses"]["204"] = json!({"description": "It has ended, now or before."});
    call
}

fn release(types: &mut SchemaGenerator) -> Value {
    let mut call = operation("giveBackLeases", "Gives many leases back.");
    call["requestBody"] = body::<ReleaseRequest>(types, true);
    call["responses"]["200"] =
        json!({"description": "What ended.", "content": content::<ReleaseAnswer>(types)});
    call
}

fn register() -> Value {
    let mut call = operation("registerPod", "A pod registers itself, or says that it is still there.");
    call["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": {
        "type": "object",
        "additionalProperties": false,
        "required": ["url", "capacity", "ttl_ms"],
        "properties": {
            "url": {"type": "string", "pattern": "^(http|h2c)://[a-z0-9.]+:[1-9][0-9]{0,3}$",
                    "description": "Where it is, as in the configuration."},
            "capacity": {"type": "integer", "minimum": 1, "maximum": sluicegate::policy::UNITS_MAX,
                         "description": "Units it can hold at once."},
            "ttl_ms": {"type": "integer", "minimum": 500, "maximum": 86_400_000,
                       "description": "It is gone when it was silent for so many milliseconds."},
        },
    }}}});
    call["responses"]["200"] = json!({"description": "It was there before."});
    call["responses"]["201"] = json!({"description": "It is new."});
    call["responses"]["409"] = problem_response("The pods of this pool do not register.");
    call["responses"]["422"] = problem_response("The pool with this pod would not be valid.");
    call["responses"]["503"] = problem_response("The ledger cannot be told now.");
    call
}

fn deregister() -> Value {
    let mut call = operation("deregisterPod", "A pod goes: nothing new is sent to it.");
    call["responses"]["204"] = json!({"description": "It goes, or was not there."});
    call["responses"]["409"] = problem_response("The pods of this pool do not register.");
    call["responses"]["503"] = problem_response("The ledger cannot be told now.");
    call
}

fn openapi() -> Value {
    json!({
        "operationId": "openapi",
        "summary": "This document.",
        "responses": {"200": {
            "description": "This document.",
            "content": {"application/json": {"schema": {"type": "object"}}},
        }},
    })
}

/// A call with the answers that every call can have.
fn operation(id: &str, summary: &str) -> Value {
    json!({
        "operationId": id,
        "summary": summary,
        "responses": {
            "400": problem_response("A field is not as it should be; `field` names it."),
            "408": problem_response("The body came too slowly."),
            "413": problem_response("The body is too large."),
            "415": problem_response("The body is not said to be JSON."),
        },
    })
}

fn problem_response(description: &str) -> Value {
    let schema = json!({"$ref": "#/components/schemas/Problem"});
    json!({"description": description, "content": {"application/problem+json": {"schema": schema}}})
}

fn problem_schema() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "description": "RFC 9457.",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": text, "title": text, "detail": text, "reason": text, "field": text, "api": text, "pool": text,
            "elsewhere": text,
            "status": {"type": "integer"},
            "weight": {"type": "integer"},
            "problems": {"type": "array", "items": {"type": "object"}},
        },
    })
}

fn parameter(name: &str, description: &str, pattern: &str) -> Value {
    json!({
        "name": name, "in": "path", "required": true, "description": description,
        "schema": {"type": "string", "pattern": pattern},
    })
}

fn body<T: JsonSchema>(types: &mut SchemaGenerator, required: bool) -> Value {
    json!({"required": required, "content": content::<T>(types)})
}

fn content<T: JsonSchema>(types: &mut SchemaGenerator) -> Value {
    json!({"application/json": {"schema": types.subschema_for::<T>()}})
}
