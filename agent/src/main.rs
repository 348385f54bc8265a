//! The program. As `nodetrust __host-exec …` it is its own helper, see `host::exec`.

use std::process::ExitCode;

use nodetrust::{cli, host::exec};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|word| word == exec::HELPER) {
        return ExitCode::from(u8::try_from(exec::helper(args)).unwrap_or(1));
    }
    ExitCode::from(cli::main())
}
