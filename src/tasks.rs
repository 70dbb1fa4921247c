//! The only place that spawns: every task has a parent, a way to be told to stop, and an end.
//!
//! Stopping has two steps. *Drain*: take no new visitors, let relays finish. *Cut*: end now. A clone of a [`Scope`]
//! hands both signals down; [`Scope::child`] makes a part that can be stopped alone (a service, a session).

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A group of tasks with their two stop signals.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    drain: CancellationToken,
    cut: CancellationToken,
    tracker: TaskTracker,
}

impl Scope {
    /// A scope of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// A part of this scope: stopped with it, or alone. Its tasks are waited for by this scope's [`Scope::ended`].
    pub fn child(&self) -> Self {
        Scope { drain: self.drain.child_token(), cut: self.cut.child_token(), tracker: self.tracker.clone() }
    }

    /// Spawns a task that belongs to this scope. The task must watch the signals itself, or be short.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Spawns a task that is dropped where it stands when this scope is told to drain.
    pub fn spawn_until_drain(&self, task: impl Future<Output = ()> + Send + 'static) {
        let drain = self.drain.clone();
        // Boxed: else each layer around it would have room for a copy of its own.
        let task = Box::pin(task);
        self.tracker.spawn(async move {
            drain.run_until_cancelled(task).await;
        });
    }

    /// Asks for an orderly end: no new visitors, relays may finish.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Ends everything that watches; implies [`Scope::drain`].
    pub fn cut(&self) {
        self.drain.cancel();
        self.cut.cancel();
    }

    /// Whether [`Scope::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Completes when this scope is to drain.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Completes when this scope is to end at once.
    pub async fn cutting(&self) {
        self.cut.cancelled().await;
    }

    /// Completes when all tasks of the whole tree have ended. Call [`Scope::drain`] or [`Scope::cut`] before.
    pub async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}
