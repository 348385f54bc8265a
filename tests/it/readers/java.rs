//! The trust store for Java: one certificate that Java cannot parse, and it reads nothing of it. So the real keytool loads whatever we
//! put in.

use std::{fs, process::Command};

use nodetrust_core::certificate::{pkcs12, readers};

use super::{CORPUS, Inputs, amount, mutate};
use crate::support::random::Random;

/// Entries that the real keytool lists, or what it says.
fn listed(certificates: &[&(String, Vec<u8>)]) -> Result<usize, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("store.p12");
    fs::write(&file, pkcs12::trust_store(certificates.iter().map(|(_, der)| der.as_slice()))).unwrap();
    let keytool = Command::new("/usr/bin/keytool")
        .args(["-list", "-storepass", pkcs12::PASSWORD, "-keystore"])
        .arg(&file)
        .env_remove("JAVA_TOOL_OPTIONS")
        .output()
        .expect("keytool of Debian's default-jre-headless: scripts/test installs it");
    let out = String::from_utf8_lossy(&keytool.stdout).into_owned();
    match keytool.status.success() {
        true => Ok(out.matches("trustedCertEntry").count()),
        false => Err(out.lines().next().unwrap_or_default().to_owned()),
    }
}

/// What Java does not load of these, as far as a few runs of keytool tell.
fn refused(certificates: &[&(String, Vec<u8>)], most: usize) -> Vec<String> {
    match listed(certificates) {
        _ if most == 0 => Vec::new(),
        Ok(count) if count == certificates.len() => Vec::new(),
        found if certificates.len() == 1 => {
            super::keep(&certificates[0].0, &certificates[0].1);
            vec![format!("{}: {found:?}", certificates[0].0)]
        }
        _ => {
            let (one, two) = certificates.split_at(certificates.len() / 2);
            let mut all = refused(one, most);
            all.extend(refused(two, most - all.len().min(most)));
            all
        }
    }
}

#[test]
fn java_loads_every_certificate_that_we_give_it_and_gets_every_ordinary_root() {
    let mut inputs: Inputs = CORPUS.clone();
    let pool: Vec<Vec<u8>> = CORPUS.iter().map(|(_, der)| der.clone()).collect();
    let mut random = Random(amount().seed);
    for n in 0..amount().mutated.min(20_000) {
        let der = &pool[random.below(pool.len())];
        let der = mutate::certificate(&mut random, der, &pool);
        inputs.push((format!("mutated-java-{}-{n}", amount().seed), der));
    }
    let given: Vec<&(String, Vec<u8>)> = inputs.iter().filter(|(_, der)| readers::java_fault(der).is_none()).collect();
    println!("{} of {} certificates are given to Java", given.len(), inputs.len());
    let mut seen = std::collections::BTreeSet::new();
    let each: Vec<&(String, Vec<u8>)> = given.into_iter().filter(|(_, der)| seen.insert(der)).collect();
    let refused = refused(&each, 20);
    assert!(refused.is_empty(), "Java reads nothing of a store with one of these:\n{}", refused.join("\n"));
    for (name, der) in CORPUS.iter().filter(|(name, _)| name.starts_with("certifi")) {
        assert_eq!(readers::java_fault(der), None, "{name}");
    }
}
