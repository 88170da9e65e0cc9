//! Pages, the shared encoding of nodes, and codec 2, which puts their columns side by side
//! (SPEC.md §6).

use alloc::vec;
use alloc::vec::Vec;

use zstd_safe::{CCtx, DCtx};

use crate::codec::{Reader, put_varint};
use crate::column::{put_integers, put_strings, read_integers, read_strings};
use crate::error::{FormatError, Result};
use crate::limits::{BLOCK_CHUNKS, BLOCK_PLAIN_BYTES, CHUNK_BYTES, HEIGHT, PAGE_COLUMNS};

/// The stream codec of a column that is stored as it is.
const STORED: u8 = 0;
/// The stream codec of one zstd frame.
const ZSTD: u8 = 1;
/// Below this many bytes a zstd frame seldom gains its own header.
const COMPRESS_BYTES_MIN: usize = 24;

/// Writes a page field by field, in ascending order.
#[derive(Debug, Default)]
pub(crate) struct PageWriter {
    columns: Vec<(u8, usize)>,
    body: Vec<u8>,
    values: Vec<u64>,
}

impl PageWriter {
    /// Adds a column of integers, unless all are `default` (or there are none).
    pub(crate) fn integers(&mut self, field: u8, default: u64, values: impl Iterator<Item = u64>) {
        self.values.clear();
        self.values.extend(values);
        if self.values.iter().any(|value| *value != default) {
            self.column(field);
        }
    }

    /// Adds a column of integers, unless there are none.
    pub(crate) fn required(&mut self, field: u8, values: impl Iterator<Item = u64>) {
        self.values.clear();
        self.values.extend(values);
        if !self.values.is_empty() {
            self.column(field);
        }
    }

    fn column(&mut self, field: u8) {
        let start = self.body.len();
        put_integers(&mut self.body, &self.values);
        self.columns.push((field, self.body.len() - start));
    }

    /// Adds a column of strings, unless all are empty (or there are none).
    pub(crate) fn strings<'a>(
        &mut self,
        field: u8,
        strings: impl Iterator<Item = &'a [u8]> + Clone,
    ) {
        if strings.clone().any(|string| !string.is_empty()) {
            let start = self.body.len();
            put_strings(&mut self.body, strings);
            self.columns.push((field, self.body.len() - start));
        }
    }

    /// Adds raw pieces, joined, unless that gives nothing.
    pub(crate) fn raw<'a>(&mut self, field: u8, pieces: impl Iterator<Item = &'a [u8]>) {
        let start = self.body.len();
        pieces.for_each(|piece| self.body.extend_from_slice(piece));
        if self.body.len() > start {
            self.columns.push((field, self.body.len() - start));
        }
    }

    /// Gives the bytes of the page.
    pub(crate) fn finish(self, level: u8, items: usize) -> Vec<u8> {
        let mut page = Vec::with_capacity(self.body.len() + 4 * self.columns.len() + 8);
        page.push(level);
        put_varint(&mut page, items as u64);
        put_varint(&mut page, self.columns.len() as u64);
        for (field, length) in &self.columns {
            page.push(*field);
            put_varint(&mut page, *length as u64);
        }
        page.extend_from_slice(&self.body);
        page
    }
}

/// A page taken apart; its columns are read one at a time and must all be read.
#[derive(Debug)]
pub(crate) struct PageReader<'a> {
    what: &'static str,
    /// The level that the page states.
    pub(crate) level: u8,
    /// The number of items that the page states, within the limit given.
    pub(crate) items: usize,
    columns: [Option<&'a [u8]>; PAGE_COLUMNS],
}

