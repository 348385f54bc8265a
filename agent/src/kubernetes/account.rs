//! The pod's service account as files: a token, which the kubelet renews, and the CA of the API server.

use std::{env, path::Path};

use hyper::StatusCode;
use nodetrust_core::certificate::fingerprint::content_digest;

use super::failure::{ApiFailure, FailureCause};
use crate::host::file::read_file;

/// Where a pod finds its token and the API server's CA.
pub(super) const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Largest file that is looked at, in bytes.
const LIMIT: u64 = 1 << 20;

/// The namespace in which the pod runs; None outside of a pod.
pub(crate) fn namespace() -> Option<String> {
    let bytes = read_file(&Path::new(ACCOUNT).join("namespace"), LIMIT).ok()?;
    String::from_utf8(bytes).ok().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Whether this looks like a pod that was given its node's name and a token.
pub(crate) fn is_in_cluster() -> bool {
    let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    set("NODE_NAME") && set("KUBERNETES_SERVICE_HOST") && Path::new(ACCOUNT).join("token").exists()
}

/// What the files hold, as digests: a token is a secret. None for a file that cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct AccountFiles {
    pub(super) token: Option<[u8; 32]>,
    pub(super) ca: Option<[u8; 32]>,
}

impl AccountFiles {
    /// Reads them.
    pub(super) fn read() -> Self {
        let digest = |name| read_file(&Path::new(ACCOUNT).join(name), LIMIT).ok().map(|bytes| content_digest(&bytes));
        Self { token: digest("token"), ca: digest("ca.crt") }
    }

    /// Whether a failure is one that other files may cure.
    pub(super) fn may_matter_to(failure: &ApiFailure) -> bool {
        let [none, some] = [None, Some([0; 32])].map(|digest| Self { token: digest, ca: digest });
        none.may_be_cured_by(&some, failure)
    }

    /// Whether a try that failed with these files may do better with others.
    pub(super) fn may_be_cured_by(&self, others: &Self, failure: &ApiFailure) -> bool {
        match failure.cause {
            FailureCause::Account => self != others,
            // an admission policy reads the token's claims too, such as the Node that it is bound to
            FailureCause::Refused(
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::UNPROCESSABLE_ENTITY,
            ) => self.token != others.token,
            // the server's certificate may not have been trusted
            FailureCause::NoAnswer => self.ca != others.ca,
            FailureCause::Refused(_) | FailureCause::Content => false,
        }
    }
}
