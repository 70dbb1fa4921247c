//! What befalls the frames of one direction.

use std::time::Duration;

/// The default is fine weather: all frames arrive at once.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// How long each frame is on its way.
    pub delay: Duration,
    /// Up to this much longer, at random; the order is kept.
    pub jitter: Duration,
    /// The share of frames that others overtake: they are late by all of [`Weather::jitter`].
    pub reorder: f64,
    /// The share of frames that vanish.
    pub loss: f64,
    /// The share of frames that arrive twice.
    pub duplicate: f64,
    /// Bits per second that fit through; 0: any.
    pub rate: u64,
    /// Bytes that may wait for their turn if there is a rate; what comes then is dropped.
    pub queue: usize,
}

impl Default for Weather {
    fn default() -> Self {
        Weather {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reorder: 0.0,
            loss: 0.0,
            duplicate: 0.0,
            rate: 0,
            queue: 128 << 10,
        }
    }
}

impl Weather {
    /// Frames take this long.
    pub fn delay(ms: u64) -> Self {
        Weather { delay: Duration::from_millis(ms), ..Weather::default() }
    }
}
