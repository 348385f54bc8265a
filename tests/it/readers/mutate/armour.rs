//! PEM files with something changed in their armour.

use nodetrust_core::certificate::pem;

use crate::support::random::Random;

/// A PEM file of a few certificates, with something changed in its armour.
pub fn bundle(random: &mut Random, pool: &[Vec<u8>]) -> Vec<u8> {
    let blocks = 1 + random.below(3);
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for _ in 0..blocks {
        let text = pem::encode(&pool[random.below(pool.len())]);
        lines.extend(text.lines().map(|line| line.as_bytes().to_vec()));
        if random.below(4) == 0 {
            lines.extend(other_block(random));
        }
    }
    for _ in 0..1 + random.below(2) {
        armour(random, &mut lines);
    }
    let end: &[u8] = random.one(&[&b"\n"[..], b"\n", b"\n", b"\n", b"\n", b"\n", b"\r\n", b"\r"]);
    let mut out = lines.join(end);
    if random.below(10) > 0 {
        out.extend_from_slice(end);
    }
    match random.below(30) {
        0 => [&b"\xef\xbb\xbf"[..], &out].concat(),
        1 if !out.is_empty() => {
            let at = random.below(out.len());
            out[at] = [0, 9, 11, 12, 13, 26, 32, b'-', b'=', b':', 0x80, 0xa0, 0xff][random.below(13)];
            out
        }
        2 => {
            out.truncate(random.below(out.len()));
            out
        }
        _ => out,
    }
}

fn other_block(random: &mut Random) -> Vec<Vec<u8>> {
    let label: &[u8] = random.one(&[
        &b"X509 CRL"[..],
        b"CERTIFICATE REQUEST",
        b"TRUSTED CERTIFICATE",
        b"X509 CERTIFICATE",
        b"DH PARAMETERS",
        b"ANYTHING",
        b"PUBLIC KEY",
        b"PKCS7",
        b"",
        b"CERTIFICATE ",
        b"certificate",
        b"NEW CERTIFICATE REQUEST",
        b"X509 CERTIFICATE REQUEST",
    ]);
    let body: &[u8] = random.one(&[
        &b"MAA="[..],
        b"",
        b"AAAA",
        b"AAA",
        b"a: b",
        b"MAMCAQA=",
        b"\nMAA=",
        b"MAA=\n",
        b"a: b\n\nMAA=",
        b"====",
        b"MA==",
        b"MB==",
        b"!!!!",
    ]);
    let mut lines = vec![[&b"-----BEGIN "[..], label, b"-----"].concat()];
    lines.extend(body.split(|byte| *byte == b'\n').filter(|_| !body.is_empty()).map(<[u8]>::to_vec));
    lines.push([&b"-----END "[..], label, b"-----"].concat());
    lines
}

