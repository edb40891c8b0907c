//! One operation after the other.

use std::collections::BTreeSet;

use quorate_calvin::{Inputs, Outcome};
use quorate_types::Blob;

use super::digest::{Collector, Digest, KEYS_MATCHES_MAX};
use super::redis::refuse;
use super::verdict::Verdict;
use super::view::{Value, View};
use crate::commands::{
    Condition, ExpireCondition, Expiry, Op, Program, SetReply, TimeUnit, glob_matches,
    parse_integer, unpartition_key,
};
use crate::resp::Reply;

/// What the replies to one program may add up to: a key that is asked for a
/// thousand times is read once but answered a thousand times.
const REPLIES_BYTES_MAX: usize = 6 << 20;
const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
const OVERFLOW: &str = "ERR increment or decrement would overflow";
const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";

/// Executes all operations. One that fails answers its error and changes
/// nothing; the others take effect, as in Redis.
pub(super) fn execute(program: &Program, inputs: &Inputs, time_millis: u64) -> Outcome {
    let mut run = Run { view: View::new(inputs, time_millis), keys_asked: 0 };
    let mut replies = Vec::with_capacity(program.ops.len());
    let mut bytes = 0;
    for op in &program.ops {
        let reply = run.execute(op);
        bytes += reply.payload_bytes();
        if bytes > REPLIES_BYTES_MAX {
            return refuse(&format!(
                "ERR the reply would be larger than {REPLIES_BYTES_MAX} bytes; nothing was executed"
            ));
        }
        replies.push(reply);
    }
    run.view.into_outcome(Verdict::Replies(replies.into()).encode())
}

struct Run<'a> {
    view: View<'a>,
    /// How many `KEYS` were executed: their matches stand in that order.
    keys_asked: usize,
}

