//! The conversation with servers that behave, that say no in each of the two ways, and that talk nonsense.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use http_body_util::BodyExt;
use hyper::{
    body::{Body, Frame},
    server,
    service::service_fn,
};
use tokio::io::AsyncWriteExt;

use super::*;
use crate::runtime::cri::messages::{Container, ListContainersResponse, VersionRequest, VersionResponse};

fn version() -> VersionResponse {
    VersionResponse { runtime_name: "containerd".into(), runtime_version: "1.7.24".into() }
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
    let service = service_fn(move |request: Request<Incoming>| {
        let (head, pieces, trailers) = (head.clone(), pieces.clone(), trailers.clone());
        async move {
            assert_eq!(request.uri().path(), "/runtime.v1.RuntimeService/Version");
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
        let mut channel = Channel::open(ours).await?;
        channel.call("/runtime.v1.RuntimeService/Version", &VersionRequest { version: String::new() }).await
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
        &[("grpc-status", "12"), ("grpc-message", "unknown service runtime.v1.RuntimeService")];
    for answer in [call_answered(refusal, vec![], None), call_answered(&[], vec![], Some(refusal))] {
        let error = answer.unwrap_err();
        assert!(error.is_unimplemented(), "{error}");
        assert_eq!(error.to_string(), "UNIMPLEMENTED: unknown service runtime.v1.RuntimeService");
    }
    let error = call_answered(&[], vec![frame(&version())], Some(&[("grpc-status", "99")])).unwrap_err();
    assert_eq!(error.to_string(), "code 99: ");
}

#[test]
fn does_not_take_half_an_answer() {
    let whole = frame(&version());
    for length in 0..whole.len() {
        let error = call_answered(&[], vec![whole.slice(..length)], DONE).unwrap_err();
        assert!(matches!(error, GrpcError::Malformed(_)), "{length} bytes: {error}");
    }
    let two = vec![whole.clone(), whole.clone()];
    assert!(matches!(call_answered(&[], two, DONE), Err(GrpcError::Malformed(_))));
    assert!(matches!(call_answered(&[], vec![whole.clone()], None), Err(GrpcError::Malformed(_))), "no status");
    let mut compressed = whole.to_vec();
    compressed[0] = 1;
    assert!(matches!(call_answered(&[], vec![compressed.into()], DONE), Err(GrpcError::Malformed(_))));
    let no_number: Option<&[(&str, &str)]> = Some(&[("grpc-status", "fine")]);
    assert!(matches!(call_answered(&[], vec![whole], no_number), Err(GrpcError::Malformed(_))));
}

#[test]
fn does_not_read_for_ever() {
    let piece = Bytes::from(vec![0; 1 << 20]);
    let error = call_answered(&[], vec![piece; 40], DONE).unwrap_err();
    assert_eq!(error.to_string(), "an answer that is not gRPC's: more than 16 MiB");
}

#[test]
fn notices_what_is_not_http_2() {
    for greeting in ["HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "", "\0\0\0\0\0\0\0\0\0\0\0\0\0\0"]
    {
        let result: Result<VersionResponse, _> = in_runtime(async |ours, mut theirs: UnixStream| {
            theirs.write_all(greeting.as_bytes()).await.unwrap();
            drop(theirs);
            Channel::open(ours).await?.call("/x", &VersionRequest { version: String::new() }).await
        });
        assert!(matches!(result, Err(GrpcError::Http(_))), "{greeting:?}: {result:?}");
    }
}

#[test]
fn reads_messages_of_percent_signs() {
    for (text, meaning) in [
        ("", ""),
        ("a plain one", "a plain one"),
        ("%22quoted%22%0a", "\"quoted\"\n"),
        ("100% of %zz and %4", "100% of %zz and %4"),
        ("%e2%82%ac", "€"),
        ("%e2%82", "\u{fffd}"),
        ("%", "%"),
    ] {
        assert_eq!(plain(text.as_bytes()), meaning, "{text}");
    }
    assert_eq!(plain(&[b'x'; 1 << 20]).len(), MAX_TEXT);
}

/// Damage at any byte is an error or another answer, never a panic.
#[test]
fn survives_damage() {
    let answer = ListContainersResponse { containers: vec![Container { id: "0123456789abcdef".into() }; 3] };
    let whole = frame(&answer).to_vec();
    for at in 0..whole.len() {
        for value in 0..=u8::MAX {
            let mut bytes = whole.clone();
            bytes[at] = value;
            if let Ok(message) = unframe(bytes.into()) {
                let _ = ListContainersResponse::decode(message);
            }
        }
    }
}
