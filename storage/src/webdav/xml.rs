//! The XML in which a WebDAV server tells of its resources, read with limits: a server may answer anything.

use std::time::SystemTime;

use quick_xml::NsReader;
use quick_xml::events::{BytesRef, Event};
use quick_xml::name::{Namespace, ResolveResult};

/// The most bytes of one answer: some 100,000 objects in a folder.
pub(super) const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// How deep elements may lie in each other; 6 are needed.
const DEPTH_MAX: usize = 32;
/// The most bytes of a text, such as a path.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// What is asked of each resource.
pub(super) const PROPERTIES: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\
    <propfind xmlns=\"DAV:\"><prop><resourcetype/><getcontentlength/><getlastmodified/></prop></propfind>";

/// What a server says about one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resource {
    /// Its URL or path, as the server wrote it.
    pub href: String,
    /// The status of the resource as a whole, where it has one.
    pub status: Option<u16>,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// Its size in bytes.
    pub size_bytes: Option<u64>,
    /// When it was written last.
    pub modified: Option<SystemTime>,
}

/// Where in an answer the reader is; `Other` is whatever nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Answer,
    Resource,
    Href,
    ResourceStatus,
    Group,
    GroupStatus,
    Properties,
    Type,
    Collection,
    Length,
    Modified,
    Other,
}