impl Run<'_> {
    fn execute(&mut self, op: &Op) -> Reply {
        match op {
            Op::Get { key } => Reply::bulk_or_null(self.bytes(key)),
            Op::Set { key, value, condition, expiry, reply } => {
                self.set(key, value, *condition, *expiry, *reply)
            }
            Op::GetDel { key } => {
                let value = self.bytes(key);
                self.view.remove(key);
                Reply::bulk_or_null(value)
            }
            Op::MGet { keys } => {
                Reply::array(keys.iter().map(|key| Reply::bulk_or_null(self.bytes(key))))
            }
            Op::MSet { pairs, if_missing } => self.set_all(pairs, *if_missing),
            Op::Del { keys } => {
                Reply::count(keys.iter().filter(|key| self.view.remove(key)).count())
            }
            Op::Exists { keys } => {
                Reply::count(keys.iter().filter(|key| self.view.exists(key)).count())
            }
            Op::IncrBy { key, by } => self.add(key, *by),
            Op::Append { key, value, value_bytes_max } => self.append(key, value, *value_bytes_max),
            Op::StrLen { key } => Reply::count(self.bytes(key).map_or(0, |bytes| bytes.len())),
            Op::Type { key } => {
                Reply::simple(if self.view.exists(key) { "string" } else { "none" })
            }
            Op::DbSize => self.count(),
            Op::Keys { pattern } => self.keys(pattern),
            Op::FlushAll => {
                self.view.clear();
                Reply::ok()
            }
            Op::Ttl { key, unit, absolute } => self.time_to_live(key, *unit, *absolute),
            Op::Expire { key, expiry, condition } => self.expire(key, *expiry, *condition),
            Op::Persist { key } => self.persist(key),
        }
    }

    fn bytes(&self, key: &Blob) -> Option<Blob> {
        self.view.get(key).map(|value| value.bytes)
    }

    fn set(
        &mut self,
        key: &Blob,
        value: &Blob,
        condition: Condition,
        expiry: Expiry,
        reply: SetReply,
    ) -> Reply {
        let holds = match condition {
            Condition::Always => true,
            Condition::IfMissing => !self.view.exists(key),
            Condition::IfExists => self.view.exists(key),
        };
        let previous = self.view.get(key);
        if holds {
            let kept = previous.as_ref().and_then(|value| value.expires_millis);
            let expires_millis = self.deadline(expiry, kept);
            self.view.put(key, value.clone(), expires_millis);
        }
        match reply {
            SetReply::Ok if holds => Reply::ok(),
            SetReply::Ok => Reply::Null,
            SetReply::Previous => Reply::bulk_or_null(previous.map(|value| value.bytes)),
            SetReply::Flag => flag(holds),
        }
    }

    /// The point in time that an expiry means. What lies in the past is kept
    /// as the transaction's time: expired.
    fn deadline(&self, expiry: Expiry, kept: Option<u64>) -> Option<u64> {
        let now = self.view.time_millis();
        match expiry {
            Expiry::Never => None,
            Expiry::Keep => kept,
            Expiry::AfterMillis(after) => {
                Some(now.saturating_add(u64::try_from(after).unwrap_or(0)))
            }
            Expiry::AtMillis(at) => Some(u64::try_from(at).unwrap_or(0).max(now)),
        }
    }

    fn set_all(&mut self, pairs: &[(Blob, Blob)], if_missing: bool) -> Reply {
        if if_missing && pairs.iter().any(|(key, _)| self.view.exists(key)) {
            return flag(false);
        }
        for (key, value) in pairs {
            self.view.put(key, value.clone(), None);
        }
        if if_missing { flag(true) } else { Reply::ok() }
    }

    fn add(&mut self, key: &Blob, by: i64) -> Reply {
        let current = self.view.get(key);
        let number = match &current {
            None => Some(0),
            Some(value) => parse_integer(&value.bytes),
        };
        let Some(number) = number else {
            return Reply::error(NOT_AN_INTEGER);
        };
        let Some(sum) = number.checked_add(by) else {
            return Reply::error(OVERFLOW);
        };
        let expires_millis = current.and_then(|value| value.expires_millis);
        self.view.put(key, sum.to_string().as_str().into(), expires_millis);
        Reply::Integer(sum)
    }

    fn append(&mut self, key: &Blob, tail: &Blob, value_bytes_max: u64) -> Reply {
        let (head, expires_millis) = match self.view.get(key) {
            Some(Value { bytes, expires_millis }) => (bytes, expires_millis),
            None => (Blob::new(), None),
        };
        let length = head.len() + tail.len();
        if u64::try_from(length).is_ok_and(|length| length > value_bytes_max) {
            return Reply::error(TOO_LONG);
        }
        let mut joined = Vec::with_capacity(length);
        joined.extend_from_slice(&head);
        joined.extend_from_slice(tail);
        self.view.put(key, joined.into(), expires_millis);
        Reply::count(length)
    }

    fn count(&self) -> Reply {
        let mut count: i128 = match self.view.cleared() {
            true => 0,
            false => self.digests().map(|digest| i128::from(digest.count)).sum(),
        };
        for (key, exists_now) in self.view.written() {
            let counted = !self.view.cleared() && self.view.inputs().value(key).is_some();
            count += i128::from(exists_now) - i128::from(counted);
        }
        Reply::Integer(i64::try_from(count).unwrap_or(i64::MAX))
    }

    fn keys(&mut self, pattern: &Blob) -> Reply {
        let index = self.keys_asked;
        self.keys_asked += 1;
        let mut found = BTreeSet::new();
        let mut truncated = false;
        if !self.view.cleared() {
            for digest in self.digests() {
                let matches = digest.matches.0.into_iter().nth(index).unwrap_or_default();
                truncated |= matches.truncated;
                found.extend(matches.keys);
            }
        }
        for (key, exists_now) in self.view.written() {
            match exists_now && glob_matches(pattern, &unpartition_key(key)) {
                true => found.insert(key.clone()),
                false => found.remove(key),
            };
        }
        let mut collector = Collector::default();
        found.iter().for_each(|key| collector.take(key));
        if truncated || collector.matches.truncated {
            return Reply::error(format!(
                "ERR more than {KEYS_MATCHES_MAX} keys match or their names are too long; use SCAN"
            ).as_str());
        }
        Reply::array(collector.matches.keys.iter().map(|key| Reply::Bulk(unpartition_key(key))))
    }

    fn digests(&self) -> impl Iterator<Item = Digest> {
        self.view.inputs().scans.iter().map(|scan| Digest::decode(scan))
    }

    fn time_to_live(&self, key: &Blob, unit: TimeUnit, absolute: bool) -> Reply {
        const MISSING: i64 = -2;
        const NEVER: i64 = -1;
        let Some(value) = self.view.get(key) else {
            return Reply::Integer(MISSING);
        };
        let Some(expires) = value.expires_millis else {
            return Reply::Integer(NEVER);
        };
        let from = if absolute { 0 } else { self.view.time_millis() };
        let millis = i64::try_from(expires.saturating_sub(from)).unwrap_or(i64::MAX);
        Reply::Integer(millis.saturating_add(unit.millis() / 2) / unit.millis())
    }

    fn expire(&mut self, key: &Blob, expiry: Expiry, condition: ExpireCondition) -> Reply {
        let Some(value) = self.view.get(key) else {
            return flag(false);
        };
        let deadline = self.deadline(expiry, value.expires_millis);
        let (old, new) = (value.expires_millis, deadline.unwrap_or(u64::MAX));
        let holds = match condition {
            ExpireCondition::Always => true,
            ExpireCondition::IfNone => old.is_none(),
            ExpireCondition::IfSome => old.is_some(),
            ExpireCondition::IfLater => old.is_some_and(|old| new > old),
            ExpireCondition::IfEarlier => old.is_none_or(|old| new < old),
            ExpireCondition::IfSomeAndEarlier => old.is_some_and(|old| new < old),
        };
        if holds {
            self.view.put(key, value.bytes, deadline);
        }
        flag(holds)
    }

    fn persist(&mut self, key: &Blob) -> Reply {
        match self.view.get(key) {
            Some(Value { bytes, expires_millis: Some(_) }) => {
                self.view.put(key, bytes, None);
                flag(true)
            }
            _ => flag(false),
        }
    }
}

fn flag(set: bool) -> Reply {
    Reply::Integer(i64::from(set))
}
