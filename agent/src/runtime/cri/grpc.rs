//! gRPC as far as CRI needs it: one message there, one message back, over HTTP/2 without TLS.

use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http2,
    header::{CONTENT_TYPE, HeaderName, HeaderValue, TE},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixStream;

/// Bytes of an answer. A node has some hundred containers, with about a kilobyte each.
const MAX_ANSWER: usize = 16 << 20;
/// Bytes of a message's prefix: one whether it is compressed, four of its length.
const PREFIX: usize = 5;
/// Bytes of a server's message that are kept.
const MAX_TEXT: usize = 2048;

/// A status code of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// Done.
    pub const OK: Self = Self(0);
    /// There is no such service or method.
    pub const UNIMPLEMENTED: Self = Self(12);
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // the names and their order are gRPC's
        const NAMES: [&str; 17] = [
            "OK",
            "CANCELLED",
            "UNKNOWN",
            "INVALID_ARGUMENT",
            "DEADLINE_EXCEEDED",
            "NOT_FOUND",
            "ALREADY_EXISTS",
            "PERMISSION_DENIED",
            "RESOURCE_EXHAUSTED",
            "FAILED_PRECONDITION",
            "ABORTED",
            "OUT_OF_RANGE",
            "UNIMPLEMENTED",
            "INTERNAL",
            "UNAVAILABLE",
            "DATA_LOSS",
            "UNAUTHENTICATED",
        ];
        match usize::try_from(self.0).ok().and_then(|code| NAMES.get(code)) {
            Some(name) => f.write_str(name),
            None => write!(f, "code {}", self.0),
        }
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// The server says so.
    #[error("{code}: {message}")]
    Status {
        /// Its code.
        code: Code,
        /// Its words.
        message: String,
    },
    /// The connection broke, or is none of HTTP/2.
    #[error("no HTTP/2 conversation: {}", .0)]
    Http(#[from] hyper::Error),
    /// Something else than gRPC answers.
    #[error("an answer that is not gRPC's: {0}")]
    Malformed(String),
}

impl GrpcError {
    /// Whether the server does not know what was called.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Status { code: Code::UNIMPLEMENTED, .. })
    }
}

/// A connection; ends when it is dropped with its runtime.
pub(crate) struct Channel(http2::SendRequest<Full<Bytes>>);

impl Channel {
    /// Greets a server.
    pub(crate) async fn open(stream: UnixStream) -> Result<Self, GrpcError> {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // how it ends is seen by the call that is under way
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Calls a method and waits for its answer.
    pub(crate) async fn call<A: Message + Default>(
        &mut self,
        path: &str,
        request: &impl Message,
    ) -> Result<A, GrpcError> {
        let request = Request::post(format!("http://localhost{path}"))
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .body(Full::new(frame(request)))
            .map_err(|error| GrpcError::Malformed(error.to_string()))?;
        self.0.ready().await?;
        let answer = self.0.send_request(request).await?;
        let bytes = read(answer).await?;
        A::decode(bytes).map_err(|error| GrpcError::Malformed(error.to_string()))
    }
}

/// A message with its prefix.
fn frame(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    // our own requests have some bytes
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(PREFIX + message.len());
    bytes.push(0);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&message);
    bytes.into()
}

/// The bytes of an answer's message, if its status is OK.
async fn read(answer: Response<Incoming>) -> Result<Bytes, GrpcError> {
    let (head, mut body) = answer.into_parts();
    if !head.status.is_success() {
        return Err(GrpcError::Malformed(format!("HTTP status {}", head.status)));
    }
    // a server that has nothing to say but its status says it here
    let mut end = status(&head.headers);
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) if bytes.len() + data.len() > MAX_ANSWER => {
                return Err(GrpcError::Malformed(format!("more than {} MiB", MAX_ANSWER >> 20)));
            }
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => end = frame.trailers_ref().and_then(status).or(end),
        }
    }
    end.unwrap_or_else(|| Err(GrpcError::Malformed("it has no status".to_owned())))?;
    unframe(bytes.into())
}

/// What headers or trailers say of a call's end; None if they do not speak of it.
fn status(headers: &HeaderMap) -> Option<Result<(), GrpcError>> {
    let code = headers.get("grpc-status")?.to_str().ok().and_then(|code| code.parse().ok()).map(Code);
    let message = headers.get("grpc-message").map(|message| plain(message.as_bytes())).unwrap_or_default();
    Some(match code {
        Some(Code::OK) => Ok(()),
        Some(code) => Err(GrpcError::Status { code, message }),
        None => Err(GrpcError::Malformed("its status is no number".to_owned())),
    })
}

/// Undoes the percent encoding of a server's message.
fn plain(text: &[u8]) -> String {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        let escaped =
            digit(0).zip(digit(1)).filter(|_| first == b'%').and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &after[2..] } else { after };
        if bytes.len() == MAX_TEXT {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The message in these bytes with its prefix; the bytes themselves if they are none. And all that a server says in words.
pub(crate) fn body(bytes: &[u8]) -> Vec<u8> {
    let _ = plain(bytes);
    let mut headers = HeaderMap::new();
    let (code, message) = bytes.split_at(bytes.len().min(2));
    for (name, value) in [("grpc-status", code), ("grpc-message", message)] {
        headers.extend(HeaderValue::from_bytes(value).ok().map(|value| (HeaderName::from_static(name), value)));
    }
    let _ = status(&headers);
    unframe(bytes.to_vec().into()).map_or_else(|_| bytes.to_vec(), Into::into)
}

/// The one message in an answer.
fn unframe(mut bytes: Bytes) -> Result<Bytes, GrpcError> {
    let malformed = |text: &str| Err(GrpcError::Malformed(text.to_owned()));
    let Some(&[compressed, a, b, c, d]) = bytes.first_chunk::<PREFIX>() else {
        return malformed("it is too short");
    };
    if compressed != 0 {
        return malformed("it is compressed, which was not asked for");
    }
    let message = bytes.split_off(PREFIX);
    if usize::try_from(u32::from_be_bytes([a, b, c, d])).ok() != Some(message.len()) {
        return malformed("it is not one whole message");
    }
    Ok(message)
}

#[cfg(test)]
#[path = "grpc_tests.rs"]
mod tests;
