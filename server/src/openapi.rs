//! The OpenAPI document, made from the table of routes and from the types that are read and sent.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::problem::Wire;
use crate::routes::{self, Route};
use crate::schema::{Answers, Document, RUN, What};

/// What is said of each status of a request that was not done.
const PROBLEMS: &[(u16, &str)] = &[
    (400, "it is not understood, or refused"),
    (401, "there is no token, or a wrong one"),
    (403, "the token does not suffice, or this is not allowed"),
    (404, "what is named is not there"),
    (408, "the body took longer than a minute"),
    (409, "it contradicts what is there"),
    (413, "the body is longer than 1 MiB"),
    (422, "the Idempotency-Key came before with another request"),
    (429, "too many wrong tokens came from this address"),
    (500, "it failed"),
    (503, "the service is ending"),
];

/// What the schemas of all answers are made with.
struct Schemas<'a> {
    /// Of what is read; each stands where it is used.
    requests: SchemaGenerator,
    /// Of what is sent; they have names.
    answers: SchemaGenerator,
    /// What the program answers.
    documents: &'a [Document],
}

/// Makes the document; `documents` are what the program answers with `--json`.
pub fn document(version: &str, documents: &[Document]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let inlined = settings
        .clone()
        .with(|settings| settings.inline_subschemas = true);
    let mut schemas = Schemas {
        requests: inlined.for_deserialize().into_generator(),
        answers: settings.for_serialize().into_generator(),
        documents,
    };
    let problem = schemas.answers.subschema_for::<Wire<'static>>();
    let mut paths: Map<String, Value> = Map::new();
    for route in routes::all() {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            let operation = operation(&mut schemas, route);
            path.insert(route.method.to_lowercase(), operation);
        }
    }
    let problems = PROBLEMS.iter().map(|(status, said)| {
        let content = json!({"application/problem+json": {"schema": problem}});
        (
            name_of(*status),
            json!({"description": said, "content": content}),
        )
    });
    let problems: Map<String, Value> = problems.collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Larder",
            "version": version,
            "description": "Every operation is a run of larder; documents are those of its --json output (docs/json.md), to which fields may be added. docs/serve.md explains this API.",
        },
        "paths": paths,
        "security": [{"token": []}, {"cookie": [], "csrf": []}],
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": crate::logins::COOKIE},
                "csrf": {"type": "apiKey", "in": "header", "name": "X-CSRF-Token"},
            },
            "responses": problems,
            "schemas": schemas.answers.take_definitions(true),
        },
    })
}

fn operation(schemas: &mut Schemas<'_>, route: &Route) -> Value {
    let of_path = names_in(route.path).map(|name| parameter_of_path(route, name));
    let of_query = route.query.iter().map(|parameter| parameter.described());
    let key = route.begins_run.then(|| {
        json!({"name": "Idempotency-Key", "in": "header", "required": false,
               "schema": {"type": "string", "minLength": 1, "maxLength": 128}})
    });
    let parameters: Vec<Value> = of_path.chain(of_query).chain(key).collect();
    let mut operation = json!({
        "summary": route.summary,
        "operationId": id(route),
        "tags": [tag(route.path)],
        "parameters": parameters,
        "responses": responses(schemas, route),
        "x-larder-scope": route.scope.map(|scope| scope.word()),
    });
    let Some(fields) = operation.as_object_mut() else {
        return operation;
    };
    match (route.scope, route.method) {
        (None, _) => fields.insert("security".to_owned(), json!([])),
        // What changes nothing needs no proof that a page of this service asks for it.
        (_, "GET") => fields.insert(
            "security".to_owned(),
            json!([{"token": []}, {"cookie": []}]),
        ),
        _ => None,
    };
    if let Some(of) = route.body {
        let schema = of(&mut schemas.requests);
        let kind = match route.is_upload {
            true => "multipart/form-data",
            false => "application/json",
        };
        let is_needed = schema.get("required").is_some();
        let body = json!({"required": is_needed, "content": {kind: {"schema": schema}}});
        fields.insert("requestBody".to_owned(), body);
    }
    operation
}

