//! The only doors to time and chance. The program opens them on the real ones, a simulation
//! on its own.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

/// Tells the time and waits.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Now, in UTC.
    fn now(&self) -> Timestamp;

    /// The time since some moment of the past. Unlike [`Clock::now`] it never jumps, and it goes on while the process
    /// is stopped or the machine sleeps.
    fn uptime(&self) -> Duration;

    /// Waits for the given time.
    async fn sleep(&self, duration: Duration);
}

/// Gives random bytes fit for passwords.
pub trait Entropy: Send + Sync {
    /// Fills the buffer. There is no way to fail: an operating system that can't give
    /// randomness is not one to rotate passwords on, and the real door ends the program then.
    fn fill(&self, buffer: &mut [u8]);
}

/// Doubles for tests of this crate and those built on it.
pub mod testing {
    use std::sync::Mutex;

    use super::{Clock, Duration, Entropy, Timestamp, async_trait};

    /// A clock that moves only when somebody sleeps.
    #[derive(Debug)]
    pub struct ManualClock(Mutex<Timestamp>);

    impl ManualClock {
        /// Starts at the given second since 1970.
        pub fn at_second(second: i64) -> Self {
            Self(Mutex::new(Timestamp::from_second(second).expect("a second within jiff's range")))
        }
    }

    #[async_trait]
    impl Clock for ManualClock {
        fn now(&self) -> Timestamp {
            *self.0.lock().expect("no test panics while it holds the clock")
        }

        fn uptime(&self) -> Duration {
            self.now().duration_since(Timestamp::UNIX_EPOCH).unsigned_abs()
        }

        async fn sleep(&self, duration: Duration) {
            let mut now = self.0.lock().expect("no test panics while it holds the clock");
            *now += duration;
        }
    }

    /// Repeatable bytes from a seed (the splitmix64 sequence). Never for real passwords.
    #[derive(Debug)]
    pub struct SeededEntropy(Mutex<u64>);

    impl SeededEntropy {
        /// Starts the sequence of this seed.
        pub fn new(seed: u64) -> Self {
            Self(Mutex::new(seed))
        }
    }

    impl Entropy for SeededEntropy {
        fn fill(&self, buffer: &mut [u8]) {
            let mut state = self.0.lock().expect("no test panics while it holds the seed");
            for chunk in buffer.chunks_mut(8) {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = *state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^= z >> 31;
                chunk.copy_from_slice(&z.to_le_bytes()[..chunk.len()]);
            }
        }
    }
}
