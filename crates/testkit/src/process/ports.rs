//! Ports that nobody uses.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Free loopback ports, kept by listening on them until they are released to
/// the process that is to have them. Between the two moments another process
/// may, rarely, be faster: start it again with other ports then.
#[derive(Debug)]
pub struct FreePorts {
    addresses: Vec<SocketAddr>,
    listeners: Vec<TcpListener>,
}

/// Finds `count` free ports of 127.0.0.1.
///
/// # Errors
/// When there are not so many.
pub fn free_ports(count: usize) -> io::Result<FreePorts> {
    let mut ports = FreePorts { addresses: Vec::new(), listeners: Vec::new() };
    for _ in 0..count {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        ports.addresses.push(listener.local_addr()?);
        ports.listeners.push(listener);
    }
    Ok(ports)
}

impl FreePorts {
    /// The addresses, all different.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Gives the ports free.
    #[must_use]
    pub fn release(self) -> Vec<SocketAddr> {
        self.addresses
    }
}
