//! Parsers of what other programs and the host say that are private where they are used: the entry points of tests/fuzz.

/// A gRPC answer with its frame, as every message of CRI that is read.
pub fn grpc(bytes: &[u8]) {
    crate::cri::read_answers(bytes);
}

/// `/proc/PID/stat`: name and start of a process.
pub fn process(text: &str) -> Option<(String, u64)> {
    crate::services::read_stat(text)
}

/// `/proc/PID/cmdline`: the configuration that a runtime was started with.
pub fn command_line(bytes: &[u8]) -> Option<String> {
    crate::services::read_command_line(bytes)
}

/// The head of an HTTP proxy's answer to CONNECT: its status.
pub fn proxy_answer(head: &[u8]) -> Option<u16> {
    crate::probe::proxy_status(head)
}
