//! A shard's state at one applied index, kept while batches go on.

use std::sync::Arc;

use quorate_types::{Blob, KeyRange, ShardId};

use super::format::SpaceId;
use super::shared::Shared;
use super::state::ShardState;
use super::view::View;
use crate::chunk::Header;
use crate::error::EngineError;
use crate::layer::{Layer, read_page};
use crate::port::{Page, ScanLimit, Space};
use crate::source::Source;

/// Where the rows of one key space are.
struct Rows {
    stored_in: SpaceId,
    /// Newest first.
    layers: Vec<Arc<Layer>>,
}

impl Rows {
    fn of(state: &ShardState, space: Space) -> Self {
        Self { stored_in: state.space(space), layers: state.overlay(space).sealed() }
    }
}

pub(super) struct Capture {
    shared: Arc<Shared>,
    shard: ShardId,
    header: Header,
    data: Rows,
    system: Rows,
    view: Arc<View>,
}

impl Capture {
    /// Of a shard whose overlays have just been sealed.
    pub(super) fn new(
        shared: Arc<Shared>,
        shard: ShardId,
        state: &ShardState,
        view: Arc<View>,
    ) -> Self {
        let header = Header { index: state.record.applied, range: state.record.range.clone() };
        let data = Rows::of(state, Space::Data);
        let system = Rows::of(state, Space::System);
        Self { shared, shard, header, data, system, view }
    }

    fn rows(&self, space: Space) -> &Rows {
        match space {
            Space::Data => &self.data,
            Space::System => &self.system,
        }
    }
}

impl Source for Capture {
    fn header(&self) -> &Header {
        &self.header
    }

    fn row(&self, space: Space, key: &[u8]) -> Result<Option<Blob>, EngineError> {
        let rows = self.rows(space);
        match rows.layers.iter().find_map(|layer| layer.lookup(key)) {
            Some(row) => Ok(row.cloned()),
            None => self
                .view
                .get(rows.stored_in, key)
                .map_err(|fault| self.shared.fault(self.shard, space, fault)),
        }
    }

    fn page(&self, space: Space, range: &KeyRange, limit: ScanLimit) -> Result<Page, EngineError> {
        let rows = self.rows(space);
        self.view
            .rows(rows.stored_in, range)
            .and_then(|floor| read_page(&rows.layers, floor, range, limit))
            .map_err(|fault| self.shared.fault(self.shard, space, fault))
    }
}
