//! Every node's local copy of the migrations: what the operator reads, rebuilt
//! from the metadata whenever in doubt.

use std::sync::{Arc, Weak};

use quorate_migration::{MigrationRow, TableConfig};
use quorate_types::watch;

use crate::error::NodeError;
use crate::moves::shared;
use crate::node::NodeInner;

/// Keeps the table at what the metadata's journal says, until the node is
/// dropped. A disk that fails here is not trusted with anything else either.
pub(crate) async fn project(node: Weak<NodeInner>, failure: watch::Sender<Option<Arc<NodeError>>>) {
    let Some(mut views) = node.upgrade().map(|inner| inner.directory.views()) else { return };
    loop {
        let Some(inner) = node.upgrade() else { return };
        let view = views.get();
        let rows: Vec<MigrationRow> =
            view.journal().filter_map(|(id, stored)| shared(id, stored).open()).collect();
        if let Err(error) = inner.table.lock().rebuild(rows) {
            let error = NodeError::store(&TableConfig::default().file, &error);
            return failure.send(Some(Arc::new(error)));
        }
        drop(inner);
        if views.changed().await.is_err() {
            return;
        }
    }
}
