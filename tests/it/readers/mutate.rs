//! Certificates and PEM files with something changed, by a seed: the same seed makes the same ones.

mod armour;
mod tree;

pub use armour::bundle;
use tree::{DerContent, DerElement, Form};

use crate::support::random::Random;

const TIMES: [&str; 31] = [
    "500101000000Z",
    "491231235959Z",
    "2501010000Z",
    "250101000060Z",
    "251301000000Z",
    "250230000000Z",
    "250101000000+0000",
    "250101000000+0100",
    "250101000000-2400",
    "250101000000.5Z",
    "20250101000000Z",
    "20500101000000Z",
    "19500101000000Z",
    "20250101000000.5Z",
    "20250101000000",
    "20250101000000+0100",
    "202501010000Z",
    "2025010100Z",
    "00000101000000Z",
    "99991231235959Z",
    "99999999999999Z",
    "20250101240000Z",
    "250101",
    "",
    "25010100000Z",
    " 50101000000Z",
    "+50101000000Z",
    "19700101000000Z",
    "1970010100-0-1Z",
    "2025010100000\0Z",
    "20250229000000Z",
];
const TEXTS: [&[u8]; 34] = [
    b"",
    b".",
    b"a",
    b".corp.example",
    "caf\u{e9}.example".as_bytes(),
    b"caf\xe9",
    b"a b",
    b"a..b",
    b"a.",
    b"*.corp.example",
    b"a@b.example",
    b"@b.example",
    b"\"a b\"@c.example",
    b"\"a\\",
    b"a@b@c",
    b".a@b",
    b"a..b@c",
    b"a\\@b@c",
    b"http://a.example/%zz",
    b"http://[::1]:80/",
    b"http://[fe80::1%25en0]/",
    b"http://[fe80::1%25en0/",
    b"http://a:b:c/",
    b"urn:x",
    b"http://a b/",
    b"://",
    b"http://u:p@a.example",
    b"http://a.example#%",
    b"\x0a\0\0\x01",
    b"\xff\xff\xff\0",
    b"\x0a\0\0\0\xff\0\0\0",
    b"\x0a\0\0\0\xff\0\xff\0",
    b"\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\0\0\x01",
    b"1.2.3.4",
];
/// Contents of values in names and elsewhere.
const CONTENTS: [&[u8]; 22] = [
    b"",
    b"\0",
    b"\x01",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\0\x7f",
    b"\0\x80",
    b"\xff\x7f",
    b"\xff\x80",
    b"\xd8\x00",
    b"\0A\0B",
    b"\0\0",
    b"\0\0\0A",
    b"\0\x11\0\0",
    b"\0\0\xd8\0",
    b"\xc3\x28",
    b"\xc3\xa4",
    b"\xf4\x90\x80\x80",
    b"\xed\xa0\x80",
    b"\x07\x80",
    b"\x08\xff",
];
const TAGS: [u8; 40] = [
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x10, 0x11, 0x12, 0x13, 0x14,
    0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x24, 0x2c, 0x30, 0x31, 0x33, 0x80, 0x81, 0x82, 0xa0,
    0xa3, 0xc0,
];
const OIDS: [&[u8]; 24] = [
    b"\x55\x1d\x0e",
    b"\x55\x1d\x0f",
    b"\x55\x1d\x11",
    b"\x55\x1d\x12",
    b"\x55\x1d\x13",
    b"\x55\x1d\x1e",
    b"\x55\x1d\x1f",
    b"\x55\x1d\x20",
    b"\x55\x1d\x21",
    b"\x55\x1d\x23",
    b"\x55\x1d\x24",
    b"\x55\x1d\x25",
    b"\x55\x1d\x36",
    b"\x2b\x06\x01\x05\x05\x07\x01\x01",
    b"\x2b\x06\x01\x05\x05\x07\x01\x03",
    b"\x55\x04\x03",
    b"\x80\x01",
    b"\x55\x80\x01",
    b"\x55\x84",
    b"",
    b"\x55\x88\x80\x80\x80\x00",
    b"\x55\x90\x80\x80\x80\x00",
    b"\x55\x83\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x55\x81\xff\xff\xff\xff\xff\xff\xff\x7f",
];

/// A certificate like `der`, with one thing changed, or a few; `pool` is where parts of others come from.
pub fn certificate(random: &mut Random, der: &[u8], pool: &[Vec<u8>]) -> Vec<u8> {
    let changes = match random.below(8) {
        0 => 2,
        1 => 3,
        _ => 1,
    };
    let mut der = der.to_vec();
    for _ in 0..changes {
        let Some(mut tree) = DerElement::parse(&der).filter(|_| random.below(12) != 0) else {
            raw(random, &mut der);
            continue;
        };
        structure(random, &mut tree, pool);
        der.clear();
        tree.encode(&mut der);
    }
    der
}

