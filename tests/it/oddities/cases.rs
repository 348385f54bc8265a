//! The odd certificates: a root, or a leaf, or what is between, each with one oddity.

use super::{
    Case,
    forge::{
        CONSTRAINTS, CertDraft, CertKey, KEY_ID, LIMITS, NAMES, PURPOSES, SIGNER_ID, USAGE, common_name, extension,
        key_id_of, name_of, oid, seq, tlv, utc,
    },
};

/// Makes the cases; each has CAs of its own names, so that one bundle can hold all of them.
struct Maker {
    cases: Vec<Case>,
    ca_key: CertKey,
    leaf_key: CertKey,
}

impl Maker {
    /// A root of the case's name, edited, and a leaf of it without a fault.
    fn root(&mut self, name: &'static str, edit: impl FnOnce(&mut CertDraft)) -> &mut Case {
        self.both(name, |ca, _| edit(ca))
    }

    /// A root without a fault, and an edited leaf.
    fn leaf(&mut self, name: &'static str, edit: impl FnOnce(&mut CertDraft)) -> &mut Case {
        self.both(name, |_, leaf| edit(leaf))
    }

    fn both(&mut self, name: &'static str, edit: impl FnOnce(&mut CertDraft, &mut CertDraft)) -> &mut Case {
        let mut ca = CertDraft::ca(name, &self.ca_key);
        let mut leaf = CertDraft::leaf(&ca, &self.leaf_key);
        let before = ca.subject.clone();
        edit(&mut ca, &mut leaf);
        if ca.subject != before && leaf.issuer == before {
            leaf.issuer.clone_from(&ca.subject);
        }
        if ca.subject != before && ca.issuer == before {
            ca.issuer.clone_from(&ca.subject);
        }
        let (ca, leaf) = (ca.pem(&self.ca_key), leaf.pem(&self.ca_key));
        self.add(name, vec![ca], leaf, Vec::new())
    }

    /// A root whose key is of another kind.
    fn with_key(
        &mut self,
        name: &'static str,
        key: &CertKey,
        algorithm: Vec<u8>,
        edit: impl FnOnce(&mut CertDraft),
    ) -> &mut Case {
        let mut ca = CertDraft::ca(name, key);
        ca.algorithm.clone_from(&algorithm);
        edit(&mut ca);
        let mut leaf = CertDraft::leaf(&ca, &self.leaf_key);
        leaf.algorithm = algorithm;
        let (ca, leaf) = (ca.pem(key), leaf.pem(key));
        self.add(name, vec![ca], leaf, Vec::new())
    }

    /// A root, an edited intermediate, and a leaf of that.
    fn between(
        &mut self,
        name: &'static str,
        edit: impl FnOnce(&mut CertDraft, &mut CertDraft, &mut CertDraft),
    ) -> &mut Case {
        let key = CertKey::new();
        let mut root = CertDraft::ca(name, &self.ca_key);
        let mut middle = CertDraft::ca(&format!("{name}, issuing"), &key);
        middle.issuer.clone_from(&root.subject);
        let mut leaf = CertDraft::leaf(&middle, &self.leaf_key);
        edit(&mut root, &mut middle, &mut leaf);
        let (root, middle, leaf) = (root.pem(&self.ca_key), middle.pem(&self.ca_key), leaf.pem(&key));
        self.add(name, vec![root], leaf, vec![middle])
    }

    fn add(&mut self, name: &'static str, bundle: Vec<String>, leaf: String, chain: Vec<String>) -> &mut Case {
        let key = self.leaf_key.pem();
        self.cases.push(Case { name, bundle, leaf, key, chain, versions_differ: false });
        self.cases.last_mut().unwrap()
    }
}

fn permitted(subtrees: &[Vec<u8>]) -> Vec<u8> {
    let subtrees: Vec<Vec<u8>> = subtrees.iter().map(|base| seq(std::slice::from_ref(base))).collect();
    seq(&[tlv(0xa0, &subtrees.concat())])
}

