//! Who takes an interrupt (Ctrl-C) for itself: a step that waits for one, instead of the whole run.
//!
//! It must not know where interrupts come from.

use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// Those that wait for an interrupt now.
#[derive(Debug, Default)]
pub struct Interrupts(Mutex<Vec<CancellationToken>>);

impl Interrupts {
    /// Hands an interrupt to all who wait for one; whether there was anybody.
    pub fn deliver(&self) -> bool {
        let waiting = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let waiting = waiting.into_iter().filter(|token| !token.is_cancelled());
        waiting.map(|token| token.cancel()).count() > 0
    }

    /// Takes the next interrupt. The token is cancelled when it comes; whoever waits no more cancels it.
    pub(crate) fn take(&self) -> CancellationToken {
        let token = CancellationToken::new();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|token| !token.is_cancelled());
        waiting.push(token.clone());
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_reaches_all_who_wait_and_nobody_else() {
        let interrupts = Interrupts::default();
        assert!(!interrupts.deliver());
        let [first, second, gone] = [(); 3].map(|()| interrupts.take());
        gone.cancel();
        assert!(interrupts.deliver());
        assert!(first.is_cancelled() && second.is_cancelled());
        assert!(!interrupts.deliver());
        let gone = interrupts.take();
        drop(gone.drop_guard());
        assert!(!interrupts.deliver());
    }
}
