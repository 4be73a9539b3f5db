//! The real clock and the real randomness.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use pgrotate_core::env::{Clock, Entropy};
use rustix::time::{ClockId, clock_gettime};

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn uptime(&self) -> Duration {
        let now = clock_gettime(ClockId::Boottime);
        let whole = u64::try_from(now.tv_sec).unwrap_or_default();
        Duration::new(whole, u32::try_from(now.tv_nsec).unwrap_or_default())
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("the operating system gives randomness");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn time_is_the_machines() {
        let (clock, before, up) = (SystemClock, Timestamp::now(), SystemClock.uptime());
        assert!(before <= clock.now() && clock.now() <= Timestamp::now());
        let wait = Duration::from_millis(30);
        clock.sleep(wait).await;
        assert!(clock.uptime() - up >= wait, "who sleeps lets that time pass");
        assert!(clock.uptime() > wait, "it counts from the machine's start");
    }

    #[test]
    fn chance_does_not_repeat_itself() {
        let draw = || {
            let mut bytes = [0; 32];
            OsEntropy.fill(&mut bytes);
            bytes
        };
        let (first, second) = (draw(), draw());
        assert!(first != second && first != [0; 32] && second != [0; 32]);
    }
}
