//! User data of Bottlerocket (facts A.13).

use std::sync::Arc;

use super::{FirstBoot, comment};
use crate::{
    certificate::anchor::Anchor,
    store::{Family, anchor_file::file_name, settings::PkiEntry},
};

/// One entry of `settings.pki` for each anchor. Without `trusted` an entry would be distrusted.
pub(super) fn settings(set: &FirstBoot<'_>) -> String {
    let entry = |anchor: &&Arc<Anchor>| {
        format!(
            "\n# {}\n[settings.pki.{}]\ndata = \"{}\"\ntrusted = true\n",
            comment::anchor_line(anchor),
            file_name(Family::Bottlerocket.store(), &anchor.fingerprint),
            PkiEntry::of(Some(anchor)).data
        )
    };
    std::iter::once(format!("# {}\n", comment::set_line(set))).chain(set.anchors.iter().map(entry)).collect()
}
