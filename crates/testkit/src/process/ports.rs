//! Ports that nobody uses.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// The ports to choose from: registered ones, below those that systems hand
/// out by themselves to whoever asks for any.
const PORT_FIRST: u32 = 10_000;
const PORT_COUNT: u32 = 22_000;

/// How far apart two processes with neighbouring ids begin to look.
const PORTS_PER_PROCESS: u32 = 41;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Free loopback ports, kept by listening on them until they are released to
/// the process that is to have them. This process hands out no port twice
/// before it has tried all, and others like it look elsewhere first.
#[derive(Debug)]
pub struct FreePorts {
    addresses: Vec<SocketAddr>,
    listeners: Vec<TcpListener>,
}

/// Finds `count` free ports of 127.0.0.1.
///
/// # Errors
/// `AddrNotAvailable` when there are not so many.
pub fn free_ports(count: usize) -> io::Result<FreePorts> {
    let mut ports = FreePorts { addresses: Vec::new(), listeners: Vec::new() };
    let first = std::process::id().wrapping_mul(PORTS_PER_PROCESS);
    for _ in 0..PORT_COUNT {
        if ports.addresses.len() == count {
            return Ok(ports);
        }
        let at = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORT_COUNT;
        let Ok(port) = u16::try_from(PORT_FIRST + at) else { continue };
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            ports.addresses.push(listener.local_addr()?);
            ports.listeners.push(listener);
        }
    }
    Err(io::ErrorKind::AddrNotAvailable.into())
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
