//! The two forms of a dump: the custom one, which goes through a pipe, and the directory
//! one, of which each table's rows are a file. Both begin with the same table of contents.
//!
//! ```text
//! header   PGDMP, version, widths, form, compression, time, names
//! count    items
//! items    fields, and where the data is: an offset (custom), or the name of a file (directory)
//! blocks   custom alone: 01 id (length bytes)* 0, or 03 id (oid (length bytes)* 0)* 0
//! ```

use std::io::{self, BufReader, Read, Write};

/// The versions of the form that are known: those of PostgreSQL 12 to 18.
const MINORS: std::ops::RangeInclusive<u8> = 14..=16;
/// Since when the header names the compression by a byte.
const MINOR_OF_COMPRESSION: u8 = 15;
/// Since when an item tells the kind of its relation, and large objects are in several.
const MINOR_OF_KINDS: u8 = 16;
/// Bytes of a text: no server has longer ones.
const TEXT_BYTES_MAX: u64 = 1 << 30;
/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;
/// What an offset says of where the data is: not known, or that there is none.
const OFFSET_UNKNOWN: u8 = 1;
const OFFSET_NONE: u8 = 3;
/// What a block of rows, or of large objects, begins with.
const ROWS: u8 = 1;
const LARGE_OBJECTS: u8 = 3;

/// A form of a dump, by the number that its header has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One stream.
    Custom = 1,
    /// A folder, whose header has the number of the tar form.
    Directory = 3,
}

/// A dump that is read, from its beginning.
#[derive(Debug)]
pub struct DumpReader<R> {
    input: BufReader<R>,
    form: Form,
    layout: Layout,
    /// The header and the number of items, as they were read.
    head: Vec<u8>,
    /// Items that were not read yet.
    items_left: i64,
    /// Bytes of the current piece of a block that were not read yet.
    piece_left: u64,
    /// Whether the current content has ended.
    is_at_end: bool,
}

/// How a dump writes numbers, and which fields its items have.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    minor: u8,
    int_bytes: u8,
    offset_bytes: u8,
}

/// One thing of a database, as the table of contents has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Item {
    /// Its number, which its block begins with.
    pub id: i64,
    /// Its name.
    pub tag: Vec<u8>,
    /// What it is, e.g. `TABLE DATA`.
    pub kind: Vec<u8>,
    /// The statement that makes it.
    pub statement: Vec<u8>,
    /// Its schema.
    pub schema: Vec<u8>,
    /// Its owner.
    pub owner: Vec<u8>,
    /// Whether it has data.
    pub has_data: bool,
    /// The file that has its data, in a directory.
    pub file: Vec<u8>,
    /// All of it but where its data is, as it was read.
    fields: Vec<u8>,
}

/// What follows the table of contents of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// The rows of the table with this number.
    Rows(i64),
    /// Large objects, each with a number of its own.
    LargeObjects(i64),
}

impl<R: Read> DumpReader<R> {
    /// Begins before the header; nothing is read yet.
    pub fn new(input: R, form: Form) -> Self {
        Self {
            input: BufReader::with_capacity(READ_BYTES, input),
            form,
            layout: Layout {
                minor: *MINORS.start(),
                int_bytes: 4,
                offset_bytes: 8,
            },
            head: Vec::new(),
            items_left: 0,
            piece_left: 0,
            is_at_end: true,
        }
    }

    /// Reads the header.
    ///
    /// # Errors
    /// `InvalidData` for what is no dump of this form, or one that is not known; what reading answers.
    pub fn read_head(&mut self) -> io::Result<()> {
        let (input, head) = (&mut self.input, &mut self.head);
        let [
            p,
            g,
            d,
            m,
            q,
            major,
            minor,
            _,
            int_bytes,
            offset_bytes,
            number,
        ] = bytes::<11>(input, head)?;
        if [p, g, d, m, q] != *b"PGDMP" || number != self.form as u8 {
            return Err(malformed("it does not begin like one"));
        }
        if major != 1 || !MINORS.contains(&minor) {
            return Err(malformed(&format!(
                "its version {major}.{minor} is not known to this version of larder; use the programs of PostgreSQL 12 to 18, or back up with --command 'pg_dump ...'"
            )));
        }
        if ![4, 8].contains(&int_bytes) || ![4, 8].contains(&offset_bytes) {
            return Err(malformed("it has numbers of an unknown width"));
        }
        let layout = Layout {
            minor,
            int_bytes,
            offset_bytes,
        };
        let compression = match minor < MINOR_OF_COMPRESSION {
            true => int(input, head, layout)?,
            false => i64::from(u8::from_le_bytes(bytes::<1>(input, head)?)),
        };
        if compression != 0 {
            return Err(malformed("it is compressed"));
        }
        const TIME_PARTS: usize = 7;
        for _ in 0..TIME_PARTS {
            int(input, head, layout)?;
        }
        // The database, and the versions of server and program.
        for _ in 0..3 {
            text(input, head, layout)?;
        }
        self.items_left = int(input, head, layout)?;
        self.layout = layout;
        Ok(())
    }

