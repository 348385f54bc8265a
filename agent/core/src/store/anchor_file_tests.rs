//! Which names are ours.

use super::*;
use crate::{store::Family, testing::fixed};

#[test]
fn only_names_that_we_give_are_ours() {
    let store = Family::Debian.store();
    assert!(is_own_name(store, &file_name(store, &fixed("corp-2026").fingerprint)));
    for foreign in [
        "nodetrust-0123456789abcdef.pem",
        "nodetrust-0123456789ABCDEF.crt",
        "nodetrust-0123456789abcde.crt",
        "nodetrust-0123456789abcdef0.crt",
        "nodetrust-0123456789abcdefcrt",
        "nodetrust-corp-root-ca-old.crt",
        "nodetrust-.crt",
        "xnodetrust-0123456789abcdef.crt",
        "nodetrust-0123456789abcdef.crt~",
        "a/nodetrust-0123456789abcdef.crt",
        "",
    ] {
        assert!(!is_own_name(store, foreign), "{foreign}");
    }
}
