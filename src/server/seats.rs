//! How many visitors a service has: a number that follows them wherever they go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The seats of one service.
#[derive(Debug, Default)]
pub struct Seats(Arc<AtomicUsize>);

/// One visitor's seat. Dropped: it is free again.
#[derive(Debug)]
pub struct Seat(Arc<AtomicUsize>);

impl Seats {
    /// A seat, unless `most` are taken. Those that are taken stay taken when there are fewer than before.
    pub fn take(&self, most: usize) -> Option<Seat> {
        // Only the service's own task takes seats: between the two calls others can but leave.
        if self.0.load(Ordering::Relaxed) >= most {
            return None;
        }
        self.0.fetch_add(1, Ordering::Relaxed);
        Some(Seat(self.0.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_free_when_its_visitor_has_gone() {
        let seats = Seats::default();
        let (first, second) = (seats.take(2), seats.take(2));
        assert!(first.is_some() && second.is_some() && seats.take(2).is_none());
        assert!(seats.take(1).is_none());
        drop(first);
        assert!(seats.take(1).is_none() && seats.take(2).is_some());
    }
}