    /// Gives how it writes numbers.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Gives the header, and the number of items, of the same dump in another form.
    pub fn head(&self, form: Form) -> Vec<u8> {
        const FORM_AT: usize = 10;
        let mut head = self.head.clone();
        if let Some(number) = head.get_mut(FORM_AT) {
            *number = form as u8;
        }
        head
    }

    /// Reads the next item of the table of contents; none behind the last.
    ///
    /// # Errors
    /// `InvalidData` for what cannot be an item; what reading answers.
    pub fn next_item(&mut self) -> io::Result<Option<Item>> {
        if self.items_left <= 0 {
            return Ok(None);
        }
        self.items_left -= 1;
        let mut item = Item::default();
        let (input, layout) = (&mut self.input, self.layout);
        let fields = &mut item.fields;
        item.id = int(input, fields, layout)?;
        item.has_data = int(input, fields, layout)? != 0;
        // The numbers of its catalog and of itself.
        for _ in 0..2 {
            text(input, fields, layout)?;
        }
        item.tag = text(input, fields, layout)?.unwrap_or_default();
        item.kind = text(input, fields, layout)?.unwrap_or_default();
        // The section that it belongs to.
        int(input, fields, layout)?;
        item.statement = text(input, fields, layout)?.unwrap_or_default();
        // The statements that drop it, and that its rows follow.
        for _ in 0..2 {
            text(input, fields, layout)?;
        }
        item.schema = text(input, fields, layout)?.unwrap_or_default();
        // Tablespace and access method.
        for _ in 0..2 {
            text(input, fields, layout)?;
        }
        if layout.minor >= MINOR_OF_KINDS {
            int(input, fields, layout)?;
        }
        item.owner = text(input, fields, layout)?.unwrap_or_default();
        // Whether its rows have numbers, which none has any more; then what it needs.
        text(input, fields, layout)?;
        while text(input, fields, layout)?.is_some() {}
        self.place_of(&mut item)?;
        Ok(Some(item))
    }

    /// Reads where the data of an item is.
    fn place_of(&mut self, item: &mut Item) -> io::Result<()> {
        let mut passed = Vec::new();
        match self.form {
            Form::Custom => {
                let [offset] = bytes::<1>(&mut self.input, &mut passed)?;
                item.has_data = offset != OFFSET_NONE;
                let width = u64::from(self.layout.offset_bytes);
                exactly(&mut self.input, &mut passed, width)
            }
            Form::Directory => {
                let file = text(&mut self.input, &mut passed, self.layout)?;
                item.file = file.unwrap_or_default();
                item.has_data = !item.file.is_empty();
                Ok(())
            }
        }
    }

    /// Goes to the next block of a stream, once the one before it was read to its end; none at the end.
    ///
    /// # Errors
    /// `InvalidData` for what cannot be a block; what reading answers.
    pub fn next_block(&mut self) -> io::Result<Option<Block>> {
        let mut kind = [0];
        if self.input.read(&mut kind)? == 0 {
            return Ok(None);
        }
        let id = self.int()?;
        match kind {
            [ROWS] => {
                self.is_at_end = false;
                Ok(Some(Block::Rows(id)))
            }
            [LARGE_OBJECTS] => Ok(Some(Block::LargeObjects(id))),
            _ => Err(malformed("it has a block of an unknown kind")),
        }
    }

    /// Goes to the next large object of a block of them, once the one before it was read to its end;
    /// none at the end of the block.
    ///
    /// # Errors
    /// What reading answers.
    pub fn next_large_object(&mut self) -> io::Result<Option<u32>> {
        let number = self.int()?;
        // The program writes a number of 32 bits without a sign as one with a sign.
        let number = u32::try_from(number.rem_euclid(1 << 32)).unwrap_or_default();
        self.is_at_end = number == 0;
        Ok((number != 0).then_some(number))
    }

    /// Gives what it was read from.
    pub fn into_input(self) -> R {
        self.input.into_inner()
    }

    fn int(&mut self) -> io::Result<i64> {
        int(&mut self.input, &mut Vec::new(), self.layout)
    }
}

