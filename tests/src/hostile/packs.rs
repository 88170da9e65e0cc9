//! Packs, blocks and segments that say other things than what they hold.

use larder_format::compression::Compressor;
use larder_format::directory::{Directory, DirectoryBlock};
use larder_format::ids::{ChunkType, ObjectId, SessionId};
use larder_format::names::{self, Name};
use larder_format::object::{HEADER_BYTES, Header, Kind, object_id};
use larder_format::pack::{FOOTER_BYTES, directory_range, open_pack};
use larder_format::seal::{self, Aad, OVERHEAD_BYTES};
use larder_format::segment::{Owner, Segment, SegmentPack};

use super::choices::Choices;
use super::edits::rename;
use super::forge::Forge;

/// A pack that opens.
struct Opened {
    id: ObjectId,
    header: Header,
    directory: Directory,
    bytes: Vec<u8>,
}

fn any_pack(forge: &Forge, choices: &mut Choices<'_>) -> Option<Opened> {
    let names = forge
        .objects
        .keys()
        .filter_map(|name| match names::parse(name) {
            Some(Name::Pack(id)) => Some(id),
            _ => None,
        });
    let ids: Vec<ObjectId> = names.collect();
    let id = *choices.pick(&ids)?;
    let bytes = forge.objects.get(&names::pack(&id))?.to_vec();
    let (header, directory) = open_pack(&forge.keyring, &id, &bytes).ok()?;
    Some(Opened {
        id,
        header,
        directory,
        bytes,
    })
}

/// Changes what a pack's directory says of its blocks; segments may go on saying what it was.
pub fn change_directory(forge: &mut Forge, choices: &mut Choices<'_>) {
    let Some(pack) = any_pack(forge, choices) else {
        return;
    };
    let mut directory = pack.directory.clone();
    for _ in 0..=choices.below(2) {
        disturb_directory(&mut directory, choices);
    }
    let blocks = blocks_of(&pack);
    let raw = choices.coin().then(|| {
        let mut plaintext = directory.encode();
        choices.disturb(&mut plaintext);
        plaintext
    });
    replace(forge, choices, &pack, &blocks, &directory, raw);
}

/// Gives the bytes of a pack's blocks, joined.
fn blocks_of(pack: &Opened) -> Vec<u8> {
    let end = HEADER_BYTES + pack.directory.blocks_length() as usize;
    pack.bytes[HEADER_BYTES..end].to_vec()
}

fn disturb_directory(directory: &mut Directory, choices: &mut Choices<'_>) {
    let (number, other) = (
        choices.below(directory.blocks.len()),
        choices.below(directory.blocks.len()),
    );
    let way = choices.below(8);
    if way == 0 && directory.blocks.len() > 1 {
        directory.blocks.swap(number, other);
        return;
    }
    let Some(block) = directory.blocks.get_mut(number) else {
        return;
    };
    match way {
        1 => block.sealed_length = choices.number(block.sealed_length.into()) as u32,
        2 => block.chunk_type = any_type(choices),
        3 => drop(directory.blocks.remove(number)),
        4 => {
            let again = block.clone();
            directory.blocks.push(again);
        }
        _ => disturb_chunks(block, choices),
    }
}

fn disturb_chunks(block: &mut DirectoryBlock, choices: &mut Choices<'_>) {
    let (one, other) = (
        choices.below(block.chunks.len()),
        choices.below(block.chunks.len()),
    );
    let Some(other) = block.chunks.get(other).copied() else {
        return;
    };
    match choices.below(4) {
        0 => block.chunks[one].1 = choices.number(other.1.into()) as u32,
        1 => block.chunks[one].0 = other.0,
        2 => block.chunks.push(other),
        _ => block.chunks[one].0.0[0] ^= choices.byte(),
    }
}

fn any_type(choices: &mut Choices<'_>) -> ChunkType {
    let number = 1 + choices.below(6) as u8;
    ChunkType::from_number(number).unwrap_or(ChunkType::Data)
}

