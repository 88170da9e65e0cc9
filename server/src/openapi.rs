//! The OpenAPI document, made from the table of routes.

use serde_json::{Map, Value, json};

use crate::routes::{self, Route};

/// Makes the document.
pub fn document(version: &str) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes::all() {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(route.method.to_lowercase(), operation(route));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Larder",
            "version": version,
            "description": "Every operation is a run of larder; documents are those of its --json output (docs/json.md). docs/serve.md explains this API.",
        },
        "paths": paths,
        "security": [{"token": []}, {"cookie": [], "csrf": []}],
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": crate::logins::COOKIE},
                "csrf": {"type": "apiKey", "in": "header", "name": "X-CSRF-Token"},
            },
            "schemas": {
                "Problem": {
                    "type": "object",
                    "required": ["type", "title", "status", "detail"],
                    "properties": {
                        "type": {"type": "string"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string", "description": "a sentence for people"},
                        "code": {"type": "integer", "description": "the exit code of the command that failed"},
                        "field": {"type": "string", "description": "the field of the request that is wrong"},
                    },
                },
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let of_path = names_in(route.path).map(
        |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}),
    );
    let of_query = route.query.iter().map(|name| {
        json!({"name": name, "in": "query", "required": false, "schema": {"type": "string"}})
    });
    let begins_run = route.status == 202;
    let key = begins_run.then(|| {
        json!({"name": "Idempotency-Key", "in": "header", "required": false,
               "schema": {"type": "string", "minLength": 1, "maxLength": 128}})
    });
    let parameters: Vec<Value> = of_path.chain(of_query).chain(key).collect();
    let problem = json!({
        "description": "it was not done",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    });
    let mut responses = Map::new();
    responses.insert(
        route.status.to_string(),
        json!({"description": "it was done"}),
    );
    if begins_run {
        let again = json!({"description": "the run that this Idempotency-Key began before"});
        responses.insert("200".to_owned(), again);
    }
    responses.insert("default".to_owned(), problem);
    let mut operation = json!({
        "summary": route.summary,
        "operationId": id(route),
        "parameters": parameters,
        "responses": responses,
        "x-larder-scope": route.scope.map(|scope| scope.word()),
    });
    let Some(fields) = operation.as_object_mut() else {
        return operation;
    };
    if route.scope.is_none() {
        fields.insert("security".to_owned(), json!([]));
    }
    if !route.fields.is_empty() {
        let properties = route
            .fields
            .iter()
            .map(|name| ((*name).to_owned(), json!({})));
        let properties: Map<String, Value> = properties.collect();
        let kind = match route.is_upload {
            true => "multipart/form-data",
            false => "application/json",
        };
        let body = json!({
            "content": {kind: {"schema": {"type": "object", "properties": properties}}},
        });
        fields.insert("requestBody".to_owned(), body);
    }
    operation
}

/// Gives the names in braces of a path.
fn names_in(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn id(route: &Route) -> String {
    let parts = route.path.split('/').filter(|part| !part.is_empty());
    let parts = parts.map(|part| part.trim_matches(['{', '}']).replace(['.', '-'], "_"));
    let parts: Vec<String> = parts.collect();
    format!("{}_{}", route.method.to_lowercase(), parts.join("_"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_has_every_route_once() {
        let document = document("1");
        let mut ids = BTreeSet::new();
        for route in routes::all() {
            let operation = &document["paths"][route.path][route.method.to_lowercase()];
            assert_eq!(operation["summary"], route.summary, "{}", route.path);
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()));
            let parameters = operation["parameters"].as_array().unwrap();
            let of_path = parameters
                .iter()
                .filter(|parameter| parameter["in"] == "path");
            assert_eq!(of_path.count(), route.path.matches('{').count());
        }
        assert_eq!(names_in("/a/{b}/c/{d}").collect::<Vec<_>>(), ["b", "d"]);
    }
}
