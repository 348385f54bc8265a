//! Whether a point lies on one of NIST's curves, which is what Go asks of a key when it parses it.
//!
//! y² = x³ - 3x + b modulo p (SEC 2), with Montgomery's multiplication. These are public keys: no need to hide how long it takes.

use std::sync::LazyLock;

/// 64-bit words of the largest number, P-521's.
const WORDS: usize = 9;

type Number = [u64; WORDS];

struct Curve {
    /// Bytes of a coordinate.
    bytes: usize,
    words: usize,
    p: Number,
    /// -p⁻¹ modulo 2⁶⁴.
    inverse: u64,
    /// b and 3, times 2^(64·words).
    b: Number,
    three: Number,
    /// 2^(2·64·words) modulo p.
    square: Number,
}

/// Object identifiers of the curves, encoded, with p and b in hexadecimal digits.
const CURVES: [(&[u8], &str, &str); 4] = [
    (
        b"\x2b\x81\x04\x00\x21", // P-224
        "ffffffffffffffffffffffffffffffff000000000000000000000001",
        "b4050a850c04b3abf54132565044b0b7d7bfd8ba270b39432355ffb4",
    ),
    (
        b"\x2a\x86\x48\xce\x3d\x03\x01\x07", // P-256
        "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff",
        "5ac635d8aa3a93e7b3ebbd55769886bc651d06b0cc53b0f63bce3c3e27d2604b",
    ),
    (
        b"\x2b\x81\x04\x00\x22", // P-384
        "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000ffffffff",
        "b3312fa7e23ee7e4988e056be3f82d19181d9c6efe8141120314088f5013875ac656398d8a2ed19d2a85c8edd3ec2aef",
    ),
    (
        b"\x2b\x81\x04\x00\x23", // P-521
        concat!(
            "01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
        ),
        concat!(
            "0051953eb9618e1c9a1f929a21a0b68540eea2da725b99b315f3b8b489918ef109e1",
            "56193951ec7e937b1652c0bd3bb1bf073573df883d2c34f1ef451fd46b503f00"
        ),
    ),
];

static KNOWN: LazyLock<[Curve; 4]> = LazyLock::new(|| CURVES.map(|(_, p, b)| Curve::new(p, b)));

/// Whether Go has this curve.
pub(crate) fn is_known(oid: &[u8]) -> bool {
    CURVES.iter().any(|(known, ..)| *known == oid)
}

/// Whether an uncompressed point lies on the curve of this object identifier.
pub(crate) fn has_point(oid: &[u8], point: &[u8]) -> bool {
    let Some(at) = CURVES.iter().position(|(known, ..)| *known == oid) else { return false };
    let curve = &KNOWN[at];
    let [4, coordinates @ ..] = point else { return false };
    coordinates.len() == 2 * curve.bytes && {
        let (x, y) = coordinates.split_at(curve.bytes);
        curve.has(from_bytes(x), from_bytes(y))
    }
}

impl Curve {
    fn new(p: &str, b: &str) -> Self {
        let p_number = from_hex(p);
        let bytes = p.len() / 2;
        // Newton: each step doubles the bits that are right
        let inverse =
            (0..6).fold(1u64, |inverse, _| inverse.wrapping_mul(2u64.wrapping_sub(p_number[0].wrapping_mul(inverse))));
        let words = bytes.div_ceil(8);
        let mut curve = Self {
            bytes,
            words,
            p: p_number,
            inverse: inverse.wrapping_neg(),
            b: [0; WORDS],
            three: [0; WORDS],
            square: [0; WORDS],
        };
        let mut square = from_hex("01");
        for _ in 0..2 * 64 * words {
            square = curve.add(&square, &square);
        }
        curve.square = square;
        curve.b = curve.multiply(&from_hex(b), &square);
        curve.three = curve.multiply(&from_hex("03"), &square);
        curve
    }

    fn has(&self, x: Number, y: Number) -> bool {
        if !less(&x, &self.p) || !less(&y, &self.p) {
            return false;
        }
        let (x, y) = (self.multiply(&x, &self.square), self.multiply(&y, &self.square));
        let cube = self.multiply(&self.multiply(&x, &x), &x);
        let left = self.add(&self.multiply(&y, &y), &self.multiply(&self.three, &x));
        left == self.add(&cube, &self.b)
    }

