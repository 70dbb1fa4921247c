//! Values that a reload replaces, and orders to do so. A build that cannot reload has the same types, in which nothing
//! ever changes: what would happen then is left out by the compiler.

#[cfg(not(feature = "hot-reload"))]
pub use fixed::{Inbox, Latest, Outbox, Source};
#[cfg(feature = "hot-reload")]
pub use live::{Inbox, Latest, Outbox, Source};

#[cfg(feature = "hot-reload")]
mod live {
    use tokio::sync::{mpsc, watch};

    /// A value as it is now.
    #[derive(Debug, Clone)]
    pub struct Latest<T>(watch::Receiver<T>);

    /// Where a value is replaced.
    #[derive(Debug)]
    pub struct Source<T>(watch::Sender<T>);

    impl<T: Clone> Latest<T> {
        /// Whether it can be another one some time.
        pub const CHANGES: bool = true;

        /// The value now.
        pub fn get(&self) -> T {
            self.0.borrow().clone()
        }

        /// The value now; [`Latest::changed`] waits for one after it.
        pub fn take(&mut self) -> T {
            self.0.borrow_and_update().clone()
        }

        /// Looks at the value now, without a copy; [`Latest::changed`] waits for one after it.
        pub fn look<R>(&mut self, look: impl FnOnce(&T) -> R) -> R {
            look(&self.0.borrow_and_update())
        }

        /// Waits for another value than the one last taken; false: there will be none, its source is gone. Cancel safe.
        pub async fn changed(&mut self) -> bool {
            self.0.changed().await.is_ok()
        }

        /// Waits for a value that is as wanted, or for the end of its source.
        pub async fn until(&mut self, wanted: impl FnMut(&T) -> bool) {
            let _ = self.0.wait_for(wanted).await;
        }
    }

    impl<T> Source<T> {
        /// Of a first value.
        pub fn new(value: T) -> (Self, Latest<T>) {
            let (source, latest) = watch::channel(value);
            (Source(source), Latest(latest))
        }

        /// Replaces the value.
        pub fn set(&self, value: T) {
            self.0.send_replace(value);
        }

        /// Changes the value where it is.
        pub fn change(&self, change: impl FnOnce(&mut T)) {
            self.0.send_modify(change);
        }
    }

    /// Where orders come in.
    #[derive(Debug)]
    pub struct Inbox<T>(mpsc::Sender<T>, mpsc::Receiver<T>);

    /// Where orders are given.
    #[derive(Debug)]
    pub struct Outbox<T>(mpsc::Sender<T>);

    impl<T> Inbox<T> {
        /// The next order. Cancel safe.
        pub async fn next_order(&mut self) -> T {
            loop {
                // It holds a sender itself: there is always one.
                if let Some(order) = self.1.recv().await {
                    return order;
                }
            }
        }

        /// For who gives orders.
        pub fn outbox(&self) -> Outbox<T> {
            Outbox(self.0.clone())
        }
    }

    impl<T> Default for Inbox<T> {
        fn default() -> Self {
            let (sender, receiver) = mpsc::channel(1);
            Inbox(sender, receiver)
        }
    }

    impl<T> Outbox<T> {
        /// Gives an order; false: nobody takes it any more.
        pub async fn send(&self, order: T) -> bool {
            self.0.send(order).await.is_ok()
        }
    }

    impl<T> Clone for Outbox<T> {
        fn clone(&self) -> Self {
            Outbox(self.0.clone())
        }
    }
}

#[cfg(not(feature = "hot-reload"))]
mod fixed {
    use std::future::{Future, pending};
    use std::marker::PhantomData;

    /// A value.
    #[derive(Debug, Clone)]
    pub struct Latest<T>(T);

    /// Where a value would be replaced.
    #[derive(Debug)]
    pub struct Source<T>(PhantomData<T>);

    impl<T: Clone> Latest<T> {
        /// It cannot be another one.
        pub const CHANGES: bool = false;

        /// The value.
        pub fn get(&self) -> T {
            self.0.clone()
        }

        /// The value.
        pub fn take(&mut self) -> T {
            self.0.clone()
        }

        /// Looks at the value.
        pub fn look<R>(&mut self, look: impl FnOnce(&T) -> R) -> R {
            look(&self.0)
        }

        /// Never.
        pub fn changed(&mut self) -> impl Future<Output = bool> + use<T> {
            pending()
        }

        /// Never.
        pub fn until(&mut self, _wanted: impl FnMut(&T) -> bool) -> impl Future<Output = ()> {
            pending()
        }
    }

    impl<T: Clone> Source<T> {
        /// Of its only value.
        pub fn new(value: T) -> (Self, Latest<T>) {
            (Source(PhantomData), Latest(value))
        }

        /// Does nothing.
        pub fn set(&self, _value: T) {}

        /// Does nothing.
        pub fn change(&self, _change: impl FnOnce(&mut T)) {}
    }

    /// Where orders would come in.
    #[derive(Debug)]
    pub struct Inbox<T>(PhantomData<T>);

    /// Where orders would be given.
    #[derive(Debug)]
    pub struct Outbox<T>(PhantomData<T>);

    impl<T> Inbox<T> {
        /// Never.
        pub fn next_order(&mut self) -> impl Future<Output = T> + use<T> {
            pending()
        }

        /// For nothing.
        pub fn outbox(&self) -> Outbox<T> {
            Outbox(PhantomData)
        }
    }

    impl<T> Default for Inbox<T> {
        fn default() -> Self {
            Inbox(PhantomData)
        }
    }

    impl<T> Outbox<T> {
        /// Nobody takes it.
        pub async fn send(&self, _order: T) -> bool {
            false
        }
    }

    impl<T> Clone for Outbox<T> {
        fn clone(&self) -> Self {
            Outbox(PhantomData)
        }
    }
}
