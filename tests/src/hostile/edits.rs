//! What a case does to the repository, byte by byte of its input: to objects as they lie there, and to what is in
//! them, sealed again as whoever holds the keys can.

use larder_format::cell::Cell;
use larder_format::collector::{Round, State};
use larder_format::config::Config;
use larder_format::ids::{SessionId, SlotId};
use larder_format::keys::Purpose;
use larder_format::ledger::Ledger;
use larder_format::mirror::{MARKER, Manifest, marker};
use larder_format::names::{self, Name};
use larder_format::object::{CLOSING_BYTES, HEADER_BYTES, Kind, close, object_id};
use larder_format::quarantine::{self, RepairId, Undo};
use larder_format::record::Record;
use larder_format::run::{Run, RunEnd};
use larder_format::segment::Segment;
use larder_format::session::{Amendment, Change, Session, SessionEnd};
use larder_format::slot::{KdfParams, SlotKind, SlotParams};

use super::cbor::Value;
use super::choices::Choices;
use super::forge::Forge;
use super::{packs, trees};

/// Edits of one case.
const EDITS_MAX: usize = 6;

/// Does to the repository what each of several slices says, so that what the one decides moves nothing in the next.
pub fn edit_each(forge: &mut Forge, edits: &[Vec<u8>]) {
    for bytes in edits.iter().take(EDITS_MAX) {
        one(forge, &mut Choices::new(bytes));
    }
}

/// Does to the repository what the bytes say.
pub fn edit(forge: &mut Forge, bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    for _ in 0..EDITS_MAX {
        if choices.is_over() {
            return;
        }
        one(forge, &mut choices);
    }
}

fn one(forge: &mut Forge, choices: &mut Choices<'_>) {
    match choices.below(18) {
        0 => raw(forge, choices),
        1 => rehash(forge, choices),
        2..=4 => disturb_record(forge, choices),
        5..=8 => trees::change_entry(forge, choices),
        9 => trees::disturb_node(forge, choices),
        10 => trees::stack(forge, choices),
        11 => trees::change_list(forge, choices),
        12 => packs::change_directory(forge, choices),
        13 => packs::change_block(forge, choices),
        14 => packs::change_segment(forge, choices),
        15 => change_config(forge, choices),
        16 => change_slot(forge, choices),
        _ => plant(forge, choices),
    }
}

/// Picks an object's name.
fn any_name(forge: &Forge, choices: &mut Choices<'_>) -> Option<String> {
    let number = choices.below(forge.objects.len());
    forge.objects.keys().nth(number).cloned()
}

/// Changes objects as they lie in the storage.
fn raw(forge: &mut Forge, choices: &mut Choices<'_>) {
    let way = choices.below(6);
    let (Some(one), Some(other)) = (any_name(forge, choices), any_name(forge, choices)) else {
        return;
    };
    let (first, second) = (forge.objects[&one].clone(), forge.objects[&other].clone());
    match way {
        0 => drop(forge.objects.remove(&one)),
        1 => {
            forge.put(&one, &second);
            forge.put(&other, &first);
        }
        2 => forge.put(&other, &first),
        _ => {
            let mut bytes = first.to_vec();
            choices.disturb(&mut bytes);
            forge.put(&one, &bytes);
        }
    }
}

/// Changes an object and gives it the closing hash or the content name that its bytes then have.
fn rehash(forge: &mut Forge, choices: &mut Choices<'_>) {
    let Some(name) = any_name(forge, choices) else {
        return;
    };
    let mut bytes = forge.objects[&name].to_vec();
    match names::parse(&name) {
        Some(Name::Pack(_) | Name::Segment(_)) => {
            choices.disturb(&mut bytes);
            let id = object_id(&bytes);
            let new = match name.starts_with(names::PACKS) {
                true => names::pack(&id),
                false => names::segment(&id),
            };
            if choices.coin() {
                forge.objects.remove(&name);
            }
            forge.put(&new, &bytes);
        }
        _ => {
            bytes.truncate(bytes.len().saturating_sub(CLOSING_BYTES));
            choices.disturb(&mut bytes);
            forge.put(&name, &close(bytes));
        }
    }
}

/// Opens a record and gives its kind, the purpose of its key, and what it says.
fn opened(forge: &Forge, name: &Name) -> Option<(Kind, Purpose, Vec<u8>)> {
    fn of<R: Record>(forge: &Forge, name: &Name) -> Option<(Kind, Purpose, Vec<u8>)> {
        let record: R = forge.open(name)?;
        Some((R::KIND, record.purpose(), record.encode()))
    }
    match name {
        Name::Session(_) => of::<Session>(forge, name),
        Name::SessionEnd(_) => of::<SessionEnd>(forge, name),
        Name::Cell(_) => of::<Cell>(forge, name),
        Name::Amendment(..) => of::<Amendment>(forge, name),
        Name::Round(_) => of::<Round>(forge, name),
        Name::State(_) => of::<State>(forge, name),
        Name::Ledger(_) => of::<Ledger>(forge, name),
        Name::Run(_) => of::<Run>(forge, name),
        Name::RunEnd(_) => of::<RunEnd>(forge, name),
        _ => None,
    }
}