impl<'a> PageReader<'a> {
    /// Reads the head of a page and finds its columns.
    pub(crate) fn new(what: &'static str, page: &'a [u8], items_max: usize) -> Result<Self> {
        if page.len() > CHUNK_BYTES {
            return Err(FormatError::Limit {
                what: "bytes of a node",
                found: page.len() as u64,
                limit: CHUNK_BYTES as u64,
            });
        }
        let mut head = Reader::new(what, page);
        let mut lengths = [(0_u8, 0_usize); PAGE_COLUMNS];
        let (level, items, count) = read_head(&mut head, &mut lengths)?;
        let mut body = head.clone();
        let mut columns = [None; PAGE_COLUMNS];
        for (field, length) in lengths.iter().take(count) {
            let slot = columns.get_mut(usize::from(*field));
            *slot.ok_or_else(|| head.malformed("a field is unknown"))? = Some(body.take(*length)?);
        }
        body.finish()?;
        let items = usize::try_from(items).unwrap_or(usize::MAX);
        if items > items_max {
            return Err(FormatError::Limit {
                what: "items in a node",
                found: items as u64,
                limit: items_max as u64,
            });
        }
        Ok(Self {
            what,
            level,
            items,
            columns,
        })
    }

    /// Makes the error for what was found wrong in the page.
    pub(crate) fn malformed(&self, why: &'static str) -> FormatError {
        FormatError::Malformed {
            what: self.what,
            at: 0,
            why,
        }
    }

    fn take(&mut self, field: u8) -> Option<&'a [u8]> {
        self.columns
            .get_mut(usize::from(field))
            .and_then(Option::take)
    }

    /// Tells whether a column is present and has not been read.
    pub(crate) fn has(&self, field: u8) -> bool {
        matches!(self.columns.get(usize::from(field)), Some(Some(_)))
    }

    /// Reads a column of one integer for each item into `values`; all `default` if it is absent.
    pub(crate) fn integers(
        &mut self,
        field: u8,
        default: u64,
        values: &mut Vec<u64>,
    ) -> Result<()> {
        self.integers_of(field, default, self.items, values)
    }

    /// Reads a column of `count` integers into `values`; all `default` if it is absent.
    pub(crate) fn integers_of(
        &mut self,
        field: u8,
        default: u64,
        count: usize,
        values: &mut Vec<u64>,
    ) -> Result<()> {
        match self.take(field) {
            Some(column) => {
                read_integers(column, count, values)?;
                if values.iter().all(|value| *value == default) {
                    return Err(self.malformed("a column is present but holds only the default"));
                }
            }
            None => {
                values.clear();
                values.resize(count, default);
            }
        }
        Ok(())
    }

    /// Reads a column of `count` integers that is present exactly if `count` is above 0.
    pub(crate) fn required(
        &mut self,
        field: u8,
        count: usize,
        values: &mut Vec<u64>,
    ) -> Result<()> {
        values.clear();
        match self.take(field) {
            Some(column) if count > 0 => read_integers(column, count, values),
            None if count == 0 => Ok(()),
            _ => Err(self.malformed("a column is missing, or present without values")),
        }
    }

    /// Reads a column of `count` strings; `None` if it is absent, as all are empty then.
    pub(crate) fn strings(
        &mut self,
        field: u8,
        count: usize,
        what: &'static str,
        limit: usize,
    ) -> Result<Option<Vec<&'a [u8]>>> {
        let Some(column) = self.take(field) else {
            return Ok(None);
        };
        let strings = read_strings(column, count, what, limit)?;
        if strings.iter().all(|string| string.is_empty()) {
            return Err(self.malformed("a column is present but holds only the default"));
        }
        Ok(Some(strings))
    }

    /// Gives the bytes of a raw column; none if it is absent.
    pub(crate) fn raw(&mut self, field: u8) -> &'a [u8] {
        self.take(field).unwrap_or_default()
    }

    /// Gives the bytes of a raw column that holds `count` ids.
    pub(crate) fn ids(&mut self, field: u8, count: usize) -> Result<&'a [[u8; 32]]> {
        let (ids, rest) = self.raw(field).as_chunks::<32>();
        if ids.len() == count && rest.is_empty() {
            Ok(ids)
        } else {
            Err(self.malformed("the column of ids does not have the right length"))
        }
    }

    /// Ends the reading; an error if a column was not read, as its field is unknown.
    pub(crate) fn finish(self) -> Result<()> {
        if self.columns.iter().all(Option::is_none) {
            Ok(())
        } else {
            Err(self.malformed("a field is unknown, or does not belong here"))
        }
    }
}

