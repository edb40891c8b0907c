//! A node's two doors, the gateway and the admin interface, over its ports.
//! Whoever wires a node calls this.

use std::net::SocketAddr;
use std::sync::Arc;

use quorate_types::watch;
use tokio::net::TcpListener;

use crate::admin::{self, Admin};
use crate::backend::Backend;
use crate::gateway::{Gateway, GatewayLimits, LimitError};
use crate::metrics::Metrics;

/// Where the doors are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServeConfig {
    /// Where clients connect.
    pub gateway: SocketAddr,
    /// Where operators connect.
    pub admin: SocketAddr,
    /// What clients may ask for.
    pub limits: GatewayLimits,
}

/// Why the doors cannot be opened or had to close.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {door}: {source}; is another process using it?")]
    Listen {
        /// What it is for.
        door: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The limits contradict themselves.
    #[error(transparent)]
    Limits(#[from] LimitError),
    /// The admin interface broke.
    #[error("the admin interface failed: {0}")]
    Admin(#[source] std::io::Error),
}

/// Open doors, with nobody behind them yet: connections wait in the operating
/// system's queue until [`Doors::serve`].
#[derive(Debug)]
pub struct Doors {
    gateway: TcpListener,
    admin: TcpListener,
    limits: GatewayLimits,
}

impl Doors {
    /// Listens on both addresses.
    ///
    /// # Errors
    /// [`ServeError::Listen`] or [`ServeError::Limits`].
    pub async fn open(config: &ServeConfig) -> Result<Self, ServeError> {
        config.limits.check()?;
        Ok(Self {
            gateway: listen("the gateway", config.gateway).await?,
            admin: listen("the admin interface", config.admin).await?,
            limits: config.limits,
        })
    }

    /// Where clients connect; differs from the configuration for port 0.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn gateway_address(&self) -> std::io::Result<SocketAddr> {
        self.gateway.local_addr()
    }

    /// Where operators connect.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Serves until `stop` becomes true or its sender is gone.
    ///
    /// # Errors
    /// [`ServeError::Admin`].
    pub async fn serve(
        self,
        backend: Arc<dyn Backend>,
        admin: Arc<dyn Admin>,
        stop: watch::Receiver<bool>,
    ) -> Result<(), ServeError> {
        let metrics = Metrics::default();
        let gateway = Gateway::new(backend, self.limits, metrics.clone());
        let (served, ()) = tokio::join!(
            admin::serve(self.admin, admin, metrics, stop.clone()),
            gateway.serve(self.gateway, stop),
        );
        served.map_err(ServeError::Admin)
    }
}

/// Opens one door.
pub(crate) async fn listen(
    door: &'static str,
    address: SocketAddr,
) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { door, address, source })
}
