//! The worked examples of SPEC.md §17 and the vectors in `vectors.json`.
//!
//! Both are recomputed from fixed inputs and compared byte for byte. After a change of the format
//! `LARDER_WRITE_VECTORS=1 cargo test -p larder-format --test all spec_examples` writes the vectors
//! anew and prints the lines for SPEC.md; without a change it writes the same bytes.
use larder_format::attributes::{ExtendedAttribute, encode_properties};
use larder_format::block::{BlockBuilder, Compression, open_block};
use larder_format::compression::{Compressor, Decompressor};
use larder_format::config::{Chunker, Config};
use larder_format::entry::{Attributes, Content, Entry, EntryType, Extent, Timestamp};
use larder_format::ids::ChunkType;
use larder_format::ids::{
    ChunkId, ReplicaId, RepositoryId, SessionId, SlotId, decode_hex, encode_hex,
};
use larder_format::keys::{KEYRING_RANDOM_BYTES, Key, Keyring, Purpose};
use larder_format::list::encode_list_leaf;
use larder_format::names;
use larder_format::node::{Child, Interior, encode_leaf};
use larder_format::object::{Header, Kind, object_id};
use larder_format::pack::{PackWriter, open_pack, padme};
use larder_format::page::{transpose, untranspose};
use larder_format::record::{Record, open_record, seal_record};
use larder_format::run::{Run, RunEnd};
use larder_format::secret_text::recovery_key_text;
use larder_format::segment::{Owner, Segment, SegmentPack};
use larder_format::session::SessionEnd;
use larder_format::slot::{KdfParams, Secret, SlotKind, SlotParams, read_slot, seal_slot, unlock};
use larder_format::tree::boundary::{boundary_hash, boundary_rank};
use xaes_256_gcm::aead::{Aead, KeyInit, Payload};
use xaes_256_gcm::{Nonce, Xaes256Gcm};

const SPEC: &str = include_str!("../../../SPEC.md");
const VECTORS: &str = include_str!("../vectors.json");
const REPOSITORY: RepositoryId = RepositoryId([0x10; 16]);
const UID: [u8; 16] = [0x20; 16];
const RANDOM: [u8; 32] = [0x30; 32];

fn keyring() -> Keyring {
    let random: [u8; KEYRING_RANDOM_BYTES] = std::array::from_fn(|at| (at / 32) as u8 + 1);
    Keyring::generate(REPOSITORY, &random)
}

fn session() -> SessionId {
    SessionId::new(3, [0x40; 16])
}

/// Derives by hand what a key with the bytes `secret` gives in `context`.
fn derive(context: &str, secret: &[u8], purpose: u8) -> [u8; 32] {
    let material = [secret, &[purpose], &0_u32.to_le_bytes(), &REPOSITORY.0].concat();
    blake3::derive_key(context, &material)
}

/// Opens what is sealed by hand: with a seal key and an AAD that were put together from SPEC.md.
fn open_by_hand(seal_key: &[u8; 32], aad: &[u8], sealed: &[u8]) -> Vec<u8> {
    let (nonce, msg) = sealed.split_first_chunk::<24>().unwrap();
    let cipher = Xaes256Gcm::new(seal_key.into());
    cipher
        .decrypt(&Nonce::from(*nonce), Payload { msg, aad })
        .unwrap()
}

fn aad_start(role: u8, kind: u8, key: &Key) -> Vec<u8> {
    [[1, role, kind].as_slice(), &REPOSITORY.0, &key.id().0].concat()
}

