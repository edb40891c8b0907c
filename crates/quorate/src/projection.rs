//! Every node's local copy of the migrations: what the executor and the
//! operator read, rebuilt from the metadata whenever in doubt.

use std::sync::Weak;

use quorate_migration::MigrationStateTable;

use crate::moves::shared;
use crate::node::NodeInner;

/// Keeps the table at what the metadata's journal says, until the node is
/// dropped.
pub(crate) async fn project(node: Weak<NodeInner>, mut table: MigrationStateTable) {
    let Some(mut views) = node.upgrade().map(|inner| inner.directory.views()) else { return };
    loop {
        let view = views.get();
        let rows = view.open_journal().filter_map(|(id, stored)| shared(id, stored).open());
        if let Err(error) = table.project(rows.collect()) {
            tracing::error!(%error, "the local table of migrations cannot be kept");
            return;
        }
        if views.changed().await.is_err() || node.strong_count() == 0 {
            return;
        }
    }
}
