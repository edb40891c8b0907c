//! When a process is asked to end.

use std::io::Read;

use quorate_types::{runtime, watch};
use tokio::signal::unix::{SignalKind, signal};

/// Becomes true on SIGTERM or SIGINT, and, `with_parent`, when standard input
/// ends. A second signal ends the process at once, as a crash would.
///
/// # Errors
/// When the operating system refuses the handlers or a thread.
pub fn stop_signal(with_parent: bool) -> std::io::Result<watch::Receiver<bool>> {
    let (sender, receiver) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = sender.clone();
    drop(runtime::spawn(async move {
        let mut is_first = true;
        loop {
            let code = tokio::select! {
                biased;
                _ = terminate.recv() => 143,
                _ = interrupt.recv() => 130,
            };
            if !std::mem::take(&mut is_first) {
                std::process::exit(code);
            }
            stop.send(true);
        }
    }));
    if with_parent {
        runtime::thread("parent", async move {
            wait_for_end_of_input();
            sender.send(true);
        })?;
    }
    Ok(receiver)
}

/// Blocks; the parent never writes anything, it only holds the pipe open.
fn wait_for_end_of_input() {
    let mut ignored = [0_u8; 64];
    let mut input = std::io::stdin().lock();
    while matches!(input.read(&mut ignored), Ok(1..)) {}
}