/// Writes the pack anew with other blocks or another directory, and takes the old one away. Who names the old one may
/// name the new one then, with its directory or the one that it had.
fn replace(
    forge: &mut Forge,
    choices: &mut Choices<'_>,
    pack: &Opened,
    blocks: &[u8],
    directory: &Directory,
    raw: Option<Vec<u8>>,
) {
    let key = forge.keyring.find(&pack.header.key_id, pack.header.kind);
    let Ok(key) = key.cloned() else { return };
    let mut plaintext = raw.unwrap_or_else(|| directory.encode());
    let whole = (plaintext.len() + OVERHEAD_BYTES).next_multiple_of(512);
    plaintext.resize(whole - OVERHEAD_BYTES, 0);
    let aad = Aad::directory(&key, &pack.header);
    let sealed = seal::seal(&key, &aad, &forge.draw(), &plaintext).unwrap();
    let mut bytes = [&pack.bytes[..HEADER_BYTES], blocks].concat();
    let length = (bytes.len() + sealed.len() + FOOTER_BYTES) as u64;
    let padding = larder_format::pack::padme(length) - length;
    bytes.resize(bytes.len() + padding as usize, 0x55);
    bytes.extend_from_slice(&sealed);
    let footer = &pack.bytes[pack.bytes.len() - FOOTER_BYTES..];
    debug_assert!(directory_range(pack.bytes.len() as u64, footer).is_ok());
    bytes.extend_from_slice(&(sealed.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&footer[4..]);
    let id = object_id(&bytes);
    forge.put(&names::pack(&id), &bytes);
    if choices.coin() {
        forge.objects.remove(&names::pack(&pack.id));
    }
    if choices.byte() < 200 {
        follow(forge, choices, pack, id, bytes.len() as u64, directory);
    }
}

/// Lets segments name the new pack in place of the old one.
fn follow(
    forge: &mut Forge,
    choices: &mut Choices<'_>,
    pack: &Opened,
    id: ObjectId,
    length: u64,
    directory: &Directory,
) {
    for (segment_id, mut segment) in segments(forge) {
        let mut packs = segment.packs.iter_mut();
        let Some(named) = packs.find(|one| one.id == pack.id) else {
            continue;
        };
        (named.id, named.length) = (id, length);
        if choices.byte() < 200 {
            named.directory = directory.clone();
        }
        reseal(forge, &segment_id, segment);
    }
}

fn segments(forge: &Forge) -> Vec<(ObjectId, Segment)> {
    let names = forge
        .objects
        .iter()
        .filter_map(|(name, bytes)| match names::parse(name) {
            Some(Name::Segment(id)) => Some((id, Segment::open(&forge.keyring, &id, bytes).ok()?)),
            _ => None,
        });
    names.collect()
}

/// Writes a segment anew and lets all records name it in place of the old one.
fn reseal(forge: &mut Forge, old: &ObjectId, segment: Segment) {
    let random = forge.draw();
    // What is longer than a segment may be is not written.
    if let Ok((id, object)) = segment.seal(&forge.keyring, [0x77; 16], &random) {
        forge.put(&names::segment(&id), &object);
        forge.objects.remove(&names::segment(old));
        rename(forge, &old.0, &id.0);
    }
}

/// Puts something else into a block: altered, of another codec, or much more than a block may hold.
pub fn change_block(forge: &mut Forge, choices: &mut Choices<'_>) {
    let Some(pack) = any_pack(forge, choices) else {
        return;
    };
    let number = choices.below(pack.directory.blocks.len());
    let Some((offset, block)) = pack.directory.blocks_with_offsets().nth(number) else {
        return;
    };
    let key = forge.keyring.find(&pack.header.key_id, pack.header.kind);
    let Ok(key) = key.cloned() else { return };
    let start = offset as usize;
    let sealed = &pack.bytes[start..start + block.sealed_length as usize];
    let aad = Aad::block(&key, block.chunk_type);
    let Ok(mut payload) = seal::open(&key, &aad, sealed) else {
        return;
    };
    match choices.below(5) {
        0 => choices.disturb(&mut payload),
        1 => payload[0] = choices.byte() % 4,
        2 => payload = bomb(choices),
        3 => payload.truncate(choices.below(8)),
        _ => {
            // What a frame or a page says of lengths stands at its start.
            let at = 1 + choices.below(16);
            let value = choices.byte();
            payload
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|byte| *byte = value);
        }
    }
    let Ok(sealed) = seal::seal(&key, &aad, &forge.draw(), &payload) else {
        return;
    };
    let mut directory = pack.directory.clone();
    let old = directory.blocks[number].sealed_length as usize;
    directory.blocks[number].sealed_length = sealed.len() as u32;
    let mut blocks = blocks_of(&pack);
    let start = start - HEADER_BYTES;
    drop(blocks.splice(start..start + old, sealed));
    replace(forge, choices, &pack, &blocks, &directory, None);
}

/// Gives a payload that is small and says that it is huge, or is.
fn bomb(choices: &mut Choices<'_>) -> Vec<u8> {
    let plain = vec![0; (9 << 20) + choices.below(2)];
    let mut compressor = Compressor::new().unwrap();
    let frame = compressor.compress(&plain, 1, 1).unwrap_or_default();
    let mut payload = frame.unwrap_or_default();
    payload[0] = 1;
    if choices.coin() {
        // Eight bytes of content size in a frame of a single segment.
        payload = [
            &[1, 0x28, 0xb5, 0x2f, 0xfd, 0xe0][..],
            &choices.number(9 << 20).to_le_bytes(),
        ]
        .concat();
        payload.extend_from_slice(&[1, 0, 0]);
    }
    payload
}

/// Changes what a segment says of packs, or whose it is.
pub fn change_segment(forge: &mut Forge, choices: &mut Choices<'_>) {
    let all = segments(forge);
    let Some((id, segment)) = choices.pick(&all).cloned() else {
        return;
    };
    let mut segment = segment;
    let others = all.iter().flat_map(|(_, other)| other.packs.clone());
    let others: Vec<SegmentPack> = others.collect();
    let number = choices.below(segment.packs.len());
    let way = choices.below(8);
    match segment.packs.get_mut(number) {
        Some(pack) if way < 5 => match way {
            0 => pack.length = choices.number(pack.length),
            1 => {
                pack.kind = if choices.coin() {
                    Kind::DataPack
                } else {
                    Kind::TreePack
                }
            }
            2 => pack.id.0[0] ^= choices.byte(),
            3 => disturb_directory(&mut pack.directory, choices),
            _ => drop(segment.packs.remove(number)),
        },
        _ => match way {
            5 => segment.owner = Owner::Round(choices.number(1)),
            6 => {
                segment.owner =
                    Owner::Session(SessionId::new(choices.number(1), [choices.byte(); 16]))
            }
            _ => segment.packs.extend(choices.pick(&others).cloned()),
        },
    }
    reseal(forge, &id, segment);
}