impl<R: Read> Read for DumpReader<R> {
    /// Reads on in the rows of a table, or in a large object; 0 bytes mean that it has ended.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        // A row is a piece of its own.
        while !self.is_at_end && filled < buffer.len() {
            if self.piece_left == 0 {
                let length = self.int()?;
                self.piece_left =
                    u64::try_from(length).map_err(|_| malformed("it has a negative length"))?;
                self.is_at_end = length == 0;
                continue;
            }
            let room = buffer.get_mut(filled..).unwrap_or_default();
            let count = (&mut self.input).take(self.piece_left).read(room)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.piece_left -= count as u64;
            filled += count;
        }
        Ok(filled)
    }
}

impl Item {
    /// Writes it as a dump in a form has it; `file` has its data, in a directory.
    pub fn encode(&self, layout: Layout, form: Form, file: &[u8]) -> Vec<u8> {
        let mut bytes = self.fields.clone();
        match form {
            Form::Custom => {
                let is_there = self.has_data;
                bytes.push(if is_there {
                    OFFSET_UNKNOWN
                } else {
                    OFFSET_NONE
                });
                bytes.extend((0..layout.offset_bytes).map(|_| 0));
            }
            Form::Directory => {
                put_int(&mut bytes, layout, file.len() as u64);
                bytes.extend_from_slice(file);
            }
        }
        bytes
    }

    /// Tells whether its data are large objects.
    pub fn has_large_objects(&self) -> bool {
        self.has_data && self.kind == b"BLOBS"
    }
}

impl Layout {
    /// Tells whether large objects may be in several items.
    pub fn has_several_lists(self) -> bool {
        self.minor >= MINOR_OF_KINDS
    }

    /// Gives what a block begins with.
    pub fn block(self, block: Block) -> Vec<u8> {
        let (kind, id) = match block {
            Block::Rows(id) => (ROWS, id),
            Block::LargeObjects(id) => (LARGE_OBJECTS, id),
        };
        let mut bytes = vec![kind];
        put_int(&mut bytes, self, id.unsigned_abs());
        bytes
    }

    /// Gives a length, the number of a large object, or with 0 the end of a block.
    pub fn number(self, number: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_int(&mut bytes, self, u64::from(number));
        bytes
    }
}

/// Writes the pieces of a block.
pub struct Pieces<'a, W> {
    /// Where to.
    pub out: &'a mut W,
    /// How.
    pub layout: Layout,
}

impl<W: Write> Write for Pieces<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A piece of no bytes would be the end.
        const PIECE_BYTES_MAX: usize = 1 << 24;
        let bytes = bytes.get(..PIECE_BYTES_MAX).unwrap_or(bytes);
        if !bytes.is_empty() {
            let length = u32::try_from(bytes.len()).unwrap_or_default();
            self.out.write_all(&self.layout.number(length))?;
            self.out.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn put_int(bytes: &mut Vec<u8>, layout: Layout, number: u64) {
    bytes.push(0);
    let width = usize::from(layout.int_bytes);
    bytes.extend(number.to_le_bytes().into_iter().take(width));
}

/// Reads a number: its sign, and its bytes, the lowest first.
fn int(input: &mut impl Read, passed: &mut Vec<u8>, layout: Layout) -> io::Result<i64> {
    let [sign] = bytes::<1>(input, passed)?;
    let from = passed.len();
    exactly(input, passed, u64::from(layout.int_bytes))?;
    let read = passed.get(from..).unwrap_or_default();
    let number = read.iter().rev().try_fold(0_i64, |number, byte| {
        number.checked_mul(256)?.checked_add(i64::from(*byte))
    });
    let number = number.ok_or_else(|| malformed("it has too large a number"))?;
    Ok(if sign == 0 { number } else { -number })
}

/// Reads a text; none where there is none, which is not an empty one.
fn text(
    input: &mut impl Read,
    passed: &mut Vec<u8>,
    layout: Layout,
) -> io::Result<Option<Vec<u8>>> {
    let length = int(input, passed, layout)?;
    let Ok(length) = u64::try_from(length) else {
        return Ok(None);
    };
    if length > TEXT_BYTES_MAX {
        return Err(malformed("it has a text longer than can be"));
    }
    let from = passed.len();
    exactly(input, passed, length)?;
    Ok(passed.get(from..).map(<[u8]>::to_vec))
}

fn bytes<const N: usize>(input: &mut impl Read, passed: &mut Vec<u8>) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    passed.extend_from_slice(&bytes);
    Ok(bytes)
}