fn parameter_of_path(route: &Route, name: &str) -> Value {
    let schema = match name {
        "id" if route.path.contains("/snapshots/") => json!({
            "type": "string",
            "pattern": "^(latest(~[0-9]{1,9})?|[0-9a-fA-F]{1,32})$",
        }),
        _ => json!({"type": "string", "minLength": 1, "maxLength": 200}),
    };
    json!({"name": name, "in": "path", "required": true, "schema": schema})
}

/// Gives all answers of a route, by their status.
fn responses(schemas: &mut Schemas<'_>, route: &Route) -> Map<String, Value> {
    let mut of_status: Vec<(u16, Value)> = vec![(route.status, success(schemas, route))];
    if route.begins_run {
        let run = schemas.json(RUN);
        let again = "the run that this Idempotency-Key began before";
        of_status.push((
            200,
            json!({"description": again, "headers": location(), "content": content(&run)}),
        ));
    }
    let mut all: Map<String, Value> = Map::new();
    for (status, answer) in of_status {
        all.insert(status.to_string(), answer);
    }
    for (status, said, what) in route.others {
        let schema = schemas.json(*what);
        let other = all.entry(status.to_string());
        let other = other
            .or_insert_with(|| json!({"description": said, "content": content(&json!(false))}));
        let place = other.pointer_mut("/content/application~1json/schema");
        if let Some(place) = place {
            *place = match place.take() {
                Value::Bool(false) => schema,
                first => json!({"anyOf": [first, schema]}),
            };
        }
    }
    for status in problems(route) {
        let reference = format!("#/components/responses/{}", name_of(status));
        let answer = all.entry(status.to_string());
        answer.or_insert_with(|| json!({"$ref": reference}));
    }
    all
}

/// Gives the answer of a route where all is well.
fn success(schemas: &mut Schemas<'_>, route: &Route) -> Value {
    let mut answer = json!({"description": "it was done"});
    let Some(fields) = answer.as_object_mut() else {
        return answer;
    };
    if route.begins_run {
        fields.insert("headers".to_owned(), location());
    }
    let told = match route.answers {
        Answers::Nothing => return answer,
        Answers::One(what) => content(&schemas.json(what)),
        Answers::Page(what) => content(&page(&schemas.json(what), None)),
        Answers::PageAndSummary(what, summary) => {
            let (items, summary) = (schemas.json(what), schemas.json(summary));
            content(&page(&items, Some(&summary)))
        }
        Answers::WithList(what, name, item) => {
            let (one, item) = (schemas.json(what), schemas.json(item));
            let list = json!({"type": "object", "required": [name], "properties": {name: {"type": "array", "items": item}}});
            content(&json!({"allOf": [one, list]}))
        }
        Answers::Raw(kind) => json!({kind: {"schema": {"type": "string", "format": "binary"}}}),
        Answers::Events(events) => {
            let events = events
                .iter()
                .map(|(name, what)| ((*name).to_owned(), schemas.json(*what)));
            let events: Map<String, Value> = events.collect();
            let names: Vec<&String> = events.keys().collect();
            let one = json!({
                "type": "object",
                "required": ["event", "data"],
                "properties": {
                    "event": {"enum": names},
                    "data": {"type": "string", "contentMediaType": "application/json"},
                },
            });
            // OpenAPI 3.1 has no word for what the data of each event is; by habit the schema is that of one event.
            json!({"text/event-stream": {"schema": one, "x-larder-events": events}})
        }
    };
    fields.insert("content".to_owned(), told);
    answer
}

