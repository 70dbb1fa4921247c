//! A router on the way that keeps a table of connections, and may lose it.

use std::collections::{HashMap, HashSet};

use super::frame::{Flow, Segment};

/// What happens to packets of connections that the router has forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// They vanish, as in most NATs.
    Silently,
    /// They are answered with a reset.
    WithReset,
}

/// What to do with a frame.
pub enum Verdict {
    /// Carry it.
    Pass,
    /// Lose it.
    Drop,
    /// Lose it, and send this back.
    Answer(Vec<u8>),
}

/// The router's tables.
#[derive(Default)]
pub struct Middlebox {
    known: HashSet<Flow>,
    gone: HashMap<Flow, Gone>,
}

impl Middlebox {
    /// A frame has come, from either side.
    pub fn on_frame(&mut self, frame: &[u8]) -> Verdict {
        let Some(segment) = Segment::find(frame) else { return Verdict::Pass };
        let flow = segment.flow();
        if segment.opens() {
            self.gone.remove(&flow);
        }
        match self.gone.get(&flow) {
            None => {
                self.known.insert(flow);
                Verdict::Pass
            }
            Some(Gone::Silently) => Verdict::Drop,
            Some(Gone::WithReset) => segment.reset().map_or(Verdict::Drop, Verdict::Answer),
        }
    }

    /// All connections that were seen so far are forgotten.
    pub fn forget(&mut self, how: Gone) {
        self.gone.extend(self.known.drain().map(|flow| (flow, how)));
    }
}
