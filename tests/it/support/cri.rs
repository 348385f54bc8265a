//! Calls of a node's containerd as the kubelet makes them: CRI v1, over scripts/node cri.
//!
//! Only the few messages that the tests need, written and read field by field; the numbers are those of Kubernetes'
//! `cri-api/pkg/apis/runtime/v1/api.proto`.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use super::{must, node::Done};

/// A protobuf message that is being written.
#[derive(Debug, Default, Clone)]
pub struct Message(Vec<u8>);

impl Message {
    /// One without fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a number, an enumeration's value or, as 0 and 1, a boolean.
    pub fn number(mut self, field: u32, value: u64) -> Self {
        self.varint(u64::from(field) << 3);
        self.varint(value);
        self
    }

    /// Adds a text.
    pub fn text(self, field: u32, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    /// Adds each of these texts to a repeated field.
    pub fn texts(self, field: u32, values: &[&str]) -> Self {
        values.iter().fold(self, |message, value| message.text(field, value))
    }

    /// Adds a message.
    pub fn message(self, field: u32, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// A value of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Number(u64),
    /// A text, bytes or a message.
    Bytes(Vec<u8>),
}

/// An answer: its fields in order.
#[derive(Debug, Clone)]
pub struct Answer(Vec<(u32, Value)>);

impl Answer {
    /// Reads a message.
    #[track_caller]
    pub fn of(bytes: &[u8]) -> Self {
        let mut rest = bytes;
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let tag = varint(&mut rest);
            let field = u32::try_from(tag >> 3).unwrap();
            let value = match tag & 7 {
                0 => Value::Number(varint(&mut rest)),
                2 => {
                    let length = usize::try_from(varint(&mut rest)).unwrap();
                    let (value, after) = rest.split_at(length);
                    rest = after;
                    Value::Bytes(value.to_vec())
                }
                other => panic!("wire type {other} in an answer of containerd"),
            };
            fields.push((field, value));
        }
        Self(fields)
    }

    /// Every value of a field that holds bytes.
    pub fn all(&self, field: u32) -> Vec<&[u8]> {
        let values = self.0.iter().filter(|(number, _)| *number == field);
        values.filter_map(|(_, value)| if let Value::Bytes(bytes) = value { Some(&bytes[..]) } else { None }).collect()
    }

    /// A text; empty if it is not there.
    pub fn text(&self, field: u32) -> String {
        self.all(field).first().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
    }

    /// A number; 0 if it is not there.
    pub fn number(&self, field: u32) -> u64 {
        self.0
            .iter()
            .find_map(
                |(number, value)| {
                    if let (true, Value::Number(value)) = (*number == field, value) { Some(*value) } else { None }
                },
            )
            .unwrap_or(0)
    }

    /// A message; an empty one if it is not there.
    #[track_caller]
    pub fn message(&self, field: u32) -> Self {
        Self::of(self.all(field).first().copied().unwrap_or_default())
    }
}

#[track_caller]
fn varint(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().unwrap();
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("a number of more than ten bytes in an answer of containerd")
}

/// Runs the prepared `scripts/node cri NODE METHOD`; the error is containerd's message.
#[track_caller]
pub fn call(mut command: Command, request: &Message) -> Result<Answer, String> {
    let mut child =
        must("scripts/node cri", command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn());
    must("the request", child.stdin.take().unwrap().write_all(&request.0));
    let output = must("scripts/node cri", child.wait_with_output());
    if output.status.success() {
        return Ok(Answer::of(&output.stdout));
    }
    Err(Done::new(output).err.trim().to_owned())
}