fn raw(random: &mut Random, der: &mut Vec<u8>) {
    if der.is_empty() {
        return;
    }
    let at = random.below(der.len());
    match random.below(5) {
        0 => der[at] ^= 1 << random.below(8),
        1 => der[at] = random.next() as u8,
        2 => der.truncate(at),
        3 => der.extend_from_slice(&[0; 3][..1 + random.below(3)]),
        _ => {
            der[at] = der[at].wrapping_add(1);
        }
    }
}

fn structure(random: &mut Random, tree: &mut DerElement, pool: &[Vec<u8>]) {
    let other = |random: &mut Random| pool.get(random.below(pool.len())).and_then(|der| DerElement::parse(der));
    match random.below(15) {
        0 => version(random, tree),
        1 => {
            // Takes a part of another certificate, between serial number and public key.
            let part = random.below(7);
            if let (Some(mut other), Some(place)) = (other(random), tree.path(&[0, part]))
                && let Some(taken) = other.path(&[0, part])
            {
                *place = taken.clone();
            }
        }
        2 => {
            if let Some(mut other) = other(random)
                && let (Some(ours), Some(theirs)) = (tree.extensions(), other.extensions())
                && !theirs.is_empty()
            {
                let taken = theirs[random.below(theirs.len())].clone();
                ours.insert(random.below(ours.len() + 1), taken);
            }
        }
        3 | 4 => {
            let made = extension(random);
            if let Some(ours) = tree.extensions() {
                let at = random.below(ours.len() + 1);
                if random.below(2) == 0 || at == ours.len() { ours.insert(at, made) } else { ours[at] = made }
            }
        }
        5 => {
            let text = random.one(&TIMES);
            let place = [0, 4, random.below(2)];
            if let Some(time) = tree.path(&place) {
                *time = DerElement::new([0x17, 0x18, 0x17, 0x18, 0x16][random.below(5)], text.as_bytes());
            }
        }
        _ => anywhere(random, tree),
    }
}

fn version(random: &mut Random, tree: &mut DerElement) {
    let Some(signed) = tree.path(&[0]).and_then(DerElement::elements) else { return };
    let number: &[u8] = random.one(&[&[0][..], &[1], &[2], &[3], &[0xff], &[0, 2], &[], &[2, 0]]);
    match (signed.first().map(|first| first.tag), random.below(4)) {
        (Some(0xa0), 0) => {
            signed.remove(0);
        }
        (Some(0xa0), _) => signed[0] = DerElement::of(0xa0, vec![DerElement::new(2, number)]),
        _ => signed.insert(0, DerElement::of(0xa0, vec![DerElement::new(2, number)])),
    }
    if random.below(3) == 0 {
        let at = signed.iter().position(|element| element.tag == 0xa3).unwrap_or(signed.len());
        signed.insert(at, DerElement::new([0x81, 0x82][random.below(2)], &[0, 1, 2][..random.below(4)]));
    }
}

/// An extension that readers look into, with odd contents.
fn extension(random: &mut Random) -> DerElement {
    let oid = random.one(&OIDS);
    let value = match oid {
        b"\x55\x1d\x11" | b"\x55\x1d\x12" => {
            let names = (0..random.below(4)).map(|_| general_name(random)).collect();
            DerElement::of(0x30, names)
        }
        b"\x55\x1d\x1e" => {
            let subtrees: Vec<DerElement> =
                (0..1 + random.below(2)).map(|_| DerElement::of(0x30, vec![general_name(random)])).collect();
            DerElement::of(0x30, vec![DerElement::of([0xa0, 0xa1, 0xa2][random.below(3)], subtrees)])
        }
        b"\x55\x1d\x13" => {
            let parts = [DerElement::new(1, random.one(&CONTENTS)), DerElement::new(2, random.one(&CONTENTS))];
            DerElement::of(0x30, parts[..random.below(3)].to_vec())
        }
        b"\x55\x1d\x0f" => DerElement::new(3, random.one(&CONTENTS)),
        b"\x55\x1d\x25" => {
            DerElement::of(0x30, (0..random.below(3)).map(|_| DerElement::new(6, random.one(&OIDS))).collect())
        }
        b"\x55\x1d\x20" => DerElement::of(
            0x30,
            (0..random.below(3)).map(|_| DerElement::of(0x30, vec![DerElement::new(6, random.one(&OIDS))])).collect(),
        ),
        b"\x55\x1d\x24" => {
            DerElement::of(0x30, vec![DerElement::new([0x80, 0x81][random.below(2)], random.one(&CONTENTS))])
        }
        b"\x55\x1d\x36" => DerElement::new(2, random.one(&CONTENTS)),
        b"\x55\x1d\x0e" => DerElement::new(4, random.one(&CONTENTS)),
        b"\x55\x1d\x23" => {
            DerElement::of(0x30, vec![DerElement::new([0x80, 0x81, 0x82][random.below(3)], random.one(&CONTENTS))])
        }
        b"\x2b\x06\x01\x05\x05\x07\x01\x01" => DerElement::of(
            0x30,
            vec![DerElement::of(0x30, vec![DerElement::new(6, random.one(&OIDS)), general_name(random)])],
        ),
        b"\x55\x1d\x1f" => {
            let name = DerElement::of(0xa0, vec![DerElement::of(0xa0, vec![general_name(random)])]);
            DerElement::of(0x30, vec![DerElement::of(0x30, vec![name])])
        }
        _ => DerElement::new(TAGS[random.below(TAGS.len())], random.one(&CONTENTS)),
    };
    let mut encoded = Vec::new();
    value.encode(&mut encoded);
    if random.below(12) == 0 {
        encoded.push(0);
    }
    let mut parts = vec![DerElement::new(6, oid)];
    if random.below(3) == 0 {
        parts.push(DerElement::new(1, &[[0xff], [0xff], [0], [1]][random.below(4)]));
    }
    parts.push(DerElement::new(4, &encoded));
    DerElement::of(0x30, parts)
}

