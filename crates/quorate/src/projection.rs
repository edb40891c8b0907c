//! Every node's local copy of the migrations: what the executor and the
//! operator read, rebuilt from the metadata whenever in doubt.

use std::sync::{Arc, Weak};

use quorate_migration::{MigrationStateTable, TableConfig};
use quorate_types::watch;

use crate::error::NodeError;
use crate::moves::shared;
use crate::node::NodeInner;

/// Keeps the table at what the metadata's journal says, until the node is
/// dropped. A disk that fails here is not trusted with anything else either.
pub(crate) async fn project(
    node: Weak<NodeInner>,
    mut table: MigrationStateTable,
    failure: watch::Sender<Option<Arc<NodeError>>>,
) {
    let Some(mut views) = node.upgrade().map(|inner| inner.directory.views()) else { return };
    loop {
        let view = views.get();
        let rows = view.open_journal().filter_map(|(id, stored)| shared(id, stored).open());
        if let Err(error) = table.project(rows.collect()) {
            let error = NodeError::store(&TableConfig::default().file, &error);
            return failure.send(Some(Arc::new(error)));
        }
        if views.changed().await.is_err() || node.strong_count() == 0 {
            return;
        }
    }
}