pub(super) fn cases() -> Vec<Case> {
    let mut make = Maker { cases: Vec::new(), ca_key: CertKey::new(), leaf_key: CertKey::new() };
    of_extensions(&mut make);
    of_authority(&mut make);
    of_limits(&mut make);
    of_names_and_numbers(&mut make);
    of_keys(&mut make);
    of_leaves(&mut make);
    of_chains(&mut make);
    make.cases
}

fn of_extensions(make: &mut Maker) {
    make.root("plain", |_| {});
    let access = seq(&[seq(&[oid(&[1, 3, 6, 1, 5, 5, 7, 48, 2]), tlv(0x86, b"http://pki.corp/ca.crt")])]);
    let policies = seq(&[seq(&[oid(&[2, 5, 29, 32, 0])])]);
    let names = seq(&[tlv(0x82, b"pki.corp")]);
    let crl = seq(&[seq(&[tlv(0xa0, &tlv(0xa0, &tlv(0x86, b"http://pki.corp/ca.crl")))])]);
    let signer = seq(&[{
        let mut id = key_id_of(&common_name("critical authorityKeyIdentifier"));
        id[0] = 0x80;
        id
    }]);
    let rows: [(&'static str, &[u64], Vec<u8>); 16] = [
        ("critical authorityInfoAccess", &[1, 3, 6, 1, 5, 5, 7, 1, 1], access),
        ("critical authorityKeyIdentifier", SIGNER_ID, signer),
        ("critical subjectKeyIdentifier", KEY_ID, key_id_of(&common_name("critical subjectKeyIdentifier"))),
        ("critical msApplicationPolicies", &[1, 3, 6, 1, 4, 1, 311, 21, 10], policies.clone()),
        ("critical private extension", &[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]),
        ("critical certificatePolicies", &[2, 5, 29, 32], policies.clone()),
        ("critical cRLDistributionPoints", &[2, 5, 29, 31], crl.clone()),
        ("critical freshestCRL", &[2, 5, 29, 46], crl),
        ("critical extendedKeyUsage", PURPOSES, seq(&[oid(&[1, 3, 6, 1, 5, 5, 7, 3, 1])])),
        ("critical issuerAltName", &[2, 5, 29, 18], names.clone()),
        ("critical subjectAltName", NAMES, names),
        ("critical subjectAltName, directory name", NAMES, seq(&[tlv(0xa4, &common_name("x"))])),
        ("critical netscape type", &[2, 16, 840, 1, 113730, 1, 1], vec![3, 2, 0, 7]),
        ("critical no-check", &[1, 3, 6, 1, 5, 5, 7, 48, 1, 5], vec![5, 0]),
        ("critical private key usage period", &[2, 5, 29, 16], seq(&[tlv(0x80, b"20200101000000Z")])),
        ("critical qualified statements", &[1, 3, 6, 1, 5, 5, 7, 1, 3], seq(&[])),
    ];
    for (at, (name, numbers, value)) in rows.into_iter().enumerate() {
        // Newer versions of Go refuse the first three; Debian 12's does not.
        make.root(name, |ca| ca.set(numbers, extension(numbers, true, &value))).versions_differ = at < 3;
    }
    make.root("a private extension", |ca| ca.extensions.push(extension(&[1, 3, 6, 1, 4, 1, 99999, 1], false, &[5, 0])));
    // Go handles these since 1.24
    for (name, numbers, value) in [
        ("critical policyConstraints", &[2, 5, 29, 36], seq(&[tlv(0x81, &[0])])),
        ("critical inhibitAnyPolicy", &[2, 5, 29, 54], tlv(0x02, &[1])),
    ] {
        make.root(name, |ca| ca.set(numbers, extension(numbers, true, &value))).versions_differ = true;
    }
    make.root("explicit policies wanted", |ca| {
        ca.set(&[2, 5, 29, 36], extension(&[2, 5, 29, 36], false, &seq(&[tlv(0x80, &[0])])))
    })
    .versions_differ = true;
    make.root("garbage in certificatePolicies", |ca| ca.extensions.push(extension(&[2, 5, 29, 32], false, b"garbage")));
    make.root("garbage in cRLDistributionPoints", |ca| {
        ca.extensions.push(extension(&[2, 5, 29, 31], false, b"garbage"))
    });
    make.root("garbage in subjectKeyIdentifier", |ca| ca.set(KEY_ID, extension(KEY_ID, false, b"garbage")));
    make.root("garbage in extendedKeyUsage", |ca| ca.extensions.push(extension(PURPOSES, false, b"garbage")));
    make.root("garbage in keyUsage", |ca| ca.set(USAGE, extension(USAGE, true, b"garbage")));
    make.root("garbage in authorityInfoAccess", |ca| {
        ca.extensions.push(extension(&[1, 3, 6, 1, 5, 5, 7, 1, 1], false, b"garbage"))
    });
    make.root("an empty subjectKeyIdentifier", |ca| ca.set(KEY_ID, extension(KEY_ID, false, &tlv(0x04, b""))));
    make.root("no subjectKeyIdentifier", |ca| ca.set(KEY_ID, Vec::new()));
    make.root("a truth value of 1", |ca| {
        ca.set(CONSTRAINTS, seq(&[oid(CONSTRAINTS), tlv(0x01, &[1]), tlv(0x04, &seq(&[tlv(0x01, &[0xff])]))]));
    });
}

fn of_authority(make: &mut Maker) {
    let constraints = |value: Vec<u8>| extension(CONSTRAINTS, true, &value);
    let yes = || tlv(0x01, &[0xff]);
    make.root("basicConstraints not critical", |ca| ca.set(CONSTRAINTS, extension(CONSTRAINTS, false, &seq(&[yes()]))));
    make.root("no basicConstraints", |ca| ca.set(CONSTRAINTS, Vec::new()));
    make.root("no basicConstraints, no keyUsage", |ca| {
        ca.set(CONSTRAINTS, Vec::new());
        ca.set(USAGE, Vec::new());
    });
    make.root("no extension at all", |ca| ca.extensions.clear());
    make.root("CA:FALSE", |ca| ca.set(CONSTRAINTS, constraints(seq(&[]))));
    make.root("CA:FALSE, written", |ca| ca.set(CONSTRAINTS, constraints(seq(&[tlv(0x01, &[0])]))));
    make.root("pathLen 0", |ca| ca.set(CONSTRAINTS, constraints(seq(&[yes(), tlv(0x02, &[0])]))));
    make.root("a negative pathLen", |ca| ca.set(CONSTRAINTS, constraints(seq(&[yes(), tlv(0x02, &[0xff])]))))
        .versions_differ = true;
    make.root("a huge pathLen", |ca| ca.set(CONSTRAINTS, constraints(seq(&[yes(), tlv(0x02, &[0x7f; 12])]))));
    make.root("something behind basicConstraints", |ca| {
        ca.set(CONSTRAINTS, constraints([seq(&[yes()]), vec![5, 0]].concat()))
    });
    make.root("no keyUsage", |ca| ca.set(USAGE, Vec::new()));
    make.root("an empty keyUsage", |ca| ca.set(USAGE, extension(USAGE, true, &[0x03, 0x01, 0x00])));
    make.root("keyUsage without a bit set", |ca| ca.set(USAGE, extension(USAGE, true, &[0x03, 0x02, 0x07, 0x00])));
    make.root("keyUsage cRLSign only", |ca| ca.set(USAGE, extension(USAGE, true, &[0x03, 0x02, 0x01, 0x02])));
    make.root("keyUsage not in its shortest form", |ca| {
        ca.set(USAGE, extension(USAGE, true, &[0x03, 0x02, 0x00, 0x06]))
    });
    let purposes = |all: &[Vec<u8>]| extension(PURPOSES, false, &seq(all));
    make.root("any purpose", |ca| ca.set(PURPOSES, purposes(&[oid(&[2, 5, 29, 37, 0])])));
    make.root("no purpose", |ca| ca.set(PURPOSES, purposes(&[])));
    make.root("for clients only", |ca| ca.set(PURPOSES, purposes(&[oid(&[1, 3, 6, 1, 5, 5, 7, 3, 2])])));
    make.root("for servers and clients", |ca| {
        ca.set(PURPOSES, purposes(&[oid(&[1, 3, 6, 1, 5, 5, 7, 3, 2]), oid(&[1, 3, 6, 1, 5, 5, 7, 3, 1])]))
    });
    make.root("version 1", |ca| {
        ca.version.clear();
        ca.extensions.clear();
    });
    make.root("version 1, written", |ca| {
        ca.version = tlv(0xa0, &tlv(0x02, &[0]));
        ca.extensions.clear();
    });
    make.root("version 2", |ca| {
        ca.version = tlv(0xa0, &tlv(0x02, &[1]));
        ca.extensions.clear();
    });
    make.root("version 4", |ca| ca.version = tlv(0xa0, &tlv(0x02, &[3])));
    make.root("unique ids", |ca| ca.more = tlv(0x81, &[0, 1, 2]));
}

fn of_limits(make: &mut Maker) {
    let limit = |value: Vec<u8>| extension(LIMITS, true, &value);
    let dns = |name: &[u8]| tlv(0x82, name);
    let rows: [(&'static str, Vec<u8>); 14] = [
        ("only localhost", permitted(&[dns(b"localhost")])),
        ("only LOCALHOST", permitted(&[dns(b"LOCALHOST")])),
        ("only other names", permitted(&[dns(b"corp.test")])),
        ("only below localhost", permitted(&[dns(b".localhost")])),
        ("every name", permitted(&[dns(b"")])),
        ("only addresses in 10.0.0.0/8", permitted(&[tlv(0x87, &[10, 0, 0, 0, 255, 0, 0, 0])])),
        ("only mail addresses", permitted(&[tlv(0x81, b"corp.test")])),
        ("not localhost", seq(&[tlv(0xa1, &seq(&[dns(b"localhost")]))])),
        ("not other names", seq(&[tlv(0xa1, &seq(&[dns(b"corp.test")]))])),
        ("no limits in nameConstraints", seq(&[])),
        ("an IP address of length 4", permitted(&[tlv(0x87, &[10, 0, 0, 0])])),
        ("a mask with a gap", permitted(&[tlv(0x87, &[10, 0, 0, 0, 255, 0, 255, 0])])),
        ("an asterisk", permitted(&[dns(b"*.localhost")])),
        (
            "an empty mask as AD CS writes it",
            seq(&[
                tlv(0xa0, &seq(&[dns(b"localhost")])),
                tlv(0xa1, &[seq(&[tlv(0x87, &[0; 8])]), seq(&[tlv(0x87, &[0; 32])])].concat()),
            ]),
        ),
    ];
    for (name, value) in rows {
        make.root(name, |ca| ca.set(LIMITS, limit(value)));
    }
    let directory = |name: &str| permitted(&[tlv(0xa4, &common_name(name))]);
    make.root("only another directory name", |ca| ca.set(LIMITS, extension(LIMITS, false, &directory("corp"))));
    make.root("only this directory name", |ca| ca.set(LIMITS, extension(LIMITS, false, &directory("localhost"))));
    make.root("only this directory name, critical", |ca| ca.set(LIMITS, limit(directory("localhost"))));
    make.root("an address as for mail in nameConstraints", |ca| {
        ca.set(LIMITS, limit(permitted(&[tlv(0x81, b"@corp.test")])))
    });
    make.root("a URI with a path in nameConstraints", |ca| {
        ca.set(LIMITS, limit(permitted(&[tlv(0x86, b"http://x/")])))
    });
    let distances = seq(&[tlv(0xa0, &seq(&[dns(b"localhost"), tlv(0x80, &[1])]))]);
    make.root("a distance in nameConstraints", |ca| ca.set(LIMITS, limit(distances)));
}

fn of_names_and_numbers(make: &mut Maker) {
    make.root("serial number 0", |ca| ca.serial = tlv(0x02, &[0]));
    make.root("a long serial number", |ca| ca.serial = tlv(0x02, &[0x11; 60]));
    make.root("a negative serial number", |ca| ca.serial = tlv(0x02, &[0x91, 0x22])).versions_differ = true;
    make.root("an empty subjectAltName", |ca| ca.set(NAMES, extension(NAMES, false, &seq(&[]))));
    make.root("a blank in a dNSName", |ca| ca.set(NAMES, extension(NAMES, false, &seq(&[tlv(0x82, b"a b")]))));
    make.root("umlauts in a dNSName", |ca| {
        ca.set(NAMES, extension(NAMES, false, &seq(&[tlv(0x82, "ü.corp".as_bytes())])))
    });
    make.root("umlauts in a mail address", |ca| {
        ca.set(NAMES, extension(NAMES, false, &seq(&[tlv(0x81, "ü@corp".as_bytes())])))
    });
    make.root("an IP address of 8 bytes", |ca| ca.set(NAMES, extension(NAMES, false, &seq(&[tlv(0x87, &[10; 8])]))));
    make.root("a URI that is none", |ca| {
        ca.set(NAMES, extension(NAMES, false, &seq(&[tlv(0x86, b"http://[fe80::1%25en0/")])))
    });
    make.root("an empty dNSName", |ca| ca.set(NAMES, extension(NAMES, false, &seq(&[tlv(0x82, b"")]))));
    let bmp: Vec<u8> = "BMP name".encode_utf16().flat_map(u16::to_be_bytes).collect();
    let rows: [(&'static str, Vec<u8>); 10] = [
        ("a BMPString", name_of(3, 0x1e, &bmp)),
        ("a T61String", name_of(3, 0x14, b"T61 name")),
        ("a NumericString", name_of(3, 0x12, b"12 34")),
        ("an at sign in a PrintableString", name_of(3, 0x13, b"me@corp printable")),
        ("umlauts in an IA5String", name_of(3, 0x16, b"\xfcml IA5")),
        ("a NUL in a name", name_of(3, 0x0c, b"nul\0name")),
        ("an empty value in a name", name_of(3, 0x0c, b"")),
        ("a name of blanks", name_of(3, 0x0c, b"  two   blanks  ")),
        ("an organization only", name_of(10, 0x0c, b"Organization only")),
        ("a long name", name_of(3, 0x0c, &[b'x'; 300])),
    ];
    for (name, subject) in rows {
        make.root(name, |ca| ca.subject = subject);
    }
    make.root("the issuer in capitals", |ca| ca.issuer = common_name("THE ISSUER IN CAPITALS"));
    make.root("the issuer as PrintableString", |ca| ca.issuer = name_of(3, 0x13, b"the issuer as PrintableString"));
    make.root("the issuer in another type", |ca| ca.issuer = name_of(3, 0x16, b"the issuer in another type"));
    make.root("a self-signature of another key", |ca| {
        ca.issuer.clone_from(&ca.subject);
        ca.validity = seq(&[utc("200101000000Z"), utc("450101000001Z")]);
    });
    make.root("another key named as signer", |ca| {
        ca.extensions.push(extension(SIGNER_ID, false, &seq(&[tlv(0x80, b"other")])))
    });
    make.root("expired", |ca| ca.validity = seq(&[utc("200101000000Z"), utc("210101000000Z")]));
    make.root("not valid yet", |ca| ca.validity = seq(&[utc("440101000000Z"), utc("450101000000Z")]));
    make.root("GeneralizedTime before 2050", |ca| {
        ca.validity = seq(&[tlv(0x18, b"20200101000000Z"), tlv(0x18, b"20450101000000Z")]);
    });
    make.root("until 9999", |ca| ca.validity = seq(&[utc("200101000000Z"), tlv(0x18, b"99991231235959Z")]));
    make.root("since 1950", |ca| ca.validity = seq(&[utc("500101000000Z"), utc("450101000000Z")]));
}

fn of_keys(make: &mut Maker) {
    let sha256_rsa = || seq(&[oid(&[1, 2, 840, 113_549, 1, 1, 11]), vec![5, 0]]);
    let rsa = |bits: &str| {
        CertKey::made(&["-algorithm", "RSA", "-pkeyopt", &format!("rsa_keygen_bits:{bits}")], Some("-sha256"))
    };
    let curve = |name: &str, digest| {
        CertKey::made(&["-algorithm", "EC", "-pkeyopt", &format!("ec_paramgen_curve:{name}")], Some(digest))
    };
    let ecdsa = |last: u64| seq(&[oid(&[1, 2, 840, 10045, 4, 3, last])]);
    let key = rsa("2048");
    make.with_key("RSA 2048", &key, sha256_rsa(), |_| {});
    make.with_key("RSA 2048 without NULL", &key, seq(&[oid(&[1, 2, 840, 113_549, 1, 1, 11])]), |_| {});
    make.with_key("an RSA key without NULL", &key, sha256_rsa(), |ca| {
        let info = key.info();
        let bits = 19; // a header of 4 bytes, and an algorithm of 15
        assert_eq!(info[bits], 0x03);
        ca.key = seq(&[seq(&[oid(&[1, 2, 840, 113_549, 1, 1, 1])]), info[bits..].to_vec()]);
    });
    make.with_key(
        "RSA 3072 with SHA-512",
        &CertKey::made(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"], Some("-sha512")),
        seq(&[oid(&[1, 2, 840, 113_549, 1, 1, 13]), vec![5, 0]]),
        |_| {},
    );
    make.with_key("RSA 1024", &rsa("1024"), sha256_rsa(), |_| {});
    make.with_key("RSA 512", &rsa("512"), sha256_rsa(), |_| {}).versions_differ = true;
    make.with_key(
        "signed with SHA-1",
        &CertKey::OpenSsl(key.pem(), Some("-sha1")),
        seq(&[oid(&[1, 2, 840, 113_549, 1, 1, 5]), vec![5, 0]]),
        |_| {},
    );
    make.with_key(
        "signed with MD5",
        &CertKey::OpenSsl(key.pem(), Some("-md5")),
        seq(&[oid(&[1, 2, 840, 113_549, 1, 1, 4]), vec![5, 0]]),
        |_| {},
    );
    make.with_key("P-384", &curve("P-384", "-sha384"), ecdsa(3), |_| {});
    make.with_key("P-384 with SHA-256", &curve("P-384", "-sha256"), ecdsa(2), |_| {});
    make.with_key("P-521", &curve("P-521", "-sha512"), ecdsa(4), |_| {});
    make.with_key("P-224", &curve("P-224", "-sha256"), ecdsa(2), |_| {});
    make.with_key("P-192", &curve("prime192v1", "-sha256"), ecdsa(2), |_| {});
    make.with_key("secp256k1", &curve("secp256k1", "-sha256"), ecdsa(2), |_| {});
    make.with_key("brainpool", &curve("brainpoolP256r1", "-sha256"), ecdsa(2), |_| {});
    let edwards = |name: &str| CertKey::made(&["-algorithm", name], None);
    make.with_key("Ed25519", &edwards("ED25519"), seq(&[oid(&[1, 3, 101, 112])]), |_| {});
    make.with_key("Ed448", &edwards("ED448"), seq(&[oid(&[1, 3, 101, 113])]), |_| {});
    // The root's own signature uses SHA-1, those of its certificates do not.
    let (sha1, root) = (CertKey::OpenSsl(key.pem(), Some("-sha1")), "a root signed with SHA-1");
    let mut ca = CertDraft::ca(root, &key);
    ca.algorithm = seq(&[oid(&[1, 2, 840, 113_549, 1, 1, 5]), vec![5, 0]]);
    let mut leaf = CertDraft::leaf(&ca, &make.leaf_key);
    leaf.algorithm = sha256_rsa();
    make.add(root, vec![ca.pem(&sha1)], leaf.pem(&key), Vec::new());
}

fn of_leaves(make: &mut Maker) {
    let usage = |bits: &[u8]| extension(USAGE, true, bits);
    make.leaf("a leaf that may only sign", |leaf| leaf.set(USAGE, usage(&[0x03, 0x02, 0x02, 0x04])));
    make.leaf("a leaf that may encipher keys", |leaf| leaf.set(USAGE, usage(&[0x03, 0x02, 0x05, 0x20])));
    make.leaf("a leaf for any purpose", |leaf| {
        leaf.set(PURPOSES, extension(PURPOSES, false, &seq(&[oid(&[2, 5, 29, 37, 0])])))
    });
    make.leaf("a leaf for Microsoft's gated servers", |leaf| {
        leaf.set(PURPOSES, extension(PURPOSES, false, &seq(&[oid(&[1, 3, 6, 1, 4, 1, 311, 10, 3, 3])])))
    });
    make.leaf("a leaf for Netscape's gated servers", |leaf| {
        leaf.set(PURPOSES, extension(PURPOSES, false, &seq(&[oid(&[2, 16, 840, 1, 113_730, 4, 1])])))
    });
    make.leaf("a leaf without purposes", |leaf| leaf.set(PURPOSES, Vec::new()));
    make.leaf("a leaf for clients", |leaf| {
        leaf.set(PURPOSES, extension(PURPOSES, false, &seq(&[oid(&[1, 3, 6, 1, 5, 5, 7, 3, 2])])))
    });
    make.leaf("a leaf that is a CA", |leaf| {
        leaf.set(CONSTRAINTS, extension(CONSTRAINTS, true, &seq(&[tlv(0x01, &[0xff])])))
    });
    make.leaf("a leaf with a critical private extension", |leaf| {
        leaf.extensions.push(extension(&[1, 3, 6, 1, 4, 1, 99999, 1], true, &[5, 0]))
    });
    make.leaf("a leaf without names", |leaf| leaf.set(NAMES, Vec::new()));
    make.leaf("a leaf for another name", |leaf| {
        leaf.set(NAMES, extension(NAMES, false, &seq(&[tlv(0x82, b"other.corp")])))
    });
    make.leaf("a leaf with umlauts in another name", |leaf| {
        leaf.set(NAMES, extension(NAMES, false, &seq(&[tlv(0x82, b"localhost"), tlv(0x82, "ü.corp".as_bytes())])));
    });
    make.leaf("a leaf with an empty name beside its own", |leaf| {
        leaf.set(NAMES, extension(NAMES, false, &seq(&[tlv(0x82, b"localhost"), tlv(0x82, b"")])));
    });
    make.leaf("a leaf of version 1", |leaf| {
        leaf.version.clear();
        leaf.extensions.clear();
    });
    make.leaf("an expired leaf", |leaf| leaf.validity = seq(&[utc("200101000000Z"), utc("210101000000Z")]));
    make.leaf("a leaf whose issuer is in capitals", |leaf| {
        leaf.issuer = common_name("A LEAF WHOSE ISSUER IS IN CAPITALS")
    });
    make.leaf("a leaf whose issuer is of another type", |leaf| {
        leaf.issuer = name_of(3, 0x13, b"a leaf whose issuer is of another type")
    });
    make.leaf("a leaf of another key id", |leaf| {
        leaf.set(SIGNER_ID, extension(SIGNER_ID, false, &seq(&[tlv(0x80, b"other")])))
    });
    make.leaf("a leaf that names another serial number", |leaf| {
        let names = tlv(0xa1, &tlv(0xa4, &common_name("a leaf that names another serial number")));
        leaf.set(SIGNER_ID, extension(SIGNER_ID, false, &seq(&[names, tlv(0x82, &[9, 9])])));
    });
    make.leaf("a leaf with garbage in a list of policies", |leaf| {
        leaf.extensions.push(extension(&[2, 5, 29, 32], false, b"garbage"))
    });
    // The server's own certificate is in the bundle.
    let (own, name) = (CertKey::new(), "a self-signed leaf in the bundle");
    let mut draft = CertDraft::leaf(&CertDraft::ca(name, &own), &own);
    draft.subject = common_name(name);
    draft.issuer.clone_from(&draft.subject);
    draft.set(SIGNER_ID, Vec::new());
    let leaf = draft.pem(&own);
    let case = make.add(name, vec![leaf.clone()], leaf, Vec::new());
    case.key = own.pem();
    let ca = CertDraft::ca("not in the bundle", &own);
    let leaf = CertDraft::leaf(&ca, &make.leaf_key).pem(&own);
    make.add("an issued leaf in the bundle", vec![leaf.clone()], leaf, Vec::new());
}

fn of_chains(make: &mut Maker) {
    make.between("a chain of three", |_, _, _| {});
    make.between("an intermediate without basicConstraints", |_, middle, _| middle.set(CONSTRAINTS, Vec::new()));
    make.between("an intermediate of version 1", |_, middle, _| {
        middle.version.clear();
        middle.extensions.clear();
    });
    make.between("an intermediate that may not sign", |_, middle, _| {
        middle.set(USAGE, extension(USAGE, true, &[0x03, 0x02, 0x01, 0x02]))
    });
    make.between("an intermediate for any purpose", |_, middle, _| {
        middle.set(PURPOSES, extension(PURPOSES, false, &seq(&[oid(&[2, 5, 29, 37, 0])])))
    });
    make.between("an intermediate that has expired", |_, middle, _| {
        middle.validity = seq(&[utc("200101000000Z"), utc("210101000000Z")])
    });
    make.between("a root that allows no intermediate", |root, _, _| {
        root.set(CONSTRAINTS, extension(CONSTRAINTS, true, &seq(&[tlv(0x01, &[0xff]), tlv(0x02, &[0])])));
    });
    make.between("an intermediate with limits", |_, middle, _| {
        middle.set(LIMITS, extension(LIMITS, true, &permitted(&[tlv(0x82, b"corp.test")])))
    });
    make.between("an intermediate with a critical keyIdentifier", |_, middle, _| {
        let id = key_id_of(&middle.subject.clone());
        middle.set(KEY_ID, extension(KEY_ID, true, &id));
    })
    .versions_differ = true;
    // The bundle has the intermediate and not its root.
    let case = make.between("an intermediate in the bundle", |_, _, _| {});
    case.bundle.clone_from(&case.chain);
    let case = make.between("an intermediate in the bundle, sent by nobody", |_, _, _| {});
    case.bundle = std::mem::take(&mut case.chain);
    let case = make.between("an intermediate and its root in the bundle", |_, _, _| {});
    case.bundle.append(&mut case.chain);
    make.between("an intermediate that nobody sends", |_, _, _| {}).chain.clear();
    make.between("a root that nobody has", |_, _, _| {}).bundle.clear();
    // Two CAs of one name, without key identifiers: OpenSSL takes the first.
    for (name, right_first) in
        [("two keys of one name, the right one first", true), ("two keys of one name, the wrong one first", false)]
    {
        let (right, wrong) = (CertKey::new(), CertKey::new());
        let bare = |key: &CertKey| {
            let mut ca = CertDraft::ca(name, key);
            ca.set(KEY_ID, Vec::new());
            ca
        };
        let mut leaf = CertDraft::leaf(&bare(&right), &make.leaf_key);
        leaf.set(SIGNER_ID, Vec::new());
        let mut bundle = vec![bare(&right).pem(&right), bare(&wrong).pem(&wrong)];
        if !right_first {
            bundle.reverse();
        }
        let leaf = leaf.pem(&right);
        make.add(name, bundle, leaf, Vec::new());
    }
    let (first, second, name) = (CertKey::new(), CertKey::new(), "an expired root beside its renewal");
    let mut old = CertDraft::ca(name, &first);
    let renewed = CertDraft::ca(name, &first);
    old.validity = seq(&[utc("200101000000Z"), utc("210101000000Z")]);
    let leaf = CertDraft::leaf(&renewed, &make.leaf_key).pem(&first);
    make.add(name, vec![old.pem(&first), renewed.pem(&first)], leaf, Vec::new());
    // Another key of that name has signed it.
    let name = "a leaf of another key";
    let leaf = CertDraft::leaf(&CertDraft::ca(name, &second), &make.leaf_key).pem(&second);
    make.add(name, vec![CertDraft::ca(name, &first).pem(&first)], leaf, Vec::new());
}