type Examples = Vec<(&'static str, String)>;

fn all() -> Examples {
    let mut examples = Vec::new();
    derivations(&mut examples);
    records(&mut examples);
    runs(&mut examples);
    slots(&mut examples);
    packs(&mut examples);
    nodes(&mut examples);
    examples
}

fn nodes(examples: &mut Examples) {
    let keyring = keyring();
    let hello = keyring.chunk_id(ChunkType::Data, b"hello");
    let mtime = |nanoseconds| Timestamp {
        seconds: 1_700_000_000,
        nanoseconds,
    };
    let entry = |key: &[u8], kind, mode| Entry {
        key: key.to_vec(),
        kind,
        mode,
        mtime: mtime(0),
        ..Entry::default()
    };
    let source = entry(b"", EntryType::Directory, 0o755);
    let file = Entry {
        size: 5,
        mtime: mtime(7),
        content: Content::Whole(hello),
        ..entry(b"ab", EntryType::File, 0o644)
    };
    let symlink = Entry {
        link_target: b"ab".to_vec(),
        ..entry(b"ac", EntryType::Symlink, 0o777)
    };
    let leaf = encode_leaf(&[source, file, symlink]).unwrap();
    let other = encode_leaf(&[entry(b"b", EntryType::File, 0o600)]).unwrap();
    let object = |key: &[u8], etag: &[u8]| Entry {
        etag: etag.to_vec(),
        class: b"STANDARD".to_vec(),
        ..entry(key, EntryType::Object, 0)
    };
    let property = ExtendedAttribute {
        name: b"content-type".to_vec(),
        value: b"text/plain".to_vec(),
    };
    let first = Entry {
        size: 5,
        content: Content::Whole(hello),
        version: b"v1".to_vec(),
        attributes: Attributes::Inline(encode_properties(&[property]).unwrap()),
        ..object(b"a", b"e1")
    };
    let objects = encode_leaf(&[first, object(b"a/", b"e2")]).unwrap();
    let child = |key: &[u8], rank, id, entries, bytes| Child {
        separator_key: key.to_vec(),
        separator_ordinal: 0,
        rank,
        id,
        entries,
        bytes,
    };
    let leaf_id = keyring.chunk_id(ChunkType::TreeLeaf, &leaf);
    let children = vec![
        child(b"", 2, leaf_id, 3, 5),
        child(b"b", 0, ChunkId([0x41; 32]), 16, 1000),
    ];
    let interior = Interior { level: 1, children }.encode().unwrap();
    let extents = [
        Extent::Data {
            id: ChunkId([0x42; 32]),
            length: 1024,
        },
        Extent::Hole { length: 4096 },
        Extent::Data {
            id: hello,
            length: 5,
        },
    ];
    let list = encode_list_leaf(&extents).unwrap();
    // All streams stored: what zstd makes of them differs between its versions.
    let stored: Vec<u8> = (0..64).collect();
    let mut context = zstd_safe::CCtx::try_create().unwrap();
    let columns = transpose(&[&leaf, &other], &stored, 3, &mut context).unwrap();
    let mut decompressor = zstd_safe::DCtx::try_create().unwrap();
    let back = untranspose(&columns, 4096, &mut decompressor).unwrap();
    assert_eq!(back, [leaf.as_slice(), &other].concat());
    let key = keyring.boundary_key();
    let hash = boundary_hash(&key, b"154", 0);
    examples.extend([
        ("h of (154, 0)", format!("{hash:#018x}")),
        (
            "rank of (154, 0)",
            boundary_rank(&key, b"154", 0).to_string(),
        ),
        ("leaf of a tree", encode_hex(&leaf)),
        ("leaf id", leaf_id.to_hex()),
        ("interior node of a tree", encode_hex(&interior)),
        ("leaf of a list", encode_hex(&list)),
        ("another leaf", encode_hex(&other)),
        ("leaf of objects", encode_hex(&objects)),
        ("both leaves by column", encode_hex(&columns)),
    ]);
}

/// The run of the examples, whose name is `nightly`.
fn run() -> Run {
    Run {
        id: keyring().run_id("nightly"),
        name: "nightly".to_owned(),
        begun: 1_000_000_007,
        source: b"s3://photos".to_vec(),
        host: "h".to_owned(),
        asked: 3,
        divisions: vec![b"a/b".to_vec(), b"m".to_vec()],
        left_out: "0011223344556677".to_owned(),
        parent: Some(session()),
    }
}

fn runs(examples: &mut Examples) {
    let keyring = keyring();
    // By hand: the id key is 32 times 6.
    let input = [[6; 32].as_slice(), &REPOSITORY.0].concat();
    let key = blake3::derive_key("larder v1 run id", &input);
    let hash = blake3::keyed_hash(&key, b"nightly");
    let run = run();
    assert_eq!(run.id.0, hash.as_bytes()[..16]);
    let end = RunEnd {
        id: run.id,
        ended: 1_000_000_008,
        snapshot: session(),
    };
    let object = seal_record(&keyring, &run, UID, &RANDOM).unwrap();
    let end_object = seal_record(&keyring, &end, UID, &RANDOM).unwrap();
    examples.extend([
        ("run name", names::run(&run.id)),
        ("run CBOR", encode_hex(&run.encode())),
        ("run end name", names::run_end(&run.id)),
        ("run end CBOR", encode_hex(&end.encode())),
        ("run object", encode_hex(&object)),
        ("run end object", encode_hex(&end_object)),
    ]);
}

fn derivations(examples: &mut Examples) {
    let keyring = keyring();
    let data = keyring.current(Purpose::Data).unwrap();
    let secret = [1; 32];
    assert_eq!(derive("larder v1 key id", &secret, 1), data.id().0);
    let mac_input = [[6; 32].as_slice(), &REPOSITORY.0].concat();
    let seed_input = [[7; 32].as_slice(), &REPOSITORY.0].concat();
    let seed = blake3::derive_key("larder v1 fastcdc seed", &seed_input);
    assert_eq!(keyring.chunker_seed().to_le_bytes(), seed[..8]);
    // The longer output begins as the shorter one.
    let secret_start = blake3::derive_key("larder v1 toeplitz-aes", &seed_input);
    assert_eq!(keyring.toeplitz_secret()[..32], secret_start);
    let rank_of = |key: &[u8]| boundary_hash(&keyring.boundary_key(), key, 2);
    let rank_input = [[1, 0, 0, 0].as_slice(), b"a", &2_u64.to_le_bytes()].concat();
    let hash = blake3::keyed_hash(&[8; 32], &rank_input);
    assert_eq!(rank_of(b"a").to_le_bytes(), hash.as_bytes()[..8]);
    let with_rank = (0_u32..).map(|n| n.to_string());
    let ranked = with_rank
        .map(|key| {
            (
                boundary_rank(&keyring.boundary_key(), key.as_bytes(), 0),
                key,
            )
        })
        .find(|(rank, _)| *rank == 2)
        .unwrap();
    examples.extend([
        ("data key id", data.id().to_hex()),
        (
            "data seal key",
            encode_hex(&derive("larder v1 seal key", &secret, 1)),
        ),
        (
            "data nonce key",
            encode_hex(&derive("larder v1 nonce key", &secret, 1)),
        ),
        (
            "config mac key",
            encode_hex(&blake3::derive_key("larder v1 config mac", &mac_input)),
        ),
        ("fastcdc seed", format!("{:#018x}", keyring.chunker_seed())),
        (
            "toeplitz-aes secret",
            encode_hex(&*keyring.toeplitz_secret()),
        ),
        (
            "chunk id of hello",
            keyring.chunk_id(ChunkType::Data, b"hello").to_hex(),
        ),
        ("h of (a, 2)", format!("{:#018x}", rank_of(b"a"))),
        ("first decimal number with rank 2", ranked.1),
        ("keyring CBOR", encode_hex(&keyring.encode())),
        ("session name", names::session(&session())),
        ("amendment name", names::amendment(&session(), 12)),
        ("recovery key text", recovery_key_text(&[9; 32]).to_string()),
        (
            "Padmé of 1000, 1025, 1000000",
            [1000, 1025, 1_000_000]
                .map(padme)
                .map(|size| size.to_string())
                .join(", "),
        ),
    ]);
}

fn records(examples: &mut Examples) {
    let keyring = keyring();
    let key = keyring.current(Purpose::Snapshot).unwrap();
    let end = SessionEnd {
        id: session(),
        ended: 1_000_000_007,
        cell: object_id(b"cell"),
    };
    let object = seal_record(&keyring, &end, UID, &RANDOM).unwrap();
    assert_eq!(
        open_record::<SessionEnd>(&keyring, &end.name(), &object).as_ref(),
        Ok(&end)
    );
    let header = Header {
        kind: Kind::SessionEnd,
        key_id: key.id(),
        uid: UID,
    };
    let name = names::session_end(&session());
    let aad = [aad_start(4, 7, key), UID.to_vec(), name.into_bytes()].concat();
    let sealed = &object[64..object.len() - 32];
    let plaintext = open_by_hand(&derive("larder v1 seal key", &[4; 32], 4), &aad, sealed);
    let cbor = end.encode();
    assert_eq!(plaintext[..4], (cbor.len() as u32).to_le_bytes());
    assert_eq!(plaintext[4..4 + cbor.len()], cbor);

    let nonce_input = [
        key.id().0.as_slice(),
        &RANDOM,
        &(aad.len() as u64).to_le_bytes(),
        &aad,
        &[1],
        &plaintext,
    ]
    .concat();
    let nonce_key = derive("larder v1 nonce key", &[4; 32], 4);
    assert_eq!(
        blake3::keyed_hash(&nonce_key, &nonce_input).as_bytes()[..24],
        sealed[..24]
    );

    let config = config().seal(&keyring, UID).unwrap();
    let config_cbor = &config[64..config.len() - 64];
    let mac_key = blake3::derive_key(
        "larder v1 config mac",
        &[[6; 32].as_slice(), &REPOSITORY.0].concat(),
    );
    let mac_input = [&config[..64], b"config/0000000000000001", config_cbor].concat();
    let mac = &config[config.len() - 64..config.len() - 32];
    assert_eq!(blake3::keyed_hash(&mac_key, &mac_input).as_bytes(), mac);
    examples.extend([
        ("session end header", encode_hex(&header.encode())),
        ("session end CBOR", encode_hex(&cbor)),
        ("session end AAD", encode_hex(&aad)),
        ("session end nonce", encode_hex(&sealed[..24])),
        ("session end tag", encode_hex(&sealed[sealed.len() - 16..])),
        (
            "session end closing hash",
            encode_hex(&object[object.len() - 32..]),
        ),
        ("config CBOR", encode_hex(config_cbor)),
        ("config MAC", encode_hex(mac)),
        ("session end object", encode_hex(&object)),
        ("config object", encode_hex(&config)),
    ]);
}

fn config() -> Config {
    Config {
        number: 1,
        repository: REPOSITORY,
        replica: ReplicaId([0x11; 16]),
        created: 1_700_000_000,
        chunker: Chunker {
            name: "fastcdc-v2020".into(),
            min_bytes: 262_144,
            mean_bytes: 1_048_576,
            max_bytes: 4_194_304,
        },
        read_features: vec![],
        write_features: vec![],
        collect_features: vec![],
        slots: vec![SlotId([0x12; 16])],
    }
}

fn slots(examples: &mut Examples) {
    let keyring = keyring();
    let id = SlotId([0x12; 16]);
    let kdf = KdfParams {
        memory_kib: 64,
        passes: 1,
        lanes: 1,
        salt: [0x13; 32],
    };
    let kind = SlotKind::Passphrase(kdf.clone());
    let params = SlotParams {
        kind,
        label: "example".into(),
        created: 1_700_000_000,
    };
    let secret = Secret::Passphrase(b"correct horse");
    let object = seal_slot(&keyring, &id, &params, secret, UID, &RANDOM).unwrap();
    let slot = read_slot(&id, &object).unwrap();
    assert!(
        unlock(&[slot], &[id], REPOSITORY, secret)
            .unwrap()
            .is_some()
    );

    let mut derived = [0; 32];
    let costs = argon2::Params::new(kdf.memory_kib, kdf.passes, kdf.lanes, Some(32)).unwrap();
    argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, costs)
        .hash_password_into(b"correct horse", &kdf.salt, &mut derived)
        .unwrap();
    let key_id = derive("larder v1 key id", &derived, 0);
    assert_eq!(Header::decode(&object).unwrap().key_id.0, key_id);
    let params_bytes = params.encode();
    let start = [[1, 5, 2].as_slice(), &REPOSITORY.0, &key_id, &UID].concat();
    let name = names::slot(&id);
    let hash = blake3::hash(&params_bytes);
    let aad = [start.as_slice(), hash.as_bytes(), name.as_bytes()].concat();
    let sealed = &object[65 + params_bytes.len()..object.len() - 32];
    let plaintext = open_by_hand(&derive("larder v1 seal key", &derived, 0), &aad, sealed);
    assert_eq!(plaintext, *keyring.encode());
    examples.extend([
        ("slot params", encode_hex(&params_bytes)),
        ("slot secret", encode_hex(&derived)),
        ("slot key id", encode_hex(&key_id)),
        (
            "slot closing hash",
            encode_hex(&object[object.len() - 32..]),
        ),
        ("slot object", encode_hex(&object)),
    ]);
}