fn armour(random: &mut Random, lines: &mut Vec<Vec<u8>>) {
    if lines.is_empty() {
        return;
    }
    let at = random.below(lines.len());
    // Half of the changes are in the BEGIN and END lines.
    let edges: Vec<usize> = (0..lines.len()).filter(|n| lines[*n].starts_with(b"---")).collect();
    let at = if random.below(2) == 0 && !edges.is_empty() { edges[random.below(edges.len())] } else { at };
    let next = (at + 1).min(lines.len() - 1);
    match random.below(24) {
        0 => lines.insert(at, Vec::new()),
        1 => lines.insert(next, Vec::new()),
        2 => {
            lines.insert(at, random.one(&[&b" "[..], b"\t", b"\x0c", b"\x0b", b"\0", b"\r", b"\xa0", b"\x1a"]).to_vec())
        }
        3 => lines[at].extend_from_slice(random.one(&[
            &b" "[..],
            b"\t",
            b"\x0c",
            b"\x0b",
            b"\0",
            b"\r",
            b"\xa0",
            b"\xc2\xa0",
            b"-",
            b"=",
            b"x",
            b" x",
            b":",
            b"\0x",
        ])),
        4 => {
            lines[at].splice(
                0..0,
                random.one(&[&b" "[..], b"\t", b"\x0c", b"\xef\xbb\xbf", b"\0", b"> ", b"#", b"-"]).iter().copied(),
            );
        }
        5 => {
            lines.remove(at);
        }
        6 => {
            let copy = lines[at].clone();
            lines.insert(at, copy);
        }
        7 => {
            let taken = lines.remove(next.min(lines.len() - 1));
            let at = at.min(lines.len().saturating_sub(1));
            if let Some(line) = lines.get_mut(at) { line.extend_from_slice(&taken) } else { lines.push(taken) }
        }
        8 => {
            let cut = random.below(lines[at].len());
            let rest = lines[at].split_off(cut);
            lines.insert(at + 1, rest);
        }
        9 => {
            lines.truncate(at);
            lines.push(Vec::new());
        }
        10 => lines.insert(
            at,
            random
                .one(&[
                    &b"a: b"[..],
                    b"# comment",
                    b"Proc-Type: 4,ENCRYPTED",
                    b"-----",
                    b"-----BEGIN CERTIFICATE",
                    b"text -----BEGIN CERTIFICATE-----",
                    b"-----END CERTIFICATE-----",
                    b"-----BEGIN CERTIFICATE-----",
                    b"-----BEGIN X509 CERTIFICATE-----",
                    b"=",
                    b"AAAA",
                    b"-",
                    b"==",
                ])
                .to_vec(),
        ),
        11 => lines[at] = lines[at].to_ascii_lowercase(),
        12 => {
            if let Some(place) = lines[at].windows(5).position(|five| five == b"-----") {
                lines[at].remove(place);
            }
        }
        13 => {
            let label: &[u8] = random.one(&[
                &b"TRUSTED CERTIFICATE"[..],
                b"X509 CERTIFICATE",
                b"X.509 CERTIFICATE",
                b"X509 CRL",
                b"CERTIFICATE REQUEST",
                b"OTHER",
            ]);
            for line in
                lines.iter_mut().filter(|line| line.starts_with(b"-----") && line.ends_with(b" CERTIFICATE-----"))
            {
                let keep = if line.starts_with(b"-----B") { 11 } else { 9 };
                line.truncate(keep);
                line.extend_from_slice(label);
                line.extend_from_slice(b"-----");
            }
        }
        14 => {
            // The whole text in one line, or in lines of another length.
            let width = [1, 3, 4, 60, 63, 65, 76, 128, 250, 253, 254, 255, 256, 508, 100_000][random.below(15)];
            let mut out: Vec<Vec<u8>> = Vec::new();
            let mut body = Vec::new();
            for line in std::mem::take(lines) {
                if line.starts_with(b"-") {
                    out.extend(std::mem::take(&mut body).chunks(width).map(<[u8]>::to_vec));
                    out.push(line);
                } else {
                    body.extend_from_slice(&line);
                }
            }
            out.extend(body.chunks(width).map(<[u8]>::to_vec));
            *lines = out;
        }
        15 => {
            let filler = vec![b'x'; [200, 243, 244, 253, 254, 255, 300, 508][random.below(8)]];
            lines.insert(at, [&filler[..], b"-----BEGIN CERTIFICATE-----"].concat());
        }
        16 => {
            let made = other_block(random);
            let at = at.min(lines.len());
            lines.splice(at..at, made);
        }
        17 => {
            let cut = random.below(lines[at].len());
            if let Some(byte) = lines[at].get_mut(cut) {
                *byte = *random
                    .one(&[&b"\0"[..], b" ", b"\t", b"-", b"=", b"\x0c", b":", b"\x80", b"_", b"\r"])
                    .first()
                    .unwrap_or(&0);
            }
        }
        18 => lines[at].extend(vec![b' '; [1, 190, 300][random.below(3)]]),
        19 => {
            let line = &mut lines[at];
            if let Some(place) = line.iter().rposition(|byte| *byte == b'=') {
                line.remove(place);
            }
        }
        20 => {
            let line = &mut lines[at];
            if line.last() == Some(&b'=') {
                let place = line.iter().position(|byte| *byte == b'=').unwrap_or(0);
                if place > 0 {
                    line[place - 1] = line[place - 1].wrapping_add(1);
                }
            }
        }
        _ => {
            let other = random.below(lines.len());
            lines.swap(at, other);
        }
    }
}
