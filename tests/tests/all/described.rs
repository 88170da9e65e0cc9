//! Holds answers of the service against its own OpenAPI document, and more strictly than the document asks a client to:
//! an answer that has a field which the document does not name is refused, too, so that none is added in silence.

use std::collections::BTreeSet;

use serde_json::Value;

/// Keywords that say nothing about whether a value fits.
const SAID_ONLY: &[&str] = &["description", "title", "default", "contentMediaType"];

/// The document of a service.
pub struct Described(pub Value);

/// An answer that came.
pub struct Came<'a> {
    /// The method of the request, and its path with the query.
    pub asked: (&'a str, &'a str),
    /// Its status.
    pub status: u16,
    /// Its Content-Type.
    pub kind: Option<&'a str>,
    /// Its body.
    pub body: &'a [u8],
}

/// The names of an object that a schema said something about.
type Named = BTreeSet<String>;

impl Described {
    /// Holds an answer against the document.
    #[track_caller]
    pub fn hold(&self, came: &Came<'_>) {
        if let Err(why) = self.fits(came) {
            let (method, path) = came.asked;
            let body = String::from_utf8_lossy(came.body);
            panic!("{method} {path}, {}: {why}\n{body}", came.status);
        }
    }

    fn fits(&self, came: &Came<'_>) -> Result<(), String> {
        let (method, target) = came.asked;
        let path = target.split('?').next().unwrap();
        let Some(operation) = self.operation(method, path) else {
            let is_page = method == "GET" && matches!(came.status, 200 | 304);
            return match is_page || matches!(came.status, 404 | 405) {
                true => Ok(()),
                false => Err("the document has no such path".to_owned()),
            };
        };
        let answer = &operation["responses"][came.status.to_string()];
        let answer = self.resolved(answer);
        if answer.is_null() {
            return Err("the document does not have this status".to_owned());
        }
        let content = answer["content"].as_object();
        let Some(content) = content else {
            return match came.body.is_empty() {
                true => Ok(()),
                false => Err("the document has no body here".to_owned()),
            };
        };
        let kind = came.kind.ok_or("there is no Content-Type")?;
        let told = content
            .get(kind)
            .ok_or_else(|| format!("the document does not have the type {kind}"))?;
        if let Some(events) = told.get("x-larder-events") {
            return self.hold_events(events, came.body);
        }
        if !kind.ends_with("json") {
            return Ok(());
        }
        let value: Value = serde_json::from_slice(came.body).map_err(|error| error.to_string())?;
        self.whole(&told["schema"], &value, "the answer")
    }

    fn hold_events(&self, events: &Value, body: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
        for event in text.split_terminator("\n\n") {
            let Some((name, data)) = event.split_once('\n') else {
                match event.starts_with(':') {
                    true => continue,
                    false => return Err(format!("this is no event: {event}")),
                }
            };
            let name = name.strip_prefix("event: ").ok_or("an event has no name")?;
            let data = data.strip_prefix("data: ").ok_or("an event has no data")?;
            let schema = events.get(name).ok_or_else(|| format!("no event {name}"))?;
            let value = serde_json::from_str(data).map_err(|error| error.to_string())?;
            self.whole(schema, &value, name)?;
        }
        Ok(())
    }

    /// Gives what the document has of a request.
    fn operation(&self, method: &str, path: &str) -> Option<&Value> {
        let fits = |template: &str| {
            let (known, parts) = (template.split('/'), path.split('/'));
            known.clone().count() == parts.clone().count()
                && known
                    .zip(parts)
                    .all(|(known, part)| known.starts_with('{') || known == part)
        };
        let paths = self.0["paths"].as_object().unwrap();
        let mut found = paths.iter().filter(|(template, _)| fits(template));
        let found = found.find_map(|(_, path)| path.get(method.to_lowercase()))?;
        Some(found)
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => self.0.pointer(reference.trim_start_matches('#')).unwrap(),
            None => value,
        }
    }

    /// Tells whether a value fits, and has nothing that its schema does not name.
    fn whole(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let named = self.check(schema, value, at)?;
        let fields = value.as_object().into_iter().flatten();
        for (name, _) in fields {
            if !named.contains(name) {
                return Err(format!("{at} has {name}, which the document does not name"));
            }
        }
        Ok(())
    }

    fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<Named, String> {
        let fields = value.as_object().into_iter().flatten();
        let keywords = match schema {
            Value::Bool(true) => return Ok(fields.map(|(name, _)| name.clone()).collect()),
            Value::Object(keywords) => keywords,
            _ => return Err(format!("{at} may be nothing")),
        };
        let mut named = Named::new();
        for (keyword, said) in keywords {
            match keyword.as_str() {
                "$ref" => named.extend(self.check(self.resolved(schema), value, at)?),
                "allOf" => {
                    for one in said.as_array().unwrap() {
                        named.extend(self.check(one, value, at)?);
                    }
                }
                "anyOf" | "oneOf" => {
                    let all = said.as_array().unwrap().iter();
                    let tried: Vec<_> = all.map(|one| self.check(one, value, at)).collect();
                    if !tried.iter().any(Result::is_ok) {
                        let why: Vec<String> = tried.into_iter().filter_map(Result::err).collect();
                        return Err(why.join("; or "));
                    }
                    named.extend(tried.into_iter().flatten().flatten());
                }
                "properties" => {
                    for (name, schema) in said.as_object().unwrap() {
                        named.insert(name.clone());
                        if let Some(value) = value.get(name) {
                            self.whole(schema, value, &format!("{at}.{name}"))?;
                        }
                    }
                }
                "additionalProperties" | "unevaluatedProperties" => {
                    let known = keywords.get("properties");
                    for (name, value) in fields.clone() {
                        if known.and_then(|known| known.get(name)).is_none() {
                            self.whole(said, value, &format!("{at}.{name}"))?;
                            named.insert(name.clone());
                        }
                    }
                }
                "items" => {
                    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                        self.whole(said, value, &format!("{at}[{index}]"))?;
                    }
                }
                _ => simple(keyword, said, value).map_err(|why| format!("{at} {why}"))?,
            }
        }
        Ok(named)
    }
}