/// Reads so many bytes; memory is taken as they come.
fn exactly(input: &mut impl Read, passed: &mut Vec<u8>, count: u64) -> io::Result<()> {
    let read = input.take(count).read_to_end(passed)?;
    match read as u64 == count {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn malformed(why: &str) -> io::Error {
    let text = format!("this is nothing of pg_dump that larder can read: {why}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;
    use proptest::prelude::*;

    const LAYOUT: Layout = Layout {
        minor: 14,
        int_bytes: 4,
        offset_bytes: 8,
    };

    fn put_text(bytes: &mut Vec<u8>, text: Option<&str>) {
        match text {
            Some(text) => {
                put_int(bytes, LAYOUT, text.len() as u64);
                bytes.extend(text.bytes());
            }
            None => bytes.extend([1, 1, 0, 0, 0]),
        }
    }

    fn head(minor: u8, compression: u8, form: Form, items: u64) -> Vec<u8> {
        let mut bytes = b"PGDMP\x01".to_vec();
        bytes.extend([minor, 0, 4, 8, form as u8]);
        match minor {
            14 => put_int(&mut bytes, LAYOUT, u64::from(compression)),
            _ => bytes.push(compression),
        }
        for part in 0..7 {
            put_int(&mut bytes, LAYOUT, part);
        }
        put_text(&mut bytes, Some("shop"));
        put_text(&mut bytes, Some("15.18"));
        put_text(&mut bytes, None);
        put_int(&mut bytes, LAYOUT, items);
        bytes
    }

    /// Writes an item; `place` is the file of its data in a directory.
    fn put_item(bytes: &mut Vec<u8>, minor: u8, id: u64, kind: &str, form: Form, place: &str) {
        put_int(bytes, LAYOUT, id);
        put_int(bytes, LAYOUT, u64::from(!place.is_empty()));
        put_text(bytes, Some("1259"));
        put_text(bytes, Some("0"));
        put_text(bytes, Some("Ta\nble"));
        put_text(bytes, Some(kind));
        put_int(bytes, LAYOUT, 3);
        put_text(bytes, Some("CREATE"));
        put_text(bytes, Some(""));
        put_text(bytes, None);
        put_text(bytes, Some("public"));
        put_text(bytes, None);
        put_text(bytes, None);
        if minor >= 16 {
            put_int(bytes, LAYOUT, 114);
        }
        put_text(bytes, Some("me"));
        put_text(bytes, Some("false"));
        put_text(bytes, Some("17"));
        put_text(bytes, None);
        match form {
            Form::Directory => put_text(bytes, Some(place)),
            Form::Custom => {
                bytes.push(if place.is_empty() { 3 } else { 1 });
                bytes.extend([0; 8]);
            }
        }
    }

    fn toc(minor: u8, form: Form) -> Vec<u8> {
        let mut bytes = head(minor, 0, form, 3);
        put_item(&mut bytes, minor, 200, "FUNCTION", form, "");
        put_item(&mut bytes, minor, 3301, "TABLE DATA", form, "a.dat");
        put_item(&mut bytes, minor, 3302, "BLOBS", form, "blobs.toc");
        bytes
    }

    fn stream(minor: u8) -> Vec<u8> {
        let mut bytes = toc(minor, Form::Custom);
        bytes.extend([1, 0, 0xe5, 0x0c, 0, 0]);
        bytes.extend([
            0, 3, 0, 0, 0, b'o', b'n', b'e', 0, 1, 0, 0, 0, b'!', 0, 0, 0, 0, 0,
        ]);
        bytes.extend([3, 0, 0xe6, 0x0c, 0, 0]);
        // The number 4294967295, as an integer of 32 bits with a sign.
        bytes.extend([1, 1, 0, 0, 0, 0, 2, 0, 0, 0, 7, 8, 0, 0, 0, 0, 0]);
        bytes.extend([0, 0, 0, 0, 0]);
        bytes
    }

    fn items(reader: &mut DumpReader<impl Read>) -> Vec<Item> {
        std::iter::from_fn(|| reader.next_item().unwrap()).collect()
    }

    #[test]
    fn a_stream_becomes_a_directory_and_a_directory_a_stream() {
        for minor in MINORS {
            let stream = stream(minor);
            let mut reader = DumpReader::new(stream.as_slice(), Form::Custom);
            reader.read_head().unwrap();
            let layout = reader.layout();
            let mut made = reader.head(Form::Directory);
            let items = items(&mut reader);
            let files = ["", "a.dat", "blobs.toc"];
            for (item, file) in items.iter().zip(files) {
                assert_eq!(item.has_data, !file.is_empty());
                made.extend(item.encode(layout, Form::Directory, file.as_bytes()));
            }
            assert_eq!(made, toc(minor, Form::Directory), "{minor}");
            assert!(items[2].has_large_objects() && !items[1].has_large_objects());
            let (tag, schema) = (&items[1].tag, &items[1].schema);
            assert_eq!((&**tag, &**schema), (&b"Ta\nble"[..], &b"public"[..]));

            let mut bytes = Vec::new();
            assert_eq!(reader.next_block().unwrap(), Some(Block::Rows(3301)));
            reader.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, b"one!");
            let objects = reader.next_block().unwrap();
            assert_eq!(objects, Some(Block::LargeObjects(3302)));
            assert_eq!(reader.next_large_object().unwrap(), Some(u32::MAX));
            bytes.clear();
            reader.read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes, [7, 8]);
            assert_eq!(reader.next_large_object().unwrap(), None);
            assert_eq!(reader.next_block().unwrap(), None);

            let mut reader = DumpReader::new(made.as_slice(), Form::Directory);
            reader.read_head().unwrap();
            let mut again = reader.head(Form::Custom);
            for (item, file) in std::iter::from_fn(|| reader.next_item().unwrap()).zip(files) {
                assert_eq!(item.file, file.as_bytes());
                again.extend(item.encode(layout, Form::Custom, b""));
            }
            assert_eq!(again, toc(minor, Form::Custom));
        }
    }

    #[test]
    fn what_is_written_in_pieces_is_read_back() {
        let mut bytes = toc(15, Form::Custom);
        bytes.extend(LAYOUT.block(Block::Rows(3301)));
        let content: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
        let mut pieces = Pieces {
            out: &mut bytes,
            layout: LAYOUT,
        };
        pieces.write_all(&content[..70_000]).unwrap();
        pieces.write_all(b"").unwrap();
        pieces.write_all(&content[70_000..]).unwrap();
        bytes.extend(LAYOUT.number(0));
        let mut reader = DumpReader::new(bytes.as_slice(), Form::Custom);
        reader.read_head().unwrap();
        items(&mut reader);
        reader.next_block().unwrap();
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert_eq!(read, content);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let refused = |bytes: &[u8], form: Form| {
            let mut reader = DumpReader::new(bytes, form);
            reader.read_head().unwrap_err().to_string()
        };
        for minor in [13, 17] {
            let text = refused(&head(minor, 0, Form::Custom, 1), Form::Custom);
            assert!(text.contains(&format!("version 1.{minor}")), "{text}");
        }
        for minor in [14, 16] {
            let text = refused(&head(minor, 6, Form::Custom, 1), Form::Custom);
            assert!(text.contains("compressed"), "{text}");
        }
        refused(&toc(14, Form::Directory), Form::Custom);
        refused(b"--\n-- PostgreSQL database dump\n--\n", Form::Custom);
        // A length beyond all bounds takes no memory.
        let mut long = toc(14, Form::Custom);
        let at = head(14, 0, Form::Custom, 0).len() + 10;
        long[at..at + 5].copy_from_slice(&[0, 0, 0, 0, 0x3f]);
        let mut reader = DumpReader::new(long.as_slice(), Form::Custom);
        reader.read_head().unwrap();
        reader.next_item().unwrap_err();
    }

    /// Reads all that there is.
    fn read_all(bytes: &[u8]) -> io::Result<u64> {
        let mut reader = DumpReader::new(bytes, Form::Custom);
        reader.read_head()?;
        while reader.next_item()?.is_some() {}
        let mut count = 0;
        while let Some(block) = reader.next_block()? {
            if let Block::LargeObjects(_) = block {
                while reader.next_large_object()?.is_some() {
                    count += io::copy(&mut reader, &mut io::sink())?;
                }
            } else {
                count += io::copy(&mut reader, &mut io::sink())?;
            }
        }
        Ok(count)
    }

    #[test]
    fn a_stream_that_is_cut_short_is_never_whole() {
        let stream = stream(16);
        assert_eq!(read_all(&stream).unwrap(), 6);
        let blocks = toc(16, Form::Custom).len();
        // Behind a block it may have ended; that there must be more is known from the items.
        let ends = [blocks, stream.len() - 28];
        for length in 0..stream.len() {
            let cut = read_all(&stream[..length]);
            assert_eq!(cut.is_ok(), ends.contains(&length), "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            place in 0_usize..600,
            bytes in proptest::collection::vec(any::<u8>(), 1..12),
        ) {
            let mut stream = stream(14);
            let place = place % stream.len();
            let end = (place + bytes.len()).min(stream.len());
            stream.splice(place..end, bytes);
            let _ = read_all(&stream);
        }
    }
}
