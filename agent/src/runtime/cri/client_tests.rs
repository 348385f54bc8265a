//! Calls to simulated servers: one that works, ones that refuse in each of the two ways, and ones that send invalid answers.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Response,
    body::{Body, Bytes, Frame, Incoming},
    header::{CONTENT_TYPE, TE},
    server,
    service::service_fn,
};
use hyper_util::rt::TokioExecutor;
use tokio::io::AsyncWriteExt;

use super::*;
use crate::runtime::cri::messages::{VersionRequest, VersionResponse};

const VERSION: &str = "/runtime.v1.RuntimeService/Version";

fn version() -> VersionResponse {
    VersionResponse { runtime_name: "containerd".into(), runtime_version: "1.7.24".into() }
}

/// A message behind its prefix: one byte whether it is compressed, four of its length.
fn frame(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], &message].concat().into()
}

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

/// One call, answered with these headers, these pieces of a body and these trailers.
fn call_answered(
    head: &[(&'static str, &'static str)],
    pieces: Vec<Bytes>,
    trailers: Option<&[(&'static str, &'static str)]>,
) -> Result<VersionResponse, GrpcError> {
    let (head, trailers) = (headers(head), trailers.map(headers));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let (head, pieces, trailers) = (head.clone(), pieces.clone(), trailers.clone());
        async move {
            assert_eq!(request.uri().path(), VERSION);
            assert_eq!(request.headers()[CONTENT_TYPE], "application/grpc");
            assert_eq!(request.headers()[TE], "trailers");
            request.into_body().collect().await.unwrap();
            let frames = pieces.into_iter().map(Frame::data).chain(trailers.map(Frame::trailers));
            let mut answer = Response::new(Frames(frames.collect()));
            *answer.headers_mut() = head;
            Ok::<_, Infallible>(answer)
        }
    });
    in_runtime(async move |ours, theirs| {
        let server = server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.serve_connection(TokioIo::new(theirs), service));
        let mut client = CriClient::open(ours).await?;
        client.call(VERSION, VersionRequest { version: String::new() }).await
    })
}

fn in_runtime<T>(work: impl AsyncFnOnce(UnixStream, UnixStream) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (ours, theirs) = UnixStream::pair().unwrap();
        work(ours, theirs).await
    })
}

/// A body of these frames.
struct Frames(VecDeque<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

const DONE: Option<&[(&str, &str)]> = Some(&[("grpc-status", "0")]);

#[test]
fn reads_an_answer_in_any_pieces() {
    let whole = frame(&version());
    assert_eq!(call_answered(&[], vec![whole.clone()], DONE).unwrap(), version());
    let bytes = whole.chunks(1).map(Bytes::copy_from_slice).collect();
    assert_eq!(call_answered(&[], bytes, DONE).unwrap(), version());
}

#[test]
fn reads_a_refusal_in_headers_and_in_trailers() {
    let refusal: &[(&str, &str)] =
        &[("grpc-status", "12"), ("grpc-message", "unknown service%3a runtime.v1.RuntimeService")];
    for answer in [call_answered(refusal, vec![], None), call_answered(&[], vec![], Some(refusal))] {
        let error = answer.unwrap_err();
        assert!(error.is_unimplemented(), "{error}");
        assert_eq!(error.to_string(), "UNIMPLEMENTED: unknown service: runtime.v1.RuntimeService");
    }
    let long = "x".repeat(8 << 10).leak();
    let error = call_answered(&[("grpc-status", "2"), ("grpc-message", long)], vec![], None).unwrap_err();
    assert_eq!(error.to_string().len(), "UNKNOWN: ".len() + MAX_MESSAGE);
}

#[test]
fn does_not_take_half_an_answer() {
    let whole = frame(&version());
    for length in 0..whole.len() {
        call_answered(&[], vec![whole.slice(..length)], DONE).expect_err(&format!("{length} bytes"));
    }
    let mut compressed = whole.to_vec();
    compressed[0] = 1;
    call_answered(&[], vec![compressed.into()], DONE).expect_err("it is compressed");
    call_answered(&[], vec![whole.clone()], Some(&[("grpc-status", "5")])).expect_err("it ends with an error");
}

#[test]
fn does_not_read_for_ever() {
    let mut bytes = frame(&version()).to_vec();
    bytes[1..5].copy_from_slice(&(MAX_ANSWER_BYTES as u32 + 1).to_be_bytes());
    let error = call_answered(&[], vec![bytes.into()], DONE).unwrap_err();
    assert!(error.to_string().contains("limit"), "{error}");
}

#[test]
fn notices_what_is_not_http_2() {
    for greeting in ["HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0"]
    {
        let result: Result<VersionResponse, _> = in_runtime(async |ours, mut theirs: UnixStream| {
            theirs.write_all(greeting.as_bytes()).await.unwrap();
            drop(theirs);
            CriClient::open(ours).await?.call("/x", VersionRequest { version: String::new() }).await
        });
        assert!(matches!(result, Err(GrpcError::Connection(_))), "{greeting:?}: {result:?}");
    }
}
