//! Answers that were put together once, kept for those who ask for the same. Bounded: when it is full, what was not asked for the longest
//! goes.

use std::{
    collections::BTreeMap,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;

/// How many answers are kept, and how many bytes. Real traffic asks for some 20; the largest has 110 KB, the largest picture 450 KB.
const CAPACITY: (usize, usize) = (64, 4 * 1024 * 1024);
/// The most bytes that a model keeps: answers and drawings.
pub const MOST_BYTES: usize = 2 * CAPACITY.1;

/// A bounded memo.
#[derive(Debug)]
pub struct Memo<K> {
    kept: RwLock<BTreeMap<K, Kept>>,
    uses: AtomicU64,
}

#[derive(Debug)]
struct Kept {
    bytes: Bytes,
    last_use: AtomicU64,
}

impl<K> Default for Memo<K> {
    fn default() -> Self {
        Self { kept: RwLock::default(), uses: AtomicU64::new(0) }
    }
}

impl<K: Clone + Ord> Memo<K> {
    /// What is kept for `key`.
    pub fn kept(&self, key: &K) -> Option<Bytes> {
        let all = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let kept = all.get(key)?;
        // Only what another was asked for since needs a new number: without that, all processors would write it.
        let now = self.uses.load(Ordering::Relaxed);
        if kept.last_use.load(Ordering::Relaxed) != now {
            kept.last_use.store(self.next_use(), Ordering::Relaxed);
        }
        Some(kept.bytes.clone())
    }

    /// Keeps what was made for `key`, unless it alone is too large.
    pub fn keep(&self, key: K, bytes: Bytes) {
        let (most, most_bytes) = CAPACITY;
        if bytes.len() > most_bytes {
            return;
        }
        let kept = Kept { last_use: AtomicU64::new(self.next_use()), bytes };
        let mut all = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(key, kept);
        while all.len() > most || all.values().map(|kept| kept.bytes.len()).sum::<usize>() > most_bytes {
            let oldest = all.iter().min_by_key(|(_, kept)| kept.last_use.load(Ordering::Relaxed));
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { break };
            all.remove(&oldest);
        }
    }

    fn next_use(&self) -> u64 {
        self.uses.fetch_add(1, Ordering::Relaxed) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_again_and_again_stays_whatever_else_is_asked_for() {
        let memo = Memo::default();
        memo.keep(0, Bytes::from_static(b"often"));
        for other in 1..10_000_usize {
            assert!(memo.kept(&0).is_some());
            memo.keep(other, Bytes::new());
        }
        assert_eq!(memo.kept.read().unwrap().len(), CAPACITY.0);
    }

    #[test]
    fn large_answers_take_no_more_memory_than_there_is_for_all() {
        let memo = Memo::default();
        for key in 0..100 {
            memo.keep(key, vec![0; 500_000].into());
            assert!(memo.kept(&key).is_some());
            let all = memo.kept.read().unwrap();
            assert!(all.values().map(|kept| kept.bytes.len()).sum::<usize>() <= CAPACITY.1);
        }
        memo.keep(100, vec![0; CAPACITY.1 + 1].into());
        assert!(memo.kept(&100).is_none());
        assert!(memo.kept(&99).is_some(), "the others stay");
    }
}
