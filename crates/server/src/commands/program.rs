//! A transaction: operations in order and the conditions they stand under.

use std::collections::BTreeSet;

use quorate_calvin::{Access, Call, Footprint, RangeAccess};
use quorate_types::{Blob, KeyRange, Seq, codec};
use zerompk::{FromMessagePack, ToMessagePack};

use super::op::{Op, Touch};
use crate::procedures::REDIS_PROCEDURE;

/// The version of [`Program`]'s encoding, its first byte.
const PROGRAM_VERSION: u8 = 1;

/// A watched key as it stood when `WATCH` read it.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Watch {
    /// The key, in its stored form.
    pub key: Blob,
    /// Its version.
    pub version: u64,
    /// Whether it held a value: an expiry changes this before any write
    /// changes the version.
    pub present: bool,
}

/// What one [`Call`] executes: one command, or everything between `MULTI` and
/// `EXEC`.
#[derive(Clone, PartialEq, Eq, Debug, Default, ToMessagePack, FromMessagePack)]
pub struct Program {
    /// Conditions: unless all hold, nothing is executed.
    pub watches: Seq<Watch>,
    /// The operations, each with one reply.
    pub ops: Seq<Op>,
    /// Keys whose versions are asked for.
    pub versions: Seq<Blob>,
}

/// Why bytes are not a program.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// There is not even a version.
    #[error("a program without a version")]
    Empty,
    /// Written by a newer build. The cluster version gates such programs, so
    /// this one was not meant for this cluster.
    #[error("program format {0} is not known to this build")]
    Version(u8),
    /// The bytes are damaged.
    #[error(transparent)]
    Malformed(#[from] codec::CodecError),
}

impl Program {
    /// A single operation.
    #[must_use]
    pub fn single(op: Op) -> Self {
        Self { ops: vec![op].into(), ..Self::default() }
    }

    /// What `WATCH` reads.
    #[must_use]
    pub fn versions_of(keys: Vec<Blob>) -> Self {
        Self { versions: keys.into(), ..Self::default() }
    }

    /// Everything the program may read or write.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        if let ([op], true) = (&self.ops[..], self.watches.is_empty())
            && let Some(footprint) = single_key_footprint(op)
        {
            return footprint;
        }
        let mut reads: BTreeSet<&Blob> = self.watches.iter().map(|watch| &watch.key).collect();
        reads.extend(&self.versions);
        let mut writes = BTreeSet::new();
        let (mut reads_all, mut clears_all) = (false, false);
        for op in &self.ops {
            op.touches(&mut |touch| match touch {
                Touch::Read(key) => drop(reads.insert(key)),
                Touch::Write(key) => drop(writes.insert(key)),
                Touch::ReadWrite(key) => {
                    reads.insert(key);
                    writes.insert(key);
                }
                Touch::ReadAll => reads_all = true,
                Touch::ClearAll => clears_all = true,
            });
        }
        if reads_all {
            // A count after a write in the same transaction must know whether
            // the key was counted already.
            reads.extend(&writes);
        }
        let access = match (clears_all, reads_all) {
            (true, _) => Some(Access::Write),
            (false, true) => Some(Access::Read),
            (false, false) => None,
        };
        Footprint {
            reads: reads.into_iter().cloned().collect(),
            writes: writes.into_iter().cloned().collect(),
            ranges: access
                .into_iter()
                .map(|access| RangeAccess { range: KeyRange::all(), access })
                .collect(),
        }
    }

    /// Whether any operation asks which keys exist.
    pub(crate) fn reads_all(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::DbSize | Op::Keys { .. }))
    }

    /// The patterns of all `KEYS`, in order.
    pub(crate) fn patterns(&self) -> Vec<&Blob> {
        self.ops
            .iter()
            .filter_map(|op| if let Op::Keys { pattern } = op { Some(pattern) } else { None })
            .collect()
    }

    /// The call that executes the program.
    #[must_use]
    pub fn call(&self) -> Call {
        Call { procedure: REDIS_PROCEDURE, args: self.encode(), footprint: self.footprint() }
    }

    /// The program as a call's arguments: `[version u8][msgpack]`.
    #[must_use]
    pub fn encode(&self) -> Blob {
        let body = codec::encode(self);
        let mut bytes = Vec::with_capacity(1 + body.len());
        bytes.push(PROGRAM_VERSION);
        bytes.extend_from_slice(&body);
        bytes.into()
    }

    /// Reads a call's arguments.
    ///
    /// # Errors
    /// [`ProgramError`].
    pub fn decode(args: &[u8]) -> Result<Self, ProgramError> {
        match args.split_first() {
            None => Err(ProgramError::Empty),
            Some((&PROGRAM_VERSION, body)) => Ok(codec::decode(body)?),
            Some((&version, _)) => Err(ProgramError::Version(version)),
        }
    }
}

/// The footprint of the commands that come by far most often, without sets.
fn single_key_footprint(op: &Op) -> Option<Footprint> {
    let mut footprint = Footprint::default();
    let mut touches = 0;
    let mut ranges = false;
    op.touches(&mut |touch| {
        touches += 1;
        if touches > 1 {
            return;
        }
        match touch {
            Touch::Read(key) => footprint.reads.push(key.clone()),
            Touch::Write(key) => footprint.writes.push(key.clone()),
            Touch::ReadWrite(key) => {
                footprint.reads.push(key.clone());
                footprint.writes.push(key.clone());
            }
            Touch::ReadAll | Touch::ClearAll => ranges = true,
        }
    });
    (touches == 1 && !ranges).then_some(footprint)
}
