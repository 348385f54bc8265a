//! What an agent says of itself, wherever it runs: over HTTP, and in its log.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{pause_after, pki::Ca};

/// An agent's HTTP server and log.
pub struct AgentHttp {
    connect: Box<dyn Fn() -> io::Result<TcpStream> + Send + Sync>,
    log: Box<dyn Fn() -> String + Send + Sync>,
}

impl AgentHttp {
    /// An agent, by a function that connects to it and one that reads its log.
    pub fn new(
        connect: impl Fn() -> io::Result<TcpStream> + Send + Sync + 'static,
        log: impl Fn() -> String + Send + Sync + 'static,
    ) -> Self {
        Self { connect: Box::new(connect), log: Box::new(log) }
    }

    /// GET: status and body; None if nobody answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        self.get_with(path, "")
    }

    /// GET with more header lines, each ending in CRLF.
    pub fn get_with(&self, path: &str, headers: &str) -> Option<(u16, String)> {
        let mut stream = (self.connect)().ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// The last report.
    pub fn status(&self) -> Option<Value> {
        self.get("/status").filter(|(code, _)| *code == 200).and_then(|(_, body)| serde_json::from_str(&body).ok())
    }

    /// A value of `/metrics`: the first sample whose line begins with this.
    pub fn metric(&self, start: &str) -> Option<f64> {
        let (_, body) = self.get("/metrics")?;
        body.lines().find(|line| line.starts_with(start))?.rsplit(' ').next()?.parse().ok()
    }

    /// Waits until a report satisfies a condition.
    #[track_caller]
    pub fn wait_status(&self, what: &str, limit: Duration, holds: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + limit;
        loop {
            let began = Instant::now();
            let status = self.status();
            if let Some(status) = status.as_ref().filter(|status| holds(status)) {
                return status.clone();
            }
            let late = Instant::now() > end;
            assert!(!late, "gave up waiting for {what}; last report {status:#?}; log:\n{}", self.log_text());
            pause_after(began);
        }
    }

    /// Waits until the agent says that it has converged on a set that has these CAs and only these.
    #[track_caller]
    pub fn wait_converged(&self, cas: &[&Ca], limit: Duration) -> Value {
        let mut wanted: Vec<String> = cas.iter().map(|ca| ca.sha256()).collect();
        wanted.sort();
        self.wait_status(&format!("{} anchors", wanted.len()), limit, |status| {
            let mut has: Vec<&str> =
                status["anchors"].as_array().into_iter().flatten().filter_map(|row| row["sha256"].as_str()).collect();
            has.sort_unstable();
            status["converged"] == true && has == wanted
        })
    }

    /// The text of its log.
    pub fn log_text(&self) -> String {
        (self.log)()
    }
}
