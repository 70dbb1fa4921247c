//! Which of many flows have something to do: one task polls only those that were woken.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Wake, Waker};

/// The woken flows, and the task that polls them.
#[derive(Debug, Default)]
pub(super) struct Ready {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Each flow at most once.
    flows: VecDeque<Arc<Flow>>,
    task: Option<Waker>,
}

#[derive(Debug)]
struct Flow {
    address: SocketAddr,
    listed: AtomicBool,
    ready: Weak<Ready>,
}

impl Ready {
    /// A waker that lists the flow.
    pub(super) fn waker(self: &Arc<Self>, address: SocketAddr) -> Waker {
        Arc::new(Flow { address, listed: AtomicBool::new(false), ready: Arc::downgrade(self) }).into()
    }

    /// The task to wake when a flow is woken.
    pub(super) fn register(&self, cx: &Context<'_>) {
        let mut state = self.state();
        match &mut state.task {
            Some(task) => task.clone_from(cx.waker()),
            None => state.task = Some(cx.waker().clone()),
        }
    }

    /// The next woken flow. It may be gone by now.
    pub(super) fn next(&self) -> Option<SocketAddr> {
        let flow = self.state().flows.pop_front()?;
        flow.listed.store(false, Ordering::Release);
        Some(flow.address)
    }

    /// Whether there is one.
    pub(super) fn is_empty(&self) -> bool {
        self.state().flows.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Flow {
    fn wake(self: Arc<Self>) {
        if self.listed.swap(true, Ordering::AcqRel) {
            return;
        }
        let Some(ready) = self.ready.upgrade() else { return };
        let task = {
            let mut state = ready.state();
            state.flows.push_back(self);
            state.task.clone()
        };
        if let Some(task) = task {
            task.wake();
        }
    }
}
