//! What happened, for a person to read. Kept only when somebody will.

use std::sync::{Arc, Mutex};

use crate::time::Time;

/// A timeline.
#[derive(Clone, Default)]
pub(crate) struct Story(Option<Arc<Mutex<Vec<String>>>>);

impl Story {
    /// One that is kept.
    pub(crate) fn kept() -> Self {
        Self(Some(Arc::default()))
    }

    /// Adds a line; its words are made only if they are kept.
    pub(crate) fn tell(&self, time: &Time, words: impl FnOnce() -> String) {
        if let Some(lines) = &self.0 {
            let line = format!("{:>9.3} s  {}", time.now_ms() as f64 / 1000.0, words());
            lines.lock().expect("no holder of this lock panics").push(line);
        }
    }

    /// The lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0
            .as_ref()
            .map(|lines| lines.lock().expect("no holder of this lock panics").clone())
            .unwrap_or_default()
    }
}