/// Encodes the pages of a block by column (codec 2).
///
/// The columns named in `raw_fields` (ids) are stored without trying; the others are compressed
/// if that makes them smaller. The pages must be well-formed, as the encoders here make them.
pub fn transpose(
    pages: &[&[u8]],
    raw_fields: &[u8],
    zstd_level: i32,
    context: &mut CCtx<'_>,
) -> Result<Vec<u8>> {
    let mut heads = Vec::new();
    let mut columns: [Vec<u8>; PAGE_COLUMNS] = core::array::from_fn(|_| Vec::new());
    for page in pages {
        let mut head = Reader::new("page", page);
        let mut lengths = [(0, 0); PAGE_COLUMNS];
        let (_, _, count) = read_head(&mut head, &mut lengths)?;
        heads.extend_from_slice(page.get(..head.position()).unwrap_or_default());
        for (field, length) in lengths.iter().take(count) {
            let column = columns.get_mut(usize::from(*field));
            let column = column.ok_or_else(|| head.malformed("a field is unknown"))?;
            column.extend_from_slice(head.take(*length)?);
        }
        head.finish()?;
    }
    let raw = |field: u8| raw_fields.contains(&field);
    let heads = core::iter::once((0, &heads));
    let present = (0..).zip(&columns).filter(|(_, column)| !column.is_empty());
    let mut data = Vec::new();
    let mut body = Vec::new();
    let streams = columns.iter().filter(|column| !column.is_empty()).count();
    put_varint(&mut data, pages.len() as u64);
    put_varint(&mut data, 1 + streams as u64);
    for (field, column) in heads.chain(present) {
        let start = body.len();
        let compressed = !raw(field) && compress(column, zstd_level, context, &mut body);
        if !compressed {
            body.extend_from_slice(column);
        }
        data.push(field);
        data.push(if compressed { ZSTD } else { STORED });
        put_varint(&mut data, column.len() as u64);
        put_varint(&mut data, (body.len() - start) as u64);
    }
    data.extend_from_slice(&body);
    Ok(data)
}

/// Appends `column` as a zstd frame if that is smaller; leaves `out` alone otherwise.
fn compress(column: &[u8], level: i32, context: &mut CCtx<'_>, out: &mut Vec<u8>) -> bool {
    if column.len() < COMPRESS_BYTES_MIN {
        return false;
    }
    let start = out.len();
    // No frame that does not fit here would be smaller than the column.
    out.resize(start + column.len() - 1, 0);
    let frame = out.get_mut(start..).unwrap_or_default();
    let written = context.compress(frame, column, level);
    out.truncate(start + written.unwrap_or(0));
    written.is_ok()
}

