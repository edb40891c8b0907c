//! Histories as JSON lines in the shape that Jepsen writes:
//! `{"index":0,"type":"invoke","process":0,"time":12,"f":"txn","value":[["append","x",1],["r","y",null]]}`,
//! with times in nanoseconds.

use std::io::{BufRead, Read, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Datum, Event, EventKind, History, Key, MicroOp, ProcessId};
use crate::TestkitError;

/// A longer line is not an operation but an accident.
pub const LINE_BYTES_MAX: u64 = 64 << 20;

/// More lines than this do not fit in memory as operations.
pub const LINES_MAX: usize = 16_000_000;

impl History {
    /// Writes one line per event.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn write_json(&self, out: &mut impl Write) -> Result<(), TestkitError> {
        for (index, event) in self.events.iter().enumerate() {
            let mut line = json!({
                "index": index,
                "type": event.kind,
                "process": event.process.0,
                "time": u64::try_from(event.time.as_nanos()).unwrap_or(u64::MAX),
                "f": event.f,
                "value": event.txn.iter().map(micro_op_to_json).collect::<Vec<_>>(),
            });
            if let (Some(error), Some(fields)) = (&event.error, line.as_object_mut()) {
                fields.insert("error".to_owned(), json!(error));
            }
            writeln!(out, "{line}")?;
        }
        Ok(())
    }

    /// Reads what [`History::write_json`] or Jepsen wrote. Blank lines and
    /// those whose process is not a number (the nemesis) are passed over.
    ///
    /// # Errors
    /// `HistoryFile` for a line that is not an event, is too long, or one too
    /// many.
    pub fn read_json(input: &mut impl BufRead) -> Result<Self, TestkitError> {
        let mut events = Vec::new();
        let mut bytes = Vec::new();
        for line in 1.. {
            let failed = |reason: String| TestkitError::HistoryFile { line, reason };
            bytes.clear();
            let read = input.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut bytes)?;
            if read == 0 {
                break;
            }
            if read as u64 > LINE_BYTES_MAX || line > LINES_MAX {
                return Err(failed("beyond the limits of a history file".to_owned()));
            }
            if bytes.trim_ascii().is_empty() {
                continue;
            }
            let value =
                serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
            events.extend(event_from_json(&value).map_err(failed)?);
        }
        Ok(Self { events })
    }
}

fn micro_op_to_json(step: &MicroOp) -> Value {
    match step {
        MicroOp::Append { key, value } => json!(["append", key.as_str(), value]),
        MicroOp::Read { key, seen } => json!(["r", key.as_str(), datum_to_json(seen.as_ref())]),
        MicroOp::Write { key, value } => json!(["w", key.as_str(), value]),
        MicroOp::CompareAndSet { key, expected, new } => {
            json!(["cas", key.as_str(), [expected, new]])
        }
        MicroOp::Differs { key, unexpected } => json!(["ne", key.as_str(), unexpected]),
        MicroOp::Add { key, delta, request: None } => json!(["add", key.as_str(), delta]),
        MicroOp::Add { key, delta, request: Some(request) } => {
            json!(["add", key.as_str(), delta, request.as_str()])
        }
        MicroOp::Transfer { from, to, amount } => {
            json!(["transfer", from.as_str(), to.as_str(), amount])
        }
    }
}

fn datum_to_json(datum: Option<&Datum>) -> Value {
    match datum {
        None | Some(Datum::Nil) => Value::Null,
        Some(Datum::Int(value)) => json!(value),
        Some(Datum::List(values)) => json!(values),
    }
}

/// `None` for an event that is not a client's.
fn event_from_json(line: &Value) -> Result<Option<Event>, String> {
    let field = |name: &str| line.get(name).ok_or_else(|| format!("has no `{name}`"));
    let Some(process) = field("process")?.as_u64() else { return Ok(None) };
    let kind: EventKind = serde_json::from_value(field("type")?.clone())
        .map_err(|_| "`type` is none of invoke, ok, fail, info".to_owned())?;
    let nanos = field("time")?.as_u64().ok_or("`time` is not a number of nanoseconds")?;
    let f = field("f")?.as_str().ok_or("`f` is not text")?.to_owned();
    let steps = match field("value")? {
        Value::Null => &Vec::new(),
        value => value.as_array().ok_or("`value` is not a list of micro-operations")?,
    };
    let txn = steps
        .iter()
        .map(|step| {
            micro_op_from_json(step, kind).ok_or_else(|| format!("unknown micro-operation {step}"))
        })
        .collect::<Result<_, _>>()?;
    Ok(Some(Event {
        kind,
        process: ProcessId(process),
        time: Duration::from_nanos(nanos),
        f: f.into(),
        txn,
        error: line.get("error").map(|error| match error {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }),
    }))
}

fn micro_op_from_json(step: &Value, kind: EventKind) -> Option<MicroOp> {
    let step = step.as_array()?;
    let key = |at: usize| key_from_json(step.get(at)?);
    let number = |at: usize| step.get(at)?.as_i64();
    Some(match step.first()?.as_str()? {
        "append" => MicroOp::Append { key: key(1)?, value: number(2)? },
        "r" => MicroOp::Read { key: key(1)?, seen: seen_from_json(step.get(2)?, kind)? },
        "w" => MicroOp::Write { key: key(1)?, value: number(2)? },
        "cas" => {
            let (expected, new) = (step.get(2)?.get(0)?.as_i64()?, step.get(2)?.get(1)?.as_i64()?);
            MicroOp::CompareAndSet { key: key(1)?, expected, new }
        }
        "ne" => MicroOp::Differs { key: key(1)?, unexpected: number(2)? },
        "add" => MicroOp::Add {
            key: key(1)?,
            delta: number(2)?,
            request: step.get(3).and_then(key_from_json),
        },
        "transfer" => MicroOp::Transfer { from: key(1)?, to: key(2)?, amount: number(3)? },
        _ => return None,
    })
}

fn key_from_json(value: &Value) -> Option<Key> {
    match value {
        Value::String(text) => Some(Key::from(text.as_str())),
        Value::Number(number) => Some(Key::from(number.to_string())),
        _ => None,
    }
}

/// A null means that nothing stands there only where the read was answered.
/// The outer option is a failure to understand.
fn seen_from_json(value: &Value, kind: EventKind) -> Option<Option<Datum>> {
    Some(match value {
        Value::Null => (kind == EventKind::Ok).then_some(Datum::Nil),
        Value::Number(number) => Some(Datum::Int(number.as_i64()?)),
        Value::Array(values) => {
            Some(Datum::List(values.iter().map(Value::as_i64).collect::<Option<_>>()?))
        }
        _ => return None,
    })
}