fn packs(examples: &mut Examples) {
    let keyring = keyring();
    let key = keyring.current(Purpose::Data).unwrap();
    let mut builder = BlockBuilder::new(ChunkType::Data, 0);
    for chunk in [b"hello".as_slice(), b"world!"] {
        builder
            .push(keyring.chunk_id(ChunkType::Data, chunk), chunk)
            .unwrap();
    }
    let mut compressor = Compressor::new().unwrap();
    let block = builder
        .seal(&keyring, &mut compressor, Compression::Stored, &RANDOM)
        .unwrap();
    let aad = aad_start(1, 1, key);
    let seal_key = derive("larder v1 seal key", &[1; 32], 1);
    assert_eq!(
        open_by_hand(&seal_key, &aad, &block.bytes),
        b"\0helloworld!"
    );
    let ids: Vec<u8> = block.chunks.iter().flat_map(|(id, _)| id.0).collect();
    let length = (aad.len() as u64).to_le_bytes();
    let nonce_input = [&key.id().0, &RANDOM, length.as_slice(), &aad, &[0], &ids].concat();
    let nonce_key = derive("larder v1 nonce key", &[1; 32], 1);
    assert_eq!(
        blake3::keyed_hash(&nonce_key, &nonce_input).as_bytes()[..24],
        block.bytes[..24]
    );

    let mut writer = PackWriter::new(Kind::DataPack, key, UID).unwrap();
    let prefixes = block
        .chunks
        .iter()
        .map(|(id, length)| (id.prefix(), *length))
        .collect();
    writer
        .push_block(&block.bytes, ChunkType::Data, prefixes)
        .unwrap();
    let pack = writer.finish(key, &RANDOM, &[0x31; 32]).unwrap();
    open_pack(&keyring, &pack.id, &pack.bytes).unwrap();
    let sealed = &pack.bytes[pack.bytes.len() - 16 - 512..pack.bytes.len() - 16];
    let aad = [aad_start(2, 3, key), UID.to_vec()].concat();
    let directory = open_by_hand(&seal_key, &aad, sealed);
    let encoded = pack.directory.encode();
    assert_eq!(directory[..encoded.len()], encoded);
    assert!(directory[encoded.len()..].iter().all(|byte| *byte == 0));

    let segment = Segment {
        owner: Owner::Session(session()),
        packs: vec![SegmentPack {
            id: pack.id,
            kind: pack.kind,
            length: pack.bytes.len() as u64,
            directory: pack.directory,
        }],
    };
    let (segment_id, segment) = segment.seal(&keyring, UID, &RANDOM).unwrap();
    examples.extend([
        ("block", encode_hex(&block.bytes)),
        ("directory", encode_hex(&encoded)),
        ("sealed directory begins", encode_hex(&sealed[..32])),
        (
            "pack footer",
            encode_hex(&pack.bytes[pack.bytes.len() - 16..]),
        ),
        ("pack length", pack.bytes.len().to_string()),
        ("pack name", names::pack(&pack.id)),
        ("segment name", names::segment(&segment_id)),
        ("pack object", encode_hex(&pack.bytes)),
        ("segment object", encode_hex(&segment)),
    ]);
}