/// Undoes [`transpose`]: gives the pages, joined, of at most `limit` bytes altogether.
pub fn untranspose(data: &[u8], limit: usize, context: &mut DCtx<'_>) -> Result<Vec<u8>> {
    let limit = limit.min(BLOCK_PLAIN_BYTES);
    let mut reader = Reader::new("block of columns", data);
    let pages = reader.varint_below("chunks in a block", BLOCK_CHUNKS)?;
    let streams = read_streams(&mut reader, limit, context)?;
    let (heads, columns) = match streams.split_first() {
        Some(((0, heads), columns)) => (heads, columns),
        _ => return Err(reader.malformed("its first stream is not the heads")),
    };
    let mut unused: [Option<Reader<'_>>; PAGE_COLUMNS] = core::array::from_fn(|_| None);
    for (field, bytes) in columns {
        if let Some(slot) = unused.get_mut(usize::from(*field)) {
            *slot = Some(Reader::new("column of a block", bytes));
        }
    }
    // The streams' raw lengths, which add up to the pages, are within the limit.
    let total: usize = streams.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut joined = Vec::with_capacity(total);
    let mut head = Reader::new("heads of a block", heads);
    for _ in 0..pages {
        let start = head.position();
        let mut lengths = [(0, 0); PAGE_COLUMNS];
        let (_, _, count) = read_head(&mut head, &mut lengths)?;
        joined.extend_from_slice(heads.get(start..head.position()).unwrap_or_default());
        for (field, length) in lengths.iter().take(count) {
            let stream = unused.get_mut(usize::from(*field));
            match stream.and_then(Option::as_mut) {
                Some(stream) => joined.extend_from_slice(stream.take(*length)?),
                None => return Err(head.malformed("a column has no stream")),
            }
        }
    }
    head.finish()?;
    unused.into_iter().flatten().try_for_each(Reader::finish)?;
    Ok(joined)
}

/// Reads and decompresses all streams of a block: ascending fields with their bytes.
fn read_streams(
    reader: &mut Reader<'_>,
    limit: usize,
    context: &mut DCtx<'_>,
) -> Result<Vec<(u8, Vec<u8>)>> {
    let count = reader.varint_below("streams in a block", PAGE_COLUMNS)?;
    let mut table = Vec::with_capacity(count);
    let mut total = 0;
    for index in 0..count {
        let field = reader.u8()?;
        let codec = reader.u8()?;
        let raw_length = reader.varint_below("plaintext of a block", limit - total)?;
        let stored_length = reader.varint_below("stored bytes of a stream", BLOCK_PLAIN_BYTES)?;
        total += raw_length;
        let ascending = table
            .last()
            .is_none_or(|(previous, _, _, _)| *previous < field);
        if !ascending || usize::from(field) >= PAGE_COLUMNS || (index > 0 && raw_length == 0) {
            return Err(reader.malformed("its streams are not in order, unknown or empty"));
        }
        table.push((field, codec, raw_length, stored_length));
    }
    let mut streams = Vec::with_capacity(count);
    for (field, codec, raw_length, stored_length) in table {
        let stored = reader.take(stored_length)?;
        let bytes = match codec {
            STORED if raw_length == stored_length => stored.to_vec(),
            ZSTD => decompress(stored, raw_length, context)?,
            _ => return Err(reader.malformed("the codec of a stream is unknown or does not fit")),
        };
        streams.push((field, bytes));
    }
    if reader.rest().is_empty() {
        Ok(streams)
    } else {
        Err(reader.malformed("bytes follow its end"))
    }
}

/// Decompresses exactly one zstd frame that states `length` as its content size.
fn decompress(frame: &[u8], length: usize, context: &mut DCtx<'_>) -> Result<Vec<u8>> {
    let malformed = |why| FormatError::Malformed {
        what: "zstd frame",
        at: 0,
        why,
    };
    let stated = zstd_safe::get_frame_content_size(frame).ok().flatten();
    if stated != Some(length as u64) {
        return Err(malformed("its content size is missing or not as stated"));
    }
    if zstd_safe::find_frame_compressed_size(frame) != Ok(frame.len()) {
        return Err(malformed("it is damaged, or something follows it"));
    }
    let mut bytes = vec![0; length];
    match context.decompress(bytes.as_mut_slice(), frame) {
        Ok(found) if found == length => Ok(bytes),
        _ => Err(malformed("it cannot be decompressed")),
    }
}

/// Reads a head up to the columns' bytes; gives level, items, and how many of `lengths` it set.
fn read_head(
    reader: &mut Reader<'_>,
    lengths: &mut [(u8, usize); PAGE_COLUMNS],
) -> Result<(u8, u64, usize)> {
    let level = reader.u8()?;
    if level > HEIGHT {
        return Err(FormatError::Limit {
            what: "height of a tree",
            found: u64::from(level),
            limit: u64::from(HEIGHT),
        });
    }
    let items = reader.varint()?;
    let count = reader.varint_below("columns in a page", PAGE_COLUMNS)?;
    let mut previous = 0;
    for slot in lengths.iter_mut().take(count) {
        let field = reader.u8()?;
        let length = reader.varint_below("bytes of a column", CHUNK_BYTES)?;
        if field <= previous || length == 0 {
            return Err(reader.malformed("its columns are not in order, or empty"));
        }
        previous = field;
        *slot = (field, length);
    }
    Ok((level, items, count))
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]
mod tests;
