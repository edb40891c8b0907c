//! The journal: rows that coordinators write by compare-and-set. The registry
//! does not understand them; it decides who wrote first.

use quorate_types::{Blob, MigrationId, sometimes};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::limits::{JOURNAL_FINISHED_KEPT, JOURNAL_OPEN_MAX, JOURNAL_ROW_BYTES_MAX};
use crate::registry::Registry;
use crate::reply::{Limited, Refusal, Reply};

/// Writes a row if it is at the expected revision.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct JournalWrite {
    /// Which row.
    pub id: MigrationId,
    /// The revision that it must be at; `None` for a row that must not exist.
    pub expected: Option<u64>,
    /// What to write. It should name its writer, so that one whose reply was
    /// lost recognizes its own row in the conflict that its retry gets.
    pub row: Blob,
    /// Whether this is the last write: the row is then final and may be
    /// forgotten once many others have finished after it.
    pub finished: bool,
}

/// A row of the journal.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct JournalRow {
    /// How often it was written, from one.
    pub revision: u64,
    /// What was written last.
    pub row: Blob,
    /// Whether it is final.
    pub finished: bool,
    /// The metadata log index of the last write.
    pub written_at: u64,
}

impl Registry {
    pub(crate) fn write_journal(
        &mut self,
        index: u64,
        write: JournalWrite,
    ) -> Result<Reply, Refusal> {
        if write.row.len() > JOURNAL_ROW_BYTES_MAX {
            return Err(Limited::JournalRowBytes.at(JOURNAL_ROW_BYTES_MAX));
        }
        let current = self.view().journal_row(write.id);
        if current.map(|row| row.revision) != write.expected {
            sometimes!("a checkpoint meets another");
            return Ok(Reply::Conflict { current: current.cloned() });
        }
        if current.is_some_and(|row| row.finished) {
            return Err(Refusal::JournalFinished { id: write.id });
        }
        if current.is_none() && self.view().open_journal_rows() >= JOURNAL_OPEN_MAX {
            return Err(Limited::JournalRows.at(JOURNAL_OPEN_MAX));
        }
        let revision = write.expected.unwrap_or(0) + 1;
        let row =
            JournalRow { revision, row: write.row, finished: write.finished, written_at: index };
        self.put_journal(write.id, row);
        self.forget_finished_rows();
        Ok(Reply::Journalled { revision })
    }

    fn forget_finished_rows(&mut self) {
        while self.view().finished_journal_rows().count() > JOURNAL_FINISHED_KEPT {
            let Some(oldest) = self.view().finished_journal_rows().next() else {
                break;
            };
            self.remove_journal(oldest);
        }
    }
}
