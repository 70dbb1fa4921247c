//! Which of many things have something to do: one task polls only those that were woken.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Wake, Waker};

/// The woken ones, by name, and the task that polls them.
#[derive(Debug)]
pub struct Ready<K> {
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    /// Each at most once.
    woken: VecDeque<Arc<Watched<K>>>,
    task: Option<Waker>,
}

#[derive(Debug)]
struct Watched<K> {
    name: K,
    listed: AtomicBool,
    ready: Weak<Ready<K>>,
}

impl<K> Default for Ready<K> {
    fn default() -> Self {
        Ready { state: Mutex::new(State { woken: VecDeque::new(), task: None }) }
    }
}

impl<K: Copy + Send + Sync + 'static> Ready<K> {
    /// A waker that lists what has this name.
    pub fn waker(self: &Arc<Self>, name: K) -> Waker {
        Arc::new(Watched { name, listed: AtomicBool::new(false), ready: Arc::downgrade(self) }).into()
    }

    /// The task to wake when one is woken.
    pub fn register(&self, cx: &Context<'_>) {
        let mut state = self.state();
        match &mut state.task {
            Some(task) => task.clone_from(cx.waker()),
            None => state.task = Some(cx.waker().clone()),
        }
    }

    /// The next that was woken. It may be gone by now.
    pub fn next(&self) -> Option<K> {
        let watched = self.state().woken.pop_front()?;
        watched.listed.store(false, Ordering::Release);
        Some(watched.name)
    }

    /// Whether there is one.
    pub fn is_empty(&self) -> bool {
        self.state().woken.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Send + Sync + 'static> Wake for Watched<K> {
    fn wake(self: Arc<Self>) {
        if self.listed.swap(true, Ordering::AcqRel) {
            return;
        }
        let Some(ready) = self.ready.upgrade() else { return };
        let task = {
            let mut state = ready.state();
            state.woken.push_back(self);
            state.task.clone()
        };
        if let Some(task) = task {
            task.wake();
        }
    }
}
