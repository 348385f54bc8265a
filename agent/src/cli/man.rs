//! `nodetrust man`: the manual pages, for whoever makes a package.

use std::{fs, path::Path};

use anyhow::Context as _;
use clap_mangen::Man;

use super::{arguments::description, exit_code::OK, stdio::write_out};

pub(super) fn main(directory: Option<&Path>) -> anyhow::Result<u8> {
    // the pages say what the command `help` would
    let pages = description().disable_help_subcommand(true);
    match directory {
        Some(directory) => {
            let failed = || format!("failed to write the manual pages into `{}`", directory.display());
            fs::create_dir_all(directory).with_context(failed)?;
            clap_mangen::generate_to(pages, directory).with_context(failed)?;
        }
        None => {
            let mut page = Vec::new();
            Man::new(pages).render(&mut page)?;
            write_out(&String::from_utf8_lossy(&page))?;
        }
    }
    Ok(OK)
}
