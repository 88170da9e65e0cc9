use super::*;
use alloc::collections::BTreeSet;
use alloc::vec;
use proptest::prelude::*;

fn members(lengths: &[u64]) -> Vec<Member> {
    let id = |number: usize| {
        let mut id = [7; 32];
        id[0] = number as u8;
        ObjectId(id)
    };
    let numbered = lengths.iter().enumerate();
    let member = |(number, length): (usize, &u64)| Member {
        id: id(number),
        length: *length,
    };
    numbered.map(member).collect()
}

fn object(lengths: &[u64], percent: u8) -> Vec<u8> {
    let group = Group::plan(members(lengths), percent, false).unwrap();
    let sums = vec![[3; SUM_BYTES]; group.pieces()];
    let mut draft = Draft::new(group, &sums).unwrap();
    for strip in 0..draft.group().strips {
        for number in 0..draft.group().recovery {
            let byte = (strip * 7 + number) as u8;
            draft.set(strip, number, &[byte; PIECE_BYTES]);
        }
    }
    draft.finish()
}

#[test]
fn the_front_and_the_back_each_tell_the_group() {
    let whole = object(&[10_000, 4096, 1], 10);
    let group = Parity::read(&whole).unwrap().group().clone();
    assert_eq!(group.object_bytes(), whole.len());
    assert_eq!(
        Group::read_front(&whole[..HEADER_BYTES + 400]).unwrap(),
        group
    );
    assert!(Group::read_front(&whole[..HEADER_BYTES + 40]).is_err());
    let mut damaged = whole.clone();
    damaged[HEADER_BYTES + 20] ^= 1;
    assert_eq!(*Parity::read(&damaged).unwrap().group(), group);
    let back = damaged.len() - FOOTER_BYTES - 20;
    damaged[back] ^= 1;
    assert!(Parity::read(&damaged).is_err());
    let mut cut = whole.clone();
    cut.truncate(whole.len() / 2);
    assert_eq!(*Parity::read(&cut).unwrap().group(), group);
    // The back of an object with a hole in it would tell wrong places.
    let mut holed = whole[..100].to_vec();
    holed.extend_from_slice(&whole[200..]);
    holed[HEADER_BYTES + 20] ^= 1;
    assert!(Parity::read(&holed).is_err());
}

#[test]
fn a_piece_counts_only_with_one_of_its_two_checksums() {
    let whole = object(&[10_000], 100);
    let parity = Parity::read(&whole).unwrap();
    assert_eq!(parity.recovery_piece(0, 1).unwrap(), [1; PIECE_BYTES]);
    assert_eq!(parity.sound_pieces(0, &[5; 10_000]), [false; 3]);
    let (front, back) = (parity.places.sums, parity.places.back);
    let piece = parity.places.pieces + PIECE_BYTES;
    let at = (parity.group().pieces() + 1) * SUM_BYTES;
    let mut damaged = whole.clone();
    damaged[front + at] ^= 1;
    assert!(
        Parity::read(&damaged)
            .unwrap()
            .recovery_piece(0, 1)
            .is_some()
    );
    damaged[back + at] ^= 1;
    assert!(
        Parity::read(&damaged)
            .unwrap()
            .recovery_piece(0, 1)
            .is_none()
    );
    let mut damaged = whole.clone();
    damaged[piece] ^= 1;
    let damaged = Parity::read(&damaged).unwrap();
    assert!(damaged.recovery_piece(0, 1).is_none());
    assert!(damaged.recovery_piece(0, 2).is_some());
}

#[test]
fn the_last_piece_of_a_pack_is_as_if_zeros_followed() {
    let mut padded = vec![9; 10];
    padded.resize(PIECE_BYTES, 0);
    assert_eq!(sum(&[9; 10]), sum(&padded));
}

