//! A failure that lasts: told once when it begins or its cause changes, and once when it ends. For loops that try again.

use tokio::time::Instant;

use crate::error::DbError;

/// The trouble that a loop is in, if any.
#[derive(Debug, Default)]
pub struct Trouble(Option<Begun>);

#[derive(Debug)]
struct Begun {
    at: Instant,
    /// What was told last.
    told: String,
    failed: u32,
}

/// A trouble that is over.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// How long it lasted, in seconds.
    pub seconds: u64,
    /// How many steps failed.
    pub failed: u32,
}

impl Trouble {
    /// Notes a failed step; gives the words to tell, unless they have just been told.
    pub fn met(&mut self, error: &DbError) -> Option<String> {
        let words = error.to_string();
        let begun = self.0.get_or_insert_with(|| Begun { at: Instant::now(), told: String::new(), failed: 0 });
        begun.failed += 1;
        if begun.told == words {
            return None;
        }
        begun.told.clone_from(&words);
        Some(words)
    }

    /// Notes a step that succeeded; tells of the trouble that it ended.
    pub fn over(&mut self) -> Option<Ended> {
        self.0.take().map(|begun| Ended { seconds: begun.at.elapsed().as_secs(), failed: begun.failed })
    }
}
