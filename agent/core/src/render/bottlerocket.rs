//! User data of Bottlerocket (facts A.13).

use std::sync::Arc;

use data_encoding::BASE64;

use super::{FirstBoot, comment};
use crate::certificate::anchor::Anchor;

/// One entry of `settings.pki` for each anchor. Without `trusted` an entry would be distrusted.
pub(super) fn settings(set: &FirstBoot<'_>) -> String {
    let entry = |anchor: &&Arc<Anchor>| {
        format!(
            "\n# {}\n[settings.pki.nodetrust-{}]\ndata = \"{}\"\ntrusted = true\n",
            comment::anchor_line(anchor),
            anchor.fingerprint.fp16(),
            BASE64.encode(anchor.pem().as_bytes())
        )
    };
    std::iter::once(format!("# {}\n", comment::set_line(set))).chain(set.anchors.iter().map(entry)).collect()
}