/// Holds a value against a keyword that has no schemas in it.
fn simple(keyword: &str, said: &Value, value: &Value) -> Result<(), String> {
    let length = value
        .as_str()
        .map(|text| text.chars().count())
        .or(value.as_array().map(Vec::len));
    let bound = said.as_u64().map(|bound| bound as usize);
    let is_fine = match keyword {
        _ if SAID_ONLY.contains(&keyword) => true,
        "type" => match said {
            Value::Array(all) => all.iter().any(|one| is_a(one, value)),
            one => is_a(one, value),
        },
        "enum" => said.as_array().unwrap().contains(value),
        "const" => said == value,
        "required" => {
            let mut all = said.as_array().unwrap().iter();
            let has = |name: &Value| value.get(name.as_str().unwrap()).is_some();
            !value.is_object() || all.all(has)
        }
        "minimum" => value
            .as_f64()
            .is_none_or(|found| found >= said.as_f64().unwrap()),
        "maximum" => value
            .as_f64()
            .is_none_or(|found| found <= said.as_f64().unwrap()),
        "minLength" | "minItems" => length.is_none_or(|length| length >= bound.unwrap()),
        "maxLength" | "maxItems" => length.is_none_or(|length| length <= bound.unwrap()),
        "format" => match (said.as_str().unwrap(), value.as_str()) {
            ("date-time", Some(text)) => text.parse::<jiff::Timestamp>().is_ok(),
            _ => true,
        },
        _ => {
            return Err(format!(
                "is described by {keyword}, which this test does not know"
            ));
        }
    };
    match is_fine {
        true => Ok(()),
        false => Err(format!("is {value}, and not as {keyword} {said} says")),
    }
}

fn is_a(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("there is no type {other}"),
    }
}

#[test]
fn what_does_not_fit_is_found() {
    let described = Described(serde_json::json!({"components": {"schemas": {
        "A": {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 0}}},
    }}}));
    let a = serde_json::json!({"$ref": "#/components/schemas/A"});
    let more = serde_json::json!({"allOf": [a, {"properties": {"t": {"type": "string", "format": "date-time"}}}]});
    let fits = |schema: &Value, text: &str| {
        let value = serde_json::from_str(text).unwrap();
        described.whole(schema, &value, "it").is_ok()
    };
    assert!(fits(&a, "{\"n\": 1}"));
    for wrong in [
        "{}",
        "{\"n\": -1}",
        "{\"n\": \"1\"}",
        "{\"n\": null}",
        "[]",
        "{\"n\": 1, \"m\": 1}",
    ] {
        assert!(!fits(&a, wrong), "{wrong}");
    }
    assert!(fits(&more, "{\"n\": 1, \"t\": \"2026-01-01T00:00:00Z\"}"));
    assert!(!fits(&more, "{\"n\": 1, \"t\": \"today\"}") && !fits(&more, "{\"n\": 1, \"x\": 1}"));
    let either = serde_json::json!({"anyOf": [a, {"type": "null"}]});
    assert!(fits(&either, "null") && fits(&either, "{\"n\": 1}") && !fits(&either, "{\"m\": 1}"));
    assert!(!fits(&serde_json::json!({"unknown": 1}), "1") && !fits(&Value::Bool(false), "1"));
}