/// Gives the statuses of what is not done.
fn problems(route: &Route) -> Vec<u16> {
    let mut all = vec![400, 500];
    if route.scope.is_some() {
        all.extend([401, 403, 404, 409, 429]);
    }
    if route.path == "/login" {
        all.extend([401, 403, 429]);
    }
    if route.method != "GET" {
        all.extend([408, 413]);
    }
    if route.begins_run {
        all.extend([422, 503]);
    }
    all.sort_unstable();
    all
}

impl Schemas<'_> {
    fn json(&mut self, what: What) -> Value {
        match what {
            What::Own(of) => of(&mut self.answers).to_value(),
            What::Program(name) => self.program(name),
            What::ProgramAnd(name, of) => {
                let more = of(&mut self.answers).to_value();
                json!({"allOf": [self.program(name), more]})
            }
        }
    }

    /// Gives what the program answers; what it has no schema of would fit nothing, so that a test notices.
    fn program(&mut self, name: &str) -> Value {
        let found = self.documents.iter().find(|(known, _)| *known == name);
        match found {
            Some((_, of)) => of(&mut self.answers).to_value(),
            None => Value::Bool(false),
        }
    }
}

fn content(schema: &Value) -> Value {
    json!({"application/json": {"schema": schema}})
}

fn page(items: &Value, summary: Option<&Value>) -> Value {
    let mut page = json!({
        "type": "object",
        "required": ["items", "next"],
        "properties": {
            "items": {"type": "array", "items": items},
            "next": {"type": ["string", "null"], "description": "what `cursor` is on the next page; null on the last"},
            "total": {"type": "integer", "minimum": 0, "description": "how many there are in all, where that is known"},
        },
    });
    let properties = page.get_mut("properties").and_then(Value::as_object_mut);
    if let (Some(properties), Some(summary)) = (properties, summary) {
        let summary = json!({"anyOf": [summary, {"type": "null"}], "description": "of all pages; on the last one"});
        properties.insert("summary".to_owned(), summary);
    }
    page
}

fn location() -> Value {
    json!({"Location": {"description": "the path of the run", "required": true, "schema": {"type": "string"}}})
}

fn name_of(status: u16) -> String {
    format!("Problem{status}")
}

/// Gives the names in braces of a path.
fn names_in(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// Gives under which heading a route stands.
fn tag(path: &str) -> &str {
    let rest = path.strip_prefix("/api/v1/");
    let first = rest.and_then(|rest| rest.split('/').next());
    match first {
        None if path.starts_with("/_backup/") => "portable",
        None | Some("openapi.json" | "service" | "health" | "paths" | "audit") => "service",
        Some("history") => "jobs",
        Some("validate") => "locations",
        Some(_)
            if path.contains("/snapshots")
                || path.ends_with("/find")
                || path.ends_with("}/history") =>
        {
            "snapshots"
        }
        Some(first) => first,
    }
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
    use crate::schema::of;

    #[test]
    fn the_document_has_every_route_once() {
        let document = document("1", &[]);
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

    #[test]
    fn what_a_route_answers_says_what_it_is() {
        let document = document(
            "1",
            &[("ShownJob", of::<String>), ("Location", of::<String>)],
        );
        for route in routes::all() {
            let operation = &document["paths"][route.path][route.method.to_lowercase()];
            let answer = &operation["responses"][route.status.to_string()];
            assert_eq!(
                answer["content"].is_null(),
                route.status == 204,
                "{} {}",
                route.method,
                route.path
            );
            let is_known = |status: u16| !operation["responses"][status.to_string()].is_null();
            assert_eq!(
                is_known(401),
                route.scope.is_some() || route.path == "/login",
                "{}",
                route.path
            );
            assert_eq!(is_known(422), route.begins_run, "{}", route.path);
        }
        let job = &document["paths"]["/api/v1/jobs/{name}"]["patch"];
        let either = &job["responses"]["200"]["content"]["application/json"]["schema"]["anyOf"];
        assert_eq!(either[0], json!({"type": "string"}));
        // What nobody describes fits nothing.
        assert_eq!(either[1], json!(false));
    }
}
