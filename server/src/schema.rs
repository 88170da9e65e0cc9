//! What requests have and answers are, for the OpenAPI document: schemas of the types that are read and sent.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::runs::Shown;

/// Gives the schema of a type.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// A document of the program, by a name that the OpenAPI document uses, and its schema.
pub type Document = (&'static str, SchemaOf);

/// The run that was begun, or that is to end.
pub const RUN: What = What::Own(of::<Shown>);

/// A run's message, by which each line of a log is one.
pub const MESSAGE: What = What::Own(of::<Message>);

/// Gives the schema of a type, as a reference into the document where it has a name.
pub fn of<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Schema {
    schemas.subschema_for::<T>()
}

/// What a document is.
#[derive(Debug, Clone, Copy)]
pub enum What {
    /// A type of the service.
    Own(SchemaOf),
    /// What the program answers with `--json`, by the name of its schema.
    Program(&'static str),
    /// The same, to which the service adds the fields of a type.
    ProgramAnd(&'static str, SchemaOf),
}

/// How a route answers when all is well.
#[derive(Debug, Clone, Copy)]
pub enum Answers {
    /// With nothing.
    Nothing,
    /// With one document.
    One(What),
    /// With a page of a list.
    Page(What),
    /// With a page of a list, and once its end is reached a summary of all of it.
    PageAndSummary(What, What),
    /// With one document, which has a list of others under a name.
    WithList(What, &'static str, What),
    /// With bytes, or text, of a media type.
    Raw(&'static str),
    /// With server-sent events: of each its name, and what its data is.
    Events(&'static [(&'static str, What)]),
}

/// What may stand in a query.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Whether there is no answer without it.
    pub is_needed: bool,
    /// What its value is.
    pub kind: Kind,
}

/// What the value of a parameter is.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Text.
    Text,
    /// Text; it may come several times.
    Texts,
    /// `true` or `false`.
    Flag,
    /// A time.
    Time,
    /// A number within bounds.
    Number(usize, usize),
    /// What `next` was on the page before.
    Cursor,
}

/// A line that a run printed.
#[derive(Serialize, JsonSchema)]
pub struct Message {
    /// What it is: those of long jobs are as docs/json.md has them; `stderr` is what was said for people, `text` what is no JSON.
    message_type: String,
    /// All that a message of its type has.
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// What is said by each message of a long job.
#[derive(Serialize, JsonSchema)]
pub struct Typed {
    /// What it is.
    message_type: String,
}

/// How many things a page has at most, where it does not say.
pub const LIMIT: Parameter = Parameter {
    name: "limit",
    is_needed: false,
    kind: Kind::Number(1, crate::routes::LIMIT_MAX),
};

/// Where a page begins.
pub const CURSOR: Parameter = Parameter {
    name: "cursor",
    is_needed: false,
    kind: Kind::Cursor,
};

const fn parameter(name: &'static str, kind: Kind) -> Parameter {
    Parameter {
        name,
        is_needed: false,
        kind,
    }
}

/// A parameter that is text.
pub const fn text(name: &'static str) -> Parameter {
    parameter(name, Kind::Text)
}

/// One that is text, and without which there is no answer.
pub const fn needed(name: &'static str) -> Parameter {
    Parameter {
        is_needed: true,
        ..text(name)
    }
}

/// One that is text, and may come several times.
pub const fn texts(name: &'static str) -> Parameter {
    parameter(name, Kind::Texts)
}

/// One that is `true` or `false`.
pub const fn flag(name: &'static str) -> Parameter {
    parameter(name, Kind::Flag)
}

/// One that is a time.
pub const fn time(name: &'static str) -> Parameter {
    parameter(name, Kind::Time)
}

impl Parameter {
    /// Gives it as the document has it.
    pub fn described(&self) -> Value {
        let schema = match self.kind {
            Kind::Text => json!({"type": "string"}),
            Kind::Texts => json!({"type": "array", "items": {"type": "string"}}),
            Kind::Flag => json!({"type": "boolean"}),
            Kind::Time => json!({"type": "string", "format": "date-time"}),
            Kind::Number(least, most) => {
                json!({"type": "integer", "minimum": least, "maximum": most})
            }
            Kind::Cursor => json!({"type": "string", "pattern": "^[0-9]{1,19}$"}),
        };
        json!({"name": self.name, "in": "query", "required": self.is_needed, "schema": schema})
    }
}
