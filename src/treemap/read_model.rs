//! Which model is current. Swapped as a whole; until the first one is there, requests wait for it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::model::Model;

/// The current [`Model`].
#[derive(Debug)]
pub struct ReadModel {
    current: ArcSwapOption<Model>,
    first_load: watch::Sender<FirstLoad>,
    published: watch::Sender<()>,
    of_file: AtomicBool,
}

/// How far the first load has come. Until it has ended either way, requests wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum FirstLoad {
    Running,
    /// With the reason.
    Failing(String),
    Done,
}

impl Default for ReadModel {
    fn default() -> Self {
        Self {
            current: ArcSwapOption::empty(),
            first_load: watch::Sender::new(FirstLoad::Running),
            published: watch::Sender::new(()),
            of_file: AtomicBool::new(false),
        }
    }
}

impl ReadModel {
    /// The current model, or `None` before the first load.
    pub fn current(&self) -> Option<Arc<Model>> {
        self.current.load_full()
    }

    /// The current model; before the first load it waits for it. `None` when that load has failed: it is retried, but nobody
    /// knows when it succeeds.
    pub async fn first(&self) -> Option<Arc<Model>> {
        // The sender lives in self, so waiting cannot fail.
        let _ = self.first_load.subscribe().wait_for(|state| *state != FirstLoad::Running).await;
        self.current()
    }

    /// Waits until there is a model, however long that takes.
    pub async fn ready(&self) {
        let _ = self.first_load.subscribe().wait_for(|state| *state == FirstLoad::Done).await;
    }

    /// Makes `model` the current one. Answers that are being written go on with the one they have.
    pub fn publish(&self, model: Model) {
        self.of_file.store(false, Ordering::Relaxed);
        self.replace(model);
    }

    /// The same for one that was read from a file: the database may know better.
    pub fn publish_of_file(&self, model: Model) {
        self.of_file.store(true, Ordering::Relaxed);
        self.replace(model);
    }

    /// Whether the current model was read from a file.
    pub fn is_of_file(&self) -> bool {
        self.of_file.load(Ordering::Relaxed)
    }

    fn replace(&self, model: Model) {
        self.current.store(Some(Arc::new(model)));
        self.first_load.send_replace(FirstLoad::Done);
        self.published.send_replace(());
    }

    /// Sees each model that is published from now on, or only the newest of several.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.published.subscribe()
    }

    /// Records that a load has failed, and why. Without a model, requests no longer wait; with one, nothing changes.
    pub fn load_failed(&self, why: &impl fmt::Display) {
        self.first_load.send_if_modified(|state| {
            let waiting = *state == FirstLoad::Running;
            if *state != FirstLoad::Done {
                *state = FirstLoad::Failing(why.to_string());
            }
            waiting
        });
    }

    /// Why there is no model; `None` when there is one.
    pub fn missing(&self) -> Option<String> {
        match &*self.first_load.borrow() {
            FirstLoad::Done => None,
            FirstLoad::Running => Some("the first load has not ended yet".into()),
            FirstLoad::Failing(why) => Some(why.clone()),
        }
    }
}