/// Gives the name that a record of a kind claims to have.
fn claimed(kind: Kind, cbor: &[u8]) -> Option<String> {
    fn of<R: Record>(cbor: &[u8]) -> Option<String> {
        R::decode(cbor).ok().map(|record| record.name().to_string())
    }
    match kind {
        Kind::Session => of::<Session>(cbor),
        Kind::SessionEnd => of::<SessionEnd>(cbor),
        Kind::Cell => of::<Cell>(cbor),
        Kind::Amendment => of::<Amendment>(cbor),
        Kind::Round => of::<Round>(cbor),
        Kind::State => of::<State>(cbor),
        Kind::Ledger => of::<Ledger>(cbor),
        Kind::Run => of::<Run>(cbor),
        Kind::RunEnd => of::<RunEnd>(cbor),
        _ => None,
    }
}

/// Changes what a record says, in one or two of its values or in its bytes, and seals it again.
fn disturb_record(forge: &mut Forge, choices: &mut Choices<'_>) {
    let names = forge.objects.keys().filter_map(|name| names::parse(name));
    let names: Vec<Name> = names.filter(|name| opened(forge, name).is_some()).collect();
    let Some(name) = choices.pick(&names).copied() else {
        return;
    };
    let Some((kind, purpose, mut cbor)) = opened(forge, &name) else {
        return;
    };
    let known = known_ids(forge);
    match Value::parse(&cbor) {
        Some(mut value) if choices.byte() != 0xff => {
            for _ in 0..=choices.below(2) {
                value.disturb(choices, &known);
            }
            cbor = value.encode();
        }
        _ => choices.disturb(&mut cbor),
    }
    let claimed = claimed(kind, &cbor).filter(|_| choices.coin());
    let name = claimed.unwrap_or_else(|| name.to_string());
    forge.any_record(kind, purpose, &name, &cbor);
}

/// Gives ids of all lengths that mean something somewhere.
fn known_ids(forge: &Forge) -> Vec<Vec<u8>> {
    let mut known = Vec::new();
    for name in forge.objects.keys() {
        match names::parse(name) {
            Some(Name::Pack(id) | Name::Segment(id)) => known.push(id.0.to_vec()),
            Some(Name::Session(id)) => known.push(id.0.to_vec()),
            Some(Name::Slot(id)) => known.push(id.0.to_vec()),
            Some(Name::Cell(id)) => {
                let cell: Option<Cell> = forge.open(&Name::Cell(id));
                let sources = cell.into_iter().flat_map(|cell| cell.sources);
                known.extend(sources.map(|source| source.root.0.to_vec()));
            }
            _ => {}
        }
    }
    known
}

/// Puts an id in the place of another one in every record and segment that has it, and so on for segments, whose names follow.
pub fn rename(forge: &mut Forge, old: &[u8], new: &[u8]) {
    let names: Vec<String> = forge.objects.keys().cloned().collect();
    for name in names {
        let Some(parsed) = names::parse(&name) else {
            continue;
        };
        if let Name::Segment(id) = parsed {
            let opened = Segment::open(&forge.keyring, &id, &forge.objects[&name]);
            let Ok(mut segment) = opened else { continue };
            let mut packs = segment.packs.iter_mut();
            if let Some(pack) = packs.find(|pack| pack.id.0 == old) {
                pack.id.0.copy_from_slice(new);
                let renamed = forge.segment(segment.owner, segment.packs);
                rename(forge, &id.0, &renamed.0);
            }
        } else if let Some((kind, purpose, cbor)) = opened(forge, &parsed) {
            let value = Value::parse(&cbor);
            if let Some(mut value) = value
                && value.replace(old, new)
            {
                forge.any_record(kind, purpose, &name, &value.encode());
            }
        }
    }
}

/// Writes a config that says something else, under its number or the next one.
fn change_config(forge: &mut Forge, choices: &mut Choices<'_>) {
    let name = names::config(1);
    let Some(object) = forge.objects.get(&name).cloned() else {
        return;
    };
    let Ok(mut config) = Config::read_unverified(1, &object) else {
        return;
    };
    match choices.below(9) {
        0 => config.replica.0[0] ^= choices.byte(),
        1 => config.repository.0[0] ^= choices.byte(),
        2 => config.chunker.min_bytes = choices.number(256),
        3 => config.chunker.max_bytes = choices.number(4096),
        4 => config.chunker.mean_bytes = choices.number(1024),
        5 => config.slots = (0..choices.byte()).map(|byte| SlotId([byte; 16])).collect(),
        6 => config.collect_features = vec![format!("parity-{}", choices.byte())],
        7 => config.write_features = vec!["racy-creates".to_owned()],
        _ => config.chunker.name = "toeplitz-aes".to_owned(),
    }
    config.number = 1 + choices.below(3) as u64;
    if let Ok(object) = config.seal(&forge.keyring, [9; 16]) {
        forge.put(&names::config(config.number), &object);
        return;
    }
    // No writer would seal it; so it goes without.
    let mut body = object[..HEADER_BYTES].to_vec();
    body.extend_from_slice(&config.encode());
    body.extend_from_slice(&[0; 32]);
    forge.put(&names::config(config.number), &close(body));
}

