//! `nodetrust version`.

use serde::Serialize;

use super::{context::Context, exit_code::OK};

#[derive(Serialize)]
struct Version {
    version: &'static str,
    revision: &'static str,
    target: &'static str,
    rustc: &'static str,
}

pub(super) fn main(context: &Context) -> anyhow::Result<u8> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        revision: env!("NODETRUST_REVISION"),
        target: env!("NODETRUST_TARGET"),
        rustc: env!("NODETRUST_RUSTC"),
    };
    context.print(&version, |_| {
        format!(
            "nodetrust {}\nrevision  {}\ntarget    {}\nrustc     {}\n",
            version.version, version.revision, version.target, version.rustc
        )
    })?;
    Ok(OK)
}