fn general_name(random: &mut Random) -> DerElement {
    let text = random.one(&TEXTS);
    match random.below(14) {
        0 => DerElement::of(
            0xa0,
            vec![DerElement::new(6, b"\x2a\x03"), DerElement::of(0xa0, vec![DerElement::new(12, text)])],
        ),
        1 => {
            let attribute = DerElement::of(0x30, vec![DerElement::new(6, b"\x55\x04\x03"), DerElement::new(12, text)]);
            let sets = (0..random.below(3)).map(|_| DerElement::of(0x31, vec![attribute.clone()])).collect();
            DerElement::of(0xa4, vec![DerElement::of(0x30, sets)])
        }
        2 => DerElement::new(0x88, random.one(&OIDS)),
        3 => DerElement::new([0x83, 0x85, 0x89, 0x0c, 0xa3, 0xa5, 0xa1][random.below(7)], text),
        4..6 => DerElement::new(0x81, text),
        6..9 => DerElement::new(0x82, text),
        9..12 => DerElement::new(0x86, text),
        _ => DerElement::new(0x87, text),
    }
}

fn anywhere(random: &mut Random, tree: &mut DerElement) {
    let mut at = random.below(tree.count());
    let Some(element) = tree.nth(&mut at) else { return };
    match random.below(14) {
        0 | 1 => element.tag = TAGS[random.below(TAGS.len())],
        2 if element.tag & 0x20 != 0 => element.form = Form::Open,
        3 => element.form = Form::Padded,
        4 => element.tag ^= 0x20,
        5 => *element = DerElement::new(TAGS[random.below(TAGS.len())], random.one(&CONTENTS)),
        _ => match &mut element.content {
            DerContent::Bytes(bytes) => {
                let at = random.below(bytes.len());
                match random.below(9) {
                    0 => *bytes = random.one(&CONTENTS).to_vec(),
                    1 => bytes.insert(0, 0),
                    2 => bytes.insert(0, 0xff),
                    3 => bytes.push(random.next() as u8),
                    4 => bytes.truncate(at),
                    5 => *bytes = random.one(&TEXTS).to_vec(),
                    6 if element.tag == 6 => *bytes = random.one(&OIDS).to_vec(),
                    7 if !bytes.is_empty() => bytes[at] ^= 0x80,
                    _ if !bytes.is_empty() => bytes[at] = random.next() as u8,
                    _ => {}
                }
            }
            DerContent::Elements(elements) => {
                let (at, to) = (random.below(elements.len()), random.below(elements.len()));
                match random.below(6) {
                    0 if !elements.is_empty() => {
                        elements.remove(at);
                    }
                    1 if !elements.is_empty() => {
                        let copy = elements[at].clone();
                        elements.insert(to, copy);
                    }
                    2 if !elements.is_empty() => elements.swap(at, to),
                    3 => elements.clear(),
                    4 => elements.push(DerElement::new(TAGS[random.below(TAGS.len())], random.one(&CONTENTS))),
                    _ => elements.insert(at, DerElement::new(TAGS[random.below(TAGS.len())], random.one(&CONTENTS))),
                }
            }
        },
    }
}