/// Gives the lines of SPEC.md §17: all but whole objects, which only the vectors hold.
fn spec_lines() -> Vec<String> {
    let shown = all()
        .into_iter()
        .filter(|(name, _)| !name.ends_with(" object"));
    shown
        .map(|(name, value)| format!("{name} = {value}"))
        .collect()
}

fn vectors_json() -> String {
    // Ordered by name, whatever features serde_json is built with.
    let vectors: std::collections::BTreeMap<_, _> = all().into_iter().collect();
    serde_json::to_string_pretty(&vectors).unwrap() + "\n"
}

#[test]
fn spec_examples() {
    if std::env::var_os("LARDER_WRITE_VECTORS").is_some() {
        println!("{}", spec_lines().join("\n"));
        return;
    }
    for line in spec_lines() {
        assert!(
            SPEC.lines().any(|found| found == line),
            "SPEC.md lacks: {line}"
        );
    }
}

#[test]
fn vectors_are_made_again_byte_for_byte() {
    if std::env::var_os("LARDER_WRITE_VECTORS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors.json");
        std::fs::write(path, vectors_json()).unwrap();
        return;
    }
    assert_eq!(vectors_json(), VECTORS);
}

/// Reads a vector as the bytes of an object.
fn object(name: &str) -> Vec<u8> {
    let vectors: serde_json::Value = serde_json::from_str(VECTORS).unwrap();
    let text = vectors[name].as_str().unwrap();
    let mut bytes = vec![0; text.len() / 2];
    assert!(decode_hex(text, &mut bytes));
    bytes
}

