//! Calls of CRI's methods by gRPC, over a socket that is connected already.

use std::{error::Error as _, io};

use hyper::http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    transport::{Channel, Endpoint, Uri},
};
use tonic_prost::ProstCodec;

use crate::error::chain;

/// Largest answer, in bytes. A node has some hundred containers, with about a kilobyte each.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Longest message of a server that is kept, in characters.
const MAX_MESSAGE: usize = 2048;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// The answer is an error, or cannot be read.
    #[error("{}: {message}", name_of(*code))]
    Status {
        /// Its code.
        code: Code,
        /// The server's words about it.
        message: String,
    },
    /// The connection broke, or is none of HTTP/2.
    #[error("no HTTP/2 conversation: {0}")]
    Connection(String),
}

impl GrpcError {
    /// Whether the server does not know what was called.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Status { code: Code::Unimplemented, .. })
    }

    /// Whether the server has answered.
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::Status { .. })
    }
}

impl From<Status> for GrpcError {
    fn from(status: Status) -> Self {
        match status.source() {
            // what the library makes of an error of its own has that as its source
            Some(error) => Self::Connection(chain(error)),
            None => Self::Status { code: status.code(), message: status.message().chars().take(MAX_MESSAGE).collect() },
        }
    }
}

/// A connection. It ends when it is dropped with its runtime.
pub(super) struct CriClient(Grpc<Channel>);

impl CriClient {
    /// Takes over a connected socket. It is used for one connection: one that breaks is not made anew.
    pub(super) async fn open(stream: UnixStream) -> Result<Self, GrpcError> {
        let mut stream = Some(TokioIo::new(stream));
        let connector = tower::service_fn(move |_: Uri| {
            let stream = stream.take().ok_or_else(|| io::Error::other("the connection has ended"));
            async move { stream }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector(connector).await;
        let channel = channel.map_err(|error| GrpcError::Connection(chain(&error)))?;
        Ok(Self(Grpc::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES)))
    }

    /// Calls a method, such as `/runtime.v1.RuntimeService/Version`, and waits for its answer.
    pub(super) async fn call<Q, A>(&mut self, path: &str, request: Q) -> Result<A, GrpcError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let malformed = |error: &dyn std::error::Error| GrpcError::Connection(error.to_string());
        let path = PathAndQuery::try_from(path).map_err(|error| malformed(&error))?;
        self.0.ready().await.map_err(|error| GrpcError::Connection(chain(&error)))?;
        let answer = self.0.unary(Request::new(request), path, ProstCodec::default()).await;
        Ok(answer?.into_inner())
    }
}

/// gRPC's own name of a code.
fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