/// Parses an answer, which has to be whole.
///
/// # Errors
/// In words: what is no XML, is no answer of this kind, or goes beyond a limit.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Resource>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is no UTF-8".to_owned())?;
    let mut reader = NsReader::from_str(text.trim_start_matches('\u{feff}'));
    reader.config_mut().expand_empty_elements = true;
    let mut state = State::default();
    loop {
        let (namespace, event) = reader
            .read_resolved_event()
            .map_err(|error| format!("it is no XML: {error}"))?;
        match event {
            Event::Start(start) => {
                let is_dav = matches!(namespace, ResolveResult::Bound(Namespace(b"DAV:")));
                state.begin(is_dav, start.local_name().as_ref())?;
            }
            Event::End(_) => state.end()?,
            Event::Text(text) => state.text(&text.decode().map_err(|error| error.to_string())?)?,
            Event::CData(text) => state.text(&text.decode().map_err(|error| error.to_string())?)?,
            Event::GeneralRef(reference) => {
                let resolved = resolve(&reference)?;
                state.text(resolved.encode_utf8(&mut [0; 4]))?;
            }
            Event::DocType(_) => return Err("it has a document type, which is refused".to_owned()),
            Event::Eof => return state.finish(),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
}

/// Gives the character of a reference; entities are not looked up.
fn resolve(reference: &BytesRef<'_>) -> Result<char, String> {
    let of_number = reference
        .resolve_char_ref()
        .map_err(|error| error.to_string())?;
    if let Some(found) = of_number {
        return Ok(found);
    }
    match &**reference {
        b"amp" => Ok('&'),
        b"lt" => Ok('<'),
        b"gt" => Ok('>'),
        b"quot" => Ok('"'),
        b"apos" => Ok('\''),
        _ => Err("it has an entity of its own, which is refused".to_owned()),
    }
}

/// What has been read so far.
#[derive(Default)]
struct State {
    open: Vec<Place>,
    found: Vec<Resource>,
    resource: Resource,
    /// The properties of the group that is read, taken over if its status is a success.
    group: Resource,
    text: String,
    is_whole: bool,
}

impl State {
    fn begin(&mut self, is_dav: bool, name: &[u8]) -> Result<(), String> {
        if self.open.len() >= DEPTH_MAX {
            return Err(format!("its elements lie more than {DEPTH_MAX} deep"));
        }
        let place = match (self.open.last(), is_dav, name) {
            (None, true, b"multistatus") if !self.is_whole => Place::Answer,
            (None, ..) => return Err("it is no list of resources".to_owned()),
            (Some(Place::Answer), true, b"response") => Place::Resource,
            (Some(Place::Resource), true, b"href") => Place::Href,
            (Some(Place::Resource), true, b"status") => Place::ResourceStatus,
            (Some(Place::Resource), true, b"propstat") => Place::Group,
            (Some(Place::Group), true, b"status") => Place::GroupStatus,
            (Some(Place::Group), true, b"prop") => Place::Properties,
            (Some(Place::Properties), true, b"resourcetype") => Place::Type,
            (Some(Place::Properties), true, b"getcontentlength") => Place::Length,
            (Some(Place::Properties), true, b"getlastmodified") => Place::Modified,
            (Some(Place::Type), true, b"collection") => Place::Collection,
            _ => Place::Other,
        };
        match place {
            Place::Resource => self.resource = Resource::default(),
            Place::Group => self.group = Resource::default(),
            _ => {}
        }
        self.text.clear();
        self.open.push(place);
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let text = self.text.trim();
        match self.open.pop() {
            None => return Err("it ends what it did not begin".to_owned()),
            Some(Place::Answer) => self.is_whole = true,
            Some(Place::Resource) => {
                if self.resource.href.is_empty() {
                    return Err("it has a resource without a path".to_owned());
                }
                self.found.push(std::mem::take(&mut self.resource));
            }
            Some(Place::Href) => text.clone_into(&mut self.resource.href),
            Some(Place::ResourceStatus) => self.resource.status = Some(status(text)?),
            Some(Place::GroupStatus) => self.group.status = Some(status(text)?),
            Some(Place::Group) => self.take_group(),
            Some(Place::Collection) => self.group.is_folder = true,
            Some(Place::Length) => self.group.size_bytes = text.parse().ok(),
            Some(Place::Modified) => self.group.modified = httpdate::parse_http_date(text).ok(),
            Some(Place::Properties | Place::Type | Place::Other) => {}
        }
        self.text.clear();
        Ok(())
    }

    fn take_group(&mut self) {
        let group = std::mem::take(&mut self.group);
        if group
            .status
            .is_none_or(|status| (200..300).contains(&status))
        {
            let resource = &mut self.resource;
            resource.is_folder |= group.is_folder;
            resource.size_bytes = resource.size_bytes.or(group.size_bytes);
            resource.modified = resource.modified.or(group.modified);
        }
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        let is_read = matches!(
            self.open.last(),
            Some(
                Place::Href
                    | Place::ResourceStatus
                    | Place::GroupStatus
                    | Place::Length
                    | Place::Modified
            )
        );
        if !is_read {
            return Ok(());
        }
        if self.text.len() + text.len() > TEXT_BYTES_MAX {
            return Err(format!("it has a text of more than {TEXT_BYTES_MAX} bytes"));
        }
        self.text.push_str(text);
        Ok(())
    }

    fn finish(self) -> Result<Vec<Resource>, String> {
        match self.is_whole && self.open.is_empty() {
            true => Ok(self.found),
            false => Err("it is cut short".to_owned()),
        }
    }
}

/// Reads the number of a line such as `HTTP/1.1 200 OK`.
fn status(line: &str) -> Result<u16, String> {
    let number = line.split_ascii_whitespace().nth(1);
    number
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| "it has a status without a number".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn wrapped(inner: &str) -> String {
        format!("<?xml version=\"1.0\"?><D:multistatus xmlns:D=\"DAV:\">{inner}</D:multistatus>")
    }

    #[test]
    fn resources_are_read_whatever_prefix_and_order() {
        let answer = "\u{feff}<?xml version=\"1.0\"?><multistatus xmlns=\"DAV:\" xmlns:x=\"other\">
            <response><propstat><status>HTTP/1.1 200 OK</status><prop><resourcetype><collection/></resourcetype>
            <x:getcontentlength>7</x:getcontentlength></prop></propstat><href>/a%20b/</href></response>
            <L:response xmlns:L=\"DAV:\"><L:href>/a&amp;&#98;</L:href><L:propstat><L:prop>
            <L:getlastmodified>Sun, 06 Nov 1994 08:49:37 GMT</L:getlastmodified><L:getcontentlength> 12 </L:getcontentlength>
            <L:resourcetype/></L:prop><L:status>HTTP/1.1 200 OK</L:status></L:propstat>
            <L:propstat><L:prop><L:getcontentlength>99</L:getcontentlength></L:prop>
            <L:status>HTTP/1.1 404 Not Found</L:status></L:propstat></L:response>
            <response><href><![CDATA[/gone]]></href><status>HTTP/1.1 404 Gone</status></response></multistatus>";
        let found = parse(answer.as_bytes()).unwrap();
        let modified = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").ok();
        let resource = |href: &str| Resource {
            href: href.to_owned(),
            ..Resource::default()
        };
        let folder = Resource {
            is_folder: true,
            ..resource("/a%20b/")
        };
        let object = Resource {
            size_bytes: Some(12),
            modified,
            ..resource("/a&b")
        };
        let gone = Resource {
            status: Some(404),
            ..resource("/gone")
        };
        assert_eq!(found, [folder, object, gone]);
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        let whole = wrapped("<D:response><D:href>/a</D:href></D:response>");
        assert_eq!(parse(whole.as_bytes()).unwrap().len(), 1);
        for end in 0..whole.len() {
            assert!(
                parse(whole.get(..end).unwrap().as_bytes()).is_err(),
                "{end}"
            );
        }
    }

    #[test]
    fn depth_texts_and_entities_have_limits() {
        let error = |text: &str| parse(text.as_bytes()).unwrap_err();
        let deep = wrapped(&"<a>".repeat(1_000_000));
        assert!(error(&deep).contains("deep"));
        let long = format!("<D:response><D:href>{}", "x".repeat(1 << 20));
        assert!(error(&wrapped(&long)).contains("bytes"));
        let bomb = "<!DOCTYPE m [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><m>&b;</m>";
        assert!(error(bomb).contains("document type"));
        let entity = "<D:response><D:href>&b;</D:href></D:response>";
        assert!(error(&wrapped(entity)).contains("entity"));
        for other in ["", "x", "<html></html>", "<multistatus></multistatus>"] {
            assert!(parse(other.as_bytes()).is_err(), "{other}");
        }
        assert!(parse(b"\xff\xfe<").is_err());
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_scramble_of_an_answer_makes_it_panic(cuts in proptest::collection::vec((0_usize..200, 0_usize..200), 0..9)) {
            let mut text = wrapped("<D:response><D:href>/&#x61;</D:href><D:propstat><D:prop/><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>").into_bytes();
            for (from, to) in cuts {
                if from < text.len() && to < text.len() {
                    text.swap(from, to);
                }
            }
            let _ = parse(&text);
        }
    }
}
