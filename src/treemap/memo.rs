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

/// How many answers are kept. Real traffic asks for some 20; the largest has 80 KB.
const CAPACITY: usize = 64;

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
    /// What is kept for `key`, or what `make` makes, which is kept from now on.
    pub fn get(&self, key: K, make: impl FnOnce() -> Bytes) -> Bytes {
        if let Some(kept) = self.kept.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            // Only what another was asked for since needs a new number: without that, all processors would write it.
            let now = self.uses.load(Ordering::Relaxed);
            if kept.last_use.load(Ordering::Relaxed) != now {
                kept.last_use.store(self.uses.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            }
            return kept.bytes.clone();
        }
        let bytes = make();
        let last_use = AtomicU64::new(self.uses.fetch_add(1, Ordering::Relaxed) + 1);
        let mut all = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= CAPACITY
            && let Some(oldest) =
                all.iter().min_by_key(|(_, kept)| kept.last_use.load(Ordering::Relaxed)).map(|(key, _)| key.clone())
        {
            all.remove(&oldest);
        }
        all.insert(key, Kept { bytes: bytes.clone(), last_use });
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_again_and_again_is_made_once_whatever_else_is_asked_for() {
        let memo = Memo::default();
        let mut made = 0;
        for other in 1..10_000_usize {
            memo.get(0, || {
                made += 1;
                Bytes::from_static(b"often")
            });
            memo.get(other, Bytes::new);
        }
        assert_eq!(made, 1);
        assert_eq!(memo.kept.read().unwrap().len(), CAPACITY);
    }
}