/// Writes a slot that would cost much to open, or that is no slot.
fn change_slot(forge: &mut Forge, choices: &mut Choices<'_>) {
    let id = SlotId([0x12 + choices.byte() % 2; 16]);
    let params = SlotParams {
        kind: match choices.below(3) {
            0 => SlotKind::RawKey,
            1 => SlotKind::RecoveryKey,
            _ => SlotKind::Passphrase(KdfParams {
                memory_kib: choices.number(8) as u32,
                passes: choices.number(1) as u32,
                lanes: choices.number(1) as u32,
                salt: [3; 32],
            }),
        },
        label: "x".repeat(choices.number(0).min(1000) as usize),
        created: choices.number(0) as i64,
    };
    let mut params = params.encode();
    if choices.coin() {
        choices.disturb(&mut params);
    }
    let Some(object) = forge.objects.get(&names::slot(&id)) else {
        return;
    };
    let mut body = object[..object.len().min(HEADER_BYTES)].to_vec();
    larder_format::codec::put_varint(&mut body, params.len() as u64);
    body.extend_from_slice(&params);
    body.extend_from_slice(&[choices.byte(); 100]);
    forge.put(&names::slot(&id), &close(body));
}

/// Puts an object where none was.
fn plant(forge: &mut Forge, choices: &mut Choices<'_>) {
    let cells = forge
        .objects
        .keys()
        .filter_map(|name| match names::parse(name) {
            Some(Name::Cell(id)) => Some(id),
            _ => None,
        });
    let cells: Vec<SessionId> = cells.collect();
    match choices.below(6) {
        0 => plant_mirror(forge, choices, cells),
        1 => plant_undo(forge, choices),
        2 => {
            let Some(cell) = choices.pick(&cells) else {
                return;
            };
            let changes = [Change::Forget, Change::Pin, Change::Unpin];
            let amendment = Amendment {
                cell: *cell,
                number: choices.number(1).max(1),
                change: changes[choices.below(3)].clone(),
                time: choices.number(0) as i64,
                host: String::new(),
                user: String::new(),
            };
            forge.record(&amendment);
        }
        3 => {
            let state = State {
                number: choices.number(2).max(1),
                live_cells: cells.into_iter().filter(|_| choices.coin()).collect(),
                ..State::default()
            };
            forge.record(&state);
        }
        4 => {
            const ENDINGS: [&str; 7] = [
                ".1",
                ".done",
                ".final",
                "x",
                "/x",
                ".0",
                ".18446744073709551616",
            ];
            let name = any_name(forge, choices).unwrap_or_default();
            let bytes = forge.objects.get(&name).cloned().unwrap_or_default();
            let ending = ENDINGS[choices.below(ENDINGS.len())];
            forge.put(&format!("{name}{ending}"), &bytes);
        }
        _ => {
            const NAMES: [&str; 6] = [
                "unknown",
                "packs/zz",
                "config/0",
                "gc/x",
                "snapshots/y",
                "a.b/c",
            ];
            let bytes = choices.few_bytes();
            forge.put(NAMES[choices.below(NAMES.len())], &bytes);
        }
    }
}

/// Makes the repository a mirror, which shows some of its snapshots.
fn plant_mirror(forge: &mut Forge, choices: &mut Choices<'_>, cells: Vec<SessionId>) {
    let object = forge.objects.get(&names::config(1)).cloned();
    let Ok(config) = Config::read_unverified(1, &object.unwrap_or_default()) else {
        return;
    };
    let replica = config.replica;
    let object = marker(&config, replica, config.created, [5; 16]).unwrap();
    forge.put(&names::config(MARKER), &object);
    let manifest = Manifest {
        number: 1,
        repository: config.repository,
        replica,
        state: choices.below(3) as u64,
        round: choices.below(3) as u64,
        cells: cells.into_iter().filter(|_| choices.coin()).collect(),
        ..Manifest::default()
    };
    if let Ok(object) = manifest.close([4; 16]) {
        forge.put(&manifest.name().to_string(), &object);
    }
}

/// Claims that a repair made an object.
fn plant_undo(forge: &mut Forge, choices: &mut Choices<'_>) {
    let repair = RepairId([choices.byte(); 16]);
    let name = any_name(forge, choices).unwrap_or_default();
    let after = forge.objects.get(&name).map(|bytes| object_id(bytes).0);
    let undo = Undo {
        repair,
        number: 1 + choices.below(2) as u64,
        changes: vec![quarantine::Change {
            name,
            before: None,
            after,
        }],
        ..Undo::default()
    };
    if let Ok(object) = undo.close([3; 16]) {
        let name = quarantine::record_name(&repair, undo.number);
        forge.put(&name, &object);
    }
}
