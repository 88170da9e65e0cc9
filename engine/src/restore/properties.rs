//! What a dump says of its database itself: pg_restore applies that only to one of the same name.

use std::io::{self, Read};

use crate::source::postgres::form::{DumpReader, Form};

/// Bytes of the statements that are held in memory.
const STATEMENTS_BYTES_MAX: usize = 16 << 20;

/// What makes a database what it is, apart from what is in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Its name.
    pub name: String,
    /// The statement that makes it.
    pub statement: String,
    /// Who owns it.
    owner: String,
    /// The statements that set its settings, its comment and its labels.
    settings: String,
    /// The statements that say who may use it.
    permissions: String,
}

impl Properties {
    /// Reads them from a table of contents.
    ///
    /// # Errors
    /// `InvalidData` for what is none; what reading answers.
    pub fn read(input: &mut dyn Read) -> io::Result<Self> {
        let mut reader = DumpReader::new(input, Form::Directory);
        reader.read_head()?;
        let mut found = Self::default();
        while let Some(item) = reader.next_item()? {
            let text = String::from_utf8_lossy(&item.statement);
            let is_of_database = item.tag.starts_with(b"DATABASE ");
            match item.kind.as_slice() {
                b"DATABASE" => {
                    found.name = String::from_utf8_lossy(&item.tag).into_owned();
                    found.owner = String::from_utf8_lossy(&item.owner).into_owned();
                    found.statement = text.into_owned();
                }
                b"DATABASE PROPERTIES" => found.settings.push_str(&text),
                b"COMMENT" | b"SECURITY LABEL" if is_of_database => found.settings.push_str(&text),
                b"ACL" if is_of_database => found.permissions.push_str(&text),
                _ => {}
            }
            if found.settings.len() + found.permissions.len() > STATEMENTS_BYTES_MAX {
                let text = "the settings of the database are longer than they can be";
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        Ok(found)
    }

    /// Gives the statements that give a database of the same name its owner and settings.
    #[must_use]
    pub fn statements(&self, no_owner: bool) -> String {
        let mut text = self.settings.clone();
        if !no_owner {
            text.push_str(&self.permissions);
            if !self.owner.is_empty() {
                let (name, owner) = (quoted(&self.name), quoted(&self.owner));
                text.push_str(&format!("ALTER DATABASE {name} OWNER TO {owner};\n"));
            }
        }
        text
    }
}

/// Makes the statement that makes a database like one that was dumped, under another name. Pure.
#[must_use]
pub fn create_statement(text: &str, database: &str) -> String {
    const CREATE: &str = "CREATE DATABASE ";
    let line = text.lines().find_map(|line| line.strip_prefix(CREATE));
    // The name ends at the first space that is not within quotes.
    let mut is_quoted = false;
    let options = line.and_then(|line| {
        let end = line.char_indices().find(|(_, char)| {
            is_quoted ^= *char == '"';
            *char == ' ' && !is_quoted
        });
        line.get(end?.0..)
    });
    let options = options.unwrap_or(" WITH TEMPLATE = template0;");
    format!("{CREATE}{}{options}", quoted(database))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_made_as_it_was_under_any_name() {
        let text = "CREATE DATABASE \"my \"\"shop\" WITH TEMPLATE = template0 ENCODING = 'UTF8';\n";
        assert_eq!(
            create_statement(text, "o\"ne"),
            "CREATE DATABASE \"o\"\"ne\" WITH TEMPLATE = template0 ENCODING = 'UTF8';"
        );
        assert_eq!(
            create_statement("", "x"),
            "CREATE DATABASE \"x\" WITH TEMPLATE = template0;"
        );
    }
}
