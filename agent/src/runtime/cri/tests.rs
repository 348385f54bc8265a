//! What is concluded from a runtime's answers. The runtimes here are simulated: real ones of three versions are in tests/it, but none
//! that is old enough to have only `v1alpha2`.

use std::{convert::Infallible, thread};

use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Incoming},
    header::{HeaderName, HeaderValue},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixListener;

use super::*;

const SOCKET: &str = "/cri.sock";

/// Serves one connection; `answers` are messages by method, anything else is unimplemented.
fn look_at_simulated(answers: Vec<(&'static str, Vec<u8>)>) -> Result<CriStatus, CriError> {
    let dir = tempfile::tempdir().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(dir.path().join("cri.sock")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let serve = async move {
        let (stream, _) = UnixListener::from_std(listener).unwrap().accept().await.unwrap();
        let service = service_fn(move |request: Request<Incoming>| {
            let path = request.uri().path().to_owned();
            let answer = answers.iter().find(|(method, _)| path == *method).map(|(_, message)| message.clone());
            async move {
                request.into_body().collect().await.unwrap();
                let Some(message) = answer else {
                    let refusal =
                        Response::builder().header("grpc-status", "12").header("grpc-message", "unknown service");
                    return Ok::<_, Infallible>(refusal.body(Full::default().boxed()).unwrap());
                };
                let length = u32::try_from(message.len()).unwrap().to_be_bytes();
                let body = Full::new(Bytes::from([&[0], &length[..], &message].concat()));
                let done =
                    HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
                Ok(Response::new(body.with_trailers(async { Some(Ok(done)) }).boxed()))
            }
        });
        let server = http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(stream), service).await; // the client may close the connection
    };
    let server = thread::spawn(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(serve);
    });
    let result = look(&HostRoot::open(dir.path()).unwrap(), SOCKET, Duration::from_secs(60));
    server.join().unwrap();
    result
}

fn version() -> Vec<u8> {
    m::VersionResponse { runtime_name: "cri-o".into(), runtime_version: "1.18.4".into() }.encode_to_vec()
}

fn conditions(conditions: &[(&str, bool, &str, &str)]) -> Vec<u8> {
    let conditions = conditions.iter().map(|&(kind, status, reason, message)| m::RuntimeCondition {
        kind: kind.into(),
        status,
        reason: reason.into(),
        message: message.into(),
    });
    m::StatusResponse { status: Some(m::RuntimeStatus { conditions: conditions.collect() }) }.encode_to_vec()
}

#[test]
fn speaks_v1alpha2_with_a_simulated_old_runtime() {
    let running =
        m::ListContainersResponse { containers: vec![m::Container { id: "c1".into(), ..m::Container::default() }] };
    let status = look_at_simulated(vec![
        ("/runtime.v1alpha2.RuntimeService/Version", version()),
        (
            "/runtime.v1alpha2.RuntimeService/Status",
            conditions(&[("RuntimeReady", true, "", ""), ("NetworkReady", false, "NetworkPluginNotReady", "no cni")]),
        ),
        ("/runtime.v1alpha2.ImageService/ImageFsInfo", Vec::new()),
        ("/runtime.v1alpha2.RuntimeService/ListContainers", running.encode_to_vec()),
    ]);
    let expected = CriStatus {
        runtime: "cri-o".into(),
        version: "1.18.4".into(),
        runtime_ready: Ok(()),
        network_ready: Err("NetworkPluginNotReady: no cni".into()),
        image_service: Ok(()),
        running: BTreeSet::from(["c1".to_owned()]),
    };
    assert_eq!(status.unwrap(), expected);
}

#[test]
fn a_simulated_runtime_without_an_image_service_or_conditions_says_so() {
    let status = look_at_simulated(vec![
        ("/runtime.v1.RuntimeService/Version", version()),
        ("/runtime.v1.RuntimeService/Status", Vec::new()),
        ("/runtime.v1.RuntimeService/ListContainers", Vec::new()),
    ]);
    let status = status.unwrap();
    assert_eq!(status.image_service, Err("UNIMPLEMENTED: unknown service".into()));
    assert_eq!(status.runtime_ready, Err("the runtime does not say".into()));
}

#[test]
fn a_simulated_runtime_without_cri_is_sick() {
    let error = look_at_simulated(Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "the runtime at /cri.sock does not serve CRI: its CRI plugin is not loaded");
    assert!(error.next().contains("log"));
}

#[test]
fn tells_why_a_condition_is_false() {
    let condition_of = |reason: &str, message: &str| {
        let one =
            m::RuntimeCondition { kind: "X".into(), status: false, reason: reason.into(), message: message.into() };
        condition(&[one], "X").unwrap_err()
    };
    assert_eq!(condition_of("Reason", "words"), "Reason: words");
    assert_eq!(condition_of("Reason", ""), "Reason");
    assert_eq!(condition_of("", "words"), "words");
    assert_eq!(condition(&[], "X").unwrap_err(), "the runtime does not say");
}