#[test]
fn objects_that_are_kept_can_still_be_read() {
    let keyring = keyring();
    assert_eq!(
        Config::open(&keyring, 1, &object("config object")),
        Ok(config())
    );
    let id = SlotId([0x12; 16]);
    let slot = read_slot(&id, &object("slot object")).unwrap();
    let secret = Secret::Passphrase(b"correct horse");
    let unlocked = unlock(&[slot], &[id], REPOSITORY, secret).unwrap().unwrap();
    assert_eq!(*unlocked.keyring.encode(), *keyring.encode());
    let end = names::Name::SessionEnd(session());
    assert!(open_record::<SessionEnd>(&keyring, &end, &object("session end object")).is_ok());
    let name = names::Name::Run(run().id);
    assert_eq!(
        open_record(&keyring, &name, &object("run object")),
        Ok(run())
    );
    let name = names::Name::RunEnd(run().id);
    assert!(open_record::<RunEnd>(&keyring, &name, &object("run end object")).is_ok());
    let pack = object("pack object");
    let (header, directory) = open_pack(&keyring, &object_id(&pack), &pack).unwrap();
    let segment = object("segment object");
    let segment = Segment::open(&keyring, &object_id(&segment), &segment).unwrap();
    assert_eq!(segment.packs[0].directory, directory);
    let (offset, block) = directory.blocks_with_offsets().next().unwrap();
    let sealed = &pack[offset as usize..][..block.sealed_length as usize];
    let mut decompressor = Decompressor::new().unwrap();
    let plaintext = open_block(
        &keyring,
        &header.key_id,
        ChunkType::Data,
        sealed,
        &mut decompressor,
    )
    .unwrap();
    let id: ChunkId = keyring.chunk_id(ChunkType::Data, b"world!");
    let found = larder_format::block::chunk_of(&keyring, ChunkType::Data, &plaintext, 5, 6, &id);
    assert_eq!(found, Ok(b"world!".as_slice()));
}