    /// a + b modulo p.
    fn add(&self, a: &Number, b: &Number) -> Number {
        let mut sum = [0; WORDS];
        let mut carry = false;
        for at in 0..WORDS {
            let (part, first) = a[at].overflowing_add(b[at]);
            let (part, second) = part.overflowing_add(u64::from(carry));
            (sum[at], carry) = (part, first | second);
        }
        self.reduced(sum, u64::from(carry))
    }

    /// a·b·2^(-64·words) modulo p.
    fn multiply(&self, a: &Number, b: &Number) -> Number {
        let words = self.words;
        let mut sum = [0u64; WORDS + 2];
        for word in &a[..words] {
            let mut carry = 0u128;
            for at in 0..words {
                carry += u128::from(sum[at]) + u128::from(*word) * u128::from(b[at]);
                sum[at] = carry as u64;
                carry >>= 64;
            }
            carry += u128::from(sum[words]);
            sum[words] = carry as u64;
            sum[words + 1] = (carry >> 64) as u64;

            let factor = sum[0].wrapping_mul(self.inverse);
            let mut carry = (u128::from(sum[0]) + u128::from(factor) * u128::from(self.p[0])) >> 64;
            for at in 1..words {
                carry += u128::from(sum[at]) + u128::from(factor) * u128::from(self.p[at]);
                sum[at - 1] = carry as u64;
                carry >>= 64;
            }
            carry += u128::from(sum[words]);
            sum[words - 1] = carry as u64;
            sum[words] = sum[words + 1] + (carry >> 64) as u64;
            sum[words + 1] = 0;
        }
        let mut result = [0; WORDS];
        result[..words].copy_from_slice(&sum[..words]);
        match words {
            WORDS => self.reduced(result, sum[words]),
            _ => {
                result[words] = sum[words];
                self.reduced(result, 0)
            }
        }
    }

    /// A number below 2p, brought below p.
    fn reduced(&self, number: Number, carry: u64) -> Number {
        if carry == 0 && less(&number, &self.p) {
            return number;
        }
        let mut difference = [0; WORDS];
        let mut borrow = false;
        for at in 0..WORDS {
            let (part, first) = number[at].overflowing_sub(self.p[at]);
            let (part, second) = part.overflowing_sub(u64::from(borrow));
            (difference[at], borrow) = (part, first | second);
        }
        difference
    }
}

fn less(a: &Number, b: &Number) -> bool {
    a.iter().rev().lt(b.iter().rev())
}

fn from_bytes(bytes: &[u8]) -> Number {
    let mut number = [0; WORDS];
    for (word, chunk) in number.iter_mut().zip(bytes.rchunks(8)) {
        *word = chunk.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    }
    number
}

fn from_hex(digits: &str) -> Number {
    let value = |digit: u8| (digit as char).to_digit(16).unwrap_or(0) as u8;
    let bytes: Vec<u8> = digits.as_bytes().chunks(2).map(|pair| value(pair[0]) << 4 | value(pair[1])).collect();
    from_bytes(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_on_their_curves_or_not() {
        for (oid, algorithm) in [
            (&b"\x2a\x86\x48\xce\x3d\x03\x01\x07"[..], &rcgen::PKCS_ECDSA_P256_SHA256),
            (b"\x2b\x81\x04\x00\x22", &rcgen::PKCS_ECDSA_P384_SHA384),
            (b"\x2b\x81\x04\x00\x23", &rcgen::PKCS_ECDSA_P521_SHA512),
        ] {
            for _ in 0..20 {
                let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
                let mut point = rcgen::PublicKeyData::der_bytes(&key).to_vec();
                assert!(has_point(oid, &point));
                let last = point.len() - 1;
                point[last] ^= 1;
                assert!(!has_point(oid, &point));
            }
        }
        // the base point of P-224 (SEC 2, 2.6.1)
        let base = b"\x04\xb7\x0e\x0c\xbd\x6b\xb4\xbf\x7f\x32\x13\x90\xb9\x4a\x03\xc1\xd3\x56\xc2\x11\x22\x34\x32\x80\xd6\x11\x5c\x1d\x21\
        \xbd\x37\x63\x88\xb5\xf7\x23\xfb\x4c\x22\xdf\xe6\xcd\x43\x75\xa0\x5a\x07\x47\x64\x44\xd5\x81\x99\x85\x00\x7e\x34";
        assert!(has_point(b"\x2b\x81\x04\x00\x21", base));
    }
}
