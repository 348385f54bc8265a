//! HTTP/1.1 with a service of the host over its socket.

use std::{io, path::Path, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;

use super::{
    file::is_missing,
    root::HostRoot,
    socket::{connect, converse},
};

/// Bytes of an answer, which has some kilobytes.
const MAX_ANSWER: usize = 4 << 20;

/// Why a service could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No way to it.
    #[error("the host has no {socket}")]
    NoSocket {
        /// Where it was looked for on the host.
        socket: String,
    },
    /// It could not be connected to.
    #[error("failed to connect to {socket}")]
    Connect {
        /// The socket on the host.
        socket: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The conversation broke.
    #[error("failed to ask {socket}")]
    Http {
        /// The socket on the host.
        socket: String,
        /// What is wrong with it.
        #[source]
        source: hyper::Error,
    },
    /// An answer that is none of the service's.
    #[error("{socket} gave an answer that cannot be used: {why}")]
    Answer {
        /// The socket on the host.
        socket: String,
        /// What is wrong with it.
        why: String,
    },
    /// No answer.
    #[error("{socket} had not answered after {} s", limit.as_secs_f32())]
    TimedOut {
        /// The socket on the host.
        socket: String,
        /// How long it was waited for.
        limit: Duration,
    },
}

/// A service of the host that speaks HTTP.
#[derive(Debug, Clone, Copy)]
pub struct HttpService<'a> {
    /// The host.
    pub root: &'a HostRoot,
    /// Its socket, absolute on the host.
    pub socket: &'a str,
    /// How long each answer may take.
    pub limit: Duration,
}

impl HttpService<'_> {
    /// Sends a request, with JSON as its body if there is one, and gives the answer's status and body.
    ///
    /// # Errors
    /// If it does not answer, or with more than 4 MiB.
    pub fn ask(&self, method: Method, path: &str, json: Option<String>) -> Result<(StatusCode, Bytes), HttpError> {
        let answer =
            converse(self.limit, self.conversation(method, path, json)).map_err(|error| self.connect(error))?;
        answer.unwrap_or_else(|| Err(HttpError::TimedOut { socket: self.socket.to_owned(), limit: self.limit }))
    }

    /// An answer of the service that says something else than it should.
    pub fn unusable(&self, why: impl Into<String>) -> HttpError {
        HttpError::Answer { socket: self.socket.to_owned(), why: why.into() }
    }

    fn connect(&self, source: io::Error) -> HttpError {
        let socket = self.socket.to_owned();
        if is_missing(&source) { HttpError::NoSocket { socket } } else { HttpError::Connect { socket, source } }
    }

    async fn conversation(
        &self,
        method: Method,
        path: &str,
        json: Option<String>,
    ) -> Result<(StatusCode, Bytes), HttpError> {
        let broke = |source| HttpError::Http { socket: self.socket.to_owned(), source };
        let stream = connect(self.root, Path::new(self.socket)).await.map_err(|error| self.connect(error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
        // how it ends is seen by the request
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(HOST, "localhost");
        if json.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::<Bytes>::from(json.unwrap_or_default()))
            .map_err(|error| self.unusable(error.to_string()))?;
        let answer = sender.send_request(request).await.map_err(broke)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        Ok((status, body.map_err(|error| self.unusable(error.to_string()))?.to_bytes()))
    }
}
