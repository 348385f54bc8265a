//! `nodetrust run`: the agent.

use super::{Context, OK};

pub(super) fn main(context: &Context) -> anyhow::Result<u8> {
    crate::run::run(context.settings()?, context.config_path(), &context.host_root)?;
    Ok(OK)
}