#[test]
fn groups_that_no_writer_makes_are_refused() {
    let good = Group {
        strips: 2,
        recovery: 1,
        members: members(&[10_000, 4096]),
    };
    let with = |change: &dyn Fn(&mut Group)| {
        let mut group = good.clone();
        change(&mut group);
        Group::decode(&group.encode()).map(|(group, _)| group)
    };
    assert_eq!(with(&|_| {}), Ok(good.clone()));
    let bad: [&dyn Fn(&mut Group); 13] = [
        &|group| group.strips = 0,
        &|group| group.strips = 4,
        &|group| group.strips = usize::MAX,
        &|group| group.recovery = 0,
        &|group| group.recovery = PARITY_STRIP + 1,
        &|group| group.recovery = usize::MAX,
        &|group| group.members.clear(),
        &|group| group.members.swap(0, 1),
        &|group| group.members[1] = group.members[0],
        &|group| group.members[0].length = 0,
        &|group| group.members[0].length = PACK_BYTES as u64 + 1,
        &|group| group.members[0].length = u64::MAX,
        &|group| group.members = members(&vec![PACK_BYTES as u64; 60]),
    ];
    for (number, change) in bad.iter().enumerate() {
        assert!(with(change).is_err(), "{number}");
    }
    let mut longer = good.encode();
    longer[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(Group::decode(&longer).is_err());
    assert!(Group::plan(Vec::new(), 5, true).is_none());
    assert!(Draft::new(good, &[[0; SUM_BYTES]; 3]).is_err());
}

#[test]
fn a_group_serves_until_what_is_gone_of_it_takes_what_it_can_give() {
    let group = Group::plan(members(&[40 << 12; 4]), 25, true).unwrap();
    assert_eq!((group.strips, group.recovery), (1, 40));
    let without = |gone: &[usize]| {
        let gone: Vec<ObjectId> = gone.iter().map(|at| group.members[*at].id).collect();
        move |id: &ObjectId| !gone.contains(id)
    };
    assert!(group.serves(25, &without(&[])));
    assert!(!group.serves(25, &without(&[2])));
    assert!(!group.serves(25, &without(&[0, 1, 2, 3])));
    let spare = Group {
        recovery: 50,
        ..group.clone()
    };
    assert!(spare.serves(25, &without(&[2])));
    assert!(!spare.serves(26, &without(&[2])));
}

#[test]
fn a_full_group_of_the_usual_packs_spares_one_of_them() {
    let group = Group::plan(members(&[24 << 20; 20]), 5, true).unwrap();
    let largest = group.members[0].pieces();
    assert!(group.recovery >= largest.div_ceil(group.strips));
    let share = group.recovery_pieces() as f64 / group.pieces() as f64;
    assert!((0.05..0.052).contains(&share), "{share}");
    assert!(group.object_bytes() < 28 << 20);
}

proptest! {
    #[test]
    fn every_piece_is_in_one_strip_and_a_pack_has_its_share_in_each(
        lengths in prop::collection::vec(1_u64..40_000_000, 1..30),
        percent in PERCENT,
        whole: bool,
    ) {
        // As many packs as writers put into a group.
        let most = 100_usize.div_ceil(usize::from(percent)).min(lengths.len());
        let Some(group) = Group::plan(members(&lengths[..most]), percent, whole) else {
            prop_assert!(false, "no plan");
            return Ok(());
        };
        let largest = group.members.iter().map(Member::pieces).max().unwrap();
        let mut seen = BTreeSet::new();
        for strip in 0..group.strips {
            let pieces: Vec<_> = group.strip(strip).collect();
            prop_assert_eq!(pieces.len(), group.pieces_of(strip));
            prop_assert!(!pieces.is_empty() && pieces.len() <= group.pieces_of(0));
            prop_assert!(group.recovery * 100 >= pieces.len() * usize::from(percent));
            for (number, member) in group.members.iter().enumerate() {
                let own = pieces.iter().filter(|(one, _)| *one == number).count();
                prop_assert_eq!(own, group.pieces_in(member, strip));
                prop_assert!(!whole || own <= group.recovery);
            }
            seen.extend(pieces);
        }
        prop_assert_eq!(seen.len(), group.pieces());
        let of_pack = largest.div_ceil(group.strips);
        let share = (largest * usize::from(percent)).div_ceil(100);
        prop_assert!(group.recovery >= share.min(of_pack));
        let numbers: BTreeSet<_> = (0..group.strips)
            .flat_map(|strip| (0..group.recovery).map(move |number| (strip, number)))
            .map(|(strip, number)| group.recovery_number(strip, number))
            .collect();
        prop_assert_eq!(numbers.len(), group.recovery_pieces());
        prop_assert_eq!(numbers.last().copied(), Some(group.recovery_pieces() - 1));
        prop_assert_eq!(Group::decode(&group.encode()).map(|(group, _)| group), Ok(group));
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes: Vec<u8>, at: prop::sample::Index, value: u8, length: prop::sample::Index) {
        let _ = Parity::read(&bytes).map(|parity| parity.sound_pieces(0, &bytes));
        let mut object = object(&[9000, 3], 30);
        let place = at.index(object.len());
        object[place] = value;
        object.truncate(length.index(object.len() + 1));
        if let Ok(parity) = Parity::read(&object) {
            for strip in 0..parity.group().strips {
                let _ = parity.recovery_piece(strip, parity.group().recovery - 1);
                let _ = parity.recovery_piece(strip, usize::from(value));
            }
            let _ = parity.sound_pieces(usize::from(value), &object);
        }
    }
}
