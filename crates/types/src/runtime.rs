//! Tasks, threads and chance, ambient to a node.
//!
//! Every task of a node is spawned here. In production that is a plain tokio
//! task; inside the scope of a [`Runtime`] (a simulated node) the task joins
//! that node: it is aborted when the node crashes, draws its chance from the
//! node's seed, and what would be an OS thread becomes one more task. tokio's
//! own timers, `mpsc`, `oneshot` and `Notify` replay exactly on a paused
//! single-threaded runtime and are used directly; its `watch` and unbiased
//! `select!` do not and are banned ([`crate::watch`] stands in).

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinHandle};

use crate::fault::Canary;

/// A boxed future that may move between threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// The surroundings of a simulated node's tasks.
pub trait Runtime: Send + Sync + 'static {
    /// Takes charge of a task that was just spawned.
    fn spawned(&self, task: AbortHandle);

    /// The next 64 bits of the node's seeded chance.
    fn random(&self) -> u64;

    /// The virtual time a disk sync takes now.
    fn sync_delay(&self) -> Duration;

    /// Ready while the node may run. While it is paused: pending, and the task
    /// is woken when the node goes on.
    fn poll_awake(&self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Ready(())
    }

    /// Whether the rare branch at `site` shall be taken now
    /// ([`buggify!`](crate::buggify)).
    fn buggify(&self, site: &'static str) -> bool {
        let _ = site;
        false
    }

    /// Takes note that `site` was reached ([`sometimes!`](crate::sometimes)).
    fn reached(&self, site: &'static str) {
        let _ = site;
    }

    /// The bug that is planted, if any ([`planted!`](crate::planted)).
    fn canary(&self) -> Option<Canary> {
        None
    }
}

tokio::task_local! {
    static AMBIENT: Arc<dyn Runtime>;
}

/// Runs `future` as part of the node that `runtime` stands for; everything it
/// spawns belongs to that node too. While the node is paused it stands still.
pub fn scope<F: Future>(runtime: Arc<dyn Runtime>, future: F) -> impl Future<Output = F::Output> {
    let future = Box::pin(future);
    AMBIENT.scope(Arc::clone(&runtime), Paced { runtime, future })
}

/// A future of a simulated node, which is polled while the node may run.
struct Paced<F> {
    runtime: Arc<dyn Runtime>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Paced<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        ready!(self.runtime.poll_awake(cx));
        self.future.as_mut().poll(cx)
    }
}

pub(crate) fn ambient() -> Option<Arc<dyn Runtime>> {
    AMBIENT.try_with(Arc::clone).ok()
}

/// Spawns a task of the current node.
#[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match ambient() {
        None => tokio::spawn(future),
        Some(runtime) => {
            let task = tokio::spawn(scope(Arc::clone(&runtime), future));
            runtime.spawned(task.abort_handle());
            task
        }
    }
}

/// Runs `future` where it may block: on an OS thread of its own that lives as
/// long as the future, or as a task inside a simulation.
///
/// # Errors
/// When the operating system refuses another thread.
pub fn thread(
    name: &str,
    future: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    if ambient().is_some() {
        drop(spawn(future));
        return Ok(());
    }
    // A runtime of its own: the thread outlives the node's runtime for as long
    // as it takes to finish, and its timers with it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || runtime.block_on(future))
        .map(drop)
}

/// 64 random bits: the operating system's in production, the node's seeded
/// ones in a simulation.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that draws entropy")]
pub fn random() -> u64 {
    match ambient() {
        Some(runtime) => runtime.random(),
        None => rand::Rng::next_u64(&mut rand::rng()),
    }
}

/// Lets a simulated disk sync take virtual time; returns at once in
/// production, where the sync itself took it.
pub async fn sync_delay() {
    if let Some(runtime) = ambient() {
        tokio::time::sleep(runtime.sync_delay()).await;
    }
}
