//! Where the tasks of the data thread put what arrived, until the loop takes it as one burst. Bounded by its
//! sources: each connection puts at most one buffer before it looks whether it may go on.

use holdfast_engine::Input;
use std::cell::{Cell, RefCell};
use tokio::sync::Notify;

/// See the module's text.
#[derive(Default)]
pub struct Inbox {
    inputs: RefCell<Vec<Input>>,
    filled: Notify,
    woken: Cell<bool>,
}

impl Inbox {
    /// Adds a fact and wakes the loop.
    pub fn put(&self, input: Input) {
        self.inputs.borrow_mut().push(input);
        self.filled.notify_one();
    }
    /// Makes the loop look again although no fact arrived.
    pub fn wake(&self) {
        self.woken.set(true);
        self.filled.notify_one();
    }
    /// Whether it was woken since this was last asked.
    pub fn take_woken(&self) -> bool {
        self.woken.replace(false)
    }
    /// Moves everything that arrived to `into`.
    pub fn take(&self, into: &mut Vec<Input>) {
        into.append(&mut self.inputs.borrow_mut());
    }
    /// Nothing was put, and nobody woke the loop.
    pub fn is_empty(&self) -> bool {
        self.inputs.borrow().is_empty() && !self.woken.get()
    }
    /// Waits until something was put. Something that is there already may be all.
    pub async fn filled(&self) {
        if self.is_empty() {
            self.filled.notified().await;
        }
    }
}
