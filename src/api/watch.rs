//! A stream of treemaps: the present one at once, then each new version, and heartbeats between them. Nothing is queued for a client that reads
//! slowly: when it has room, it gets what is the newest then.

use std::{future::pending, sync::Arc};

use futures_util::stream;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tonic::Status;

use super::{
    Treemap,
    in_flight::Counts,
    message::Message,
    refusal::Refusal,
    service::{Call, Codec, MessageStream},
    treemap_v1::{self, Of},
};
use crate::treemap::{
    Request,
    model::{Answer, Model},
};

struct Watch {
    treemap: Treemap,
    request: Request,
    codec: Codec,
    gzip: bool,
    connection: Arc<Counts>,
    /// The version that the client has.
    version: String,
    published: watch::Receiver<()>,
    closing: Option<watch::Receiver<bool>>,
    deadline: Option<Instant>,
    heartbeat_due: Instant,
}

/// Why the wait for the next message has ended.
enum Next {
    Published,
    Heartbeat,
    End(Refusal),
}

/// The messages for a client that has `version`, until its connection ends or its deadline passes.
pub fn treemaps(treemap: Treemap, request: Request, version: String, call: Call<'_>) -> MessageStream {
    let now = Instant::now();
    let watch = Watch {
        published: treemap.read_model.subscribe(),
        heartbeat_due: now + treemap.heartbeat,
        deadline: call.timeout.map(|timeout| now + timeout),
        treemap,
        request,
        codec: call.codec,
        gzip: call.gzip,
        connection: call.connection.clone(),
        version,
        closing: call.closing,
    };
    // `None` once it has ended.
    Box::pin(stream::unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        match watch.next().await {
            Ok(message) => Some((Ok(message), Some(watch))),
            Err(refusal) => Some((Err::<Message, Status>(refusal.status()), None)),
        }
    }))
}

impl Watch {
    async fn next(&mut self) -> Result<Message, Refusal> {
        loop {
            self.published.mark_unchanged();
            let model = self.treemap.read_model.current().ok_or(Refusal::NotLoaded)?;
            if model.version != *self.version {
                return self.treemap_of(model);
            }
            match self.wait().await {
                Next::Published => {}
                Next::Heartbeat => {
                    self.sent();
                    return Ok(treemap_v1::heartbeat(&model, self.codec));
                }
                Next::End(refusal) => return Err(refusal),
            }
        }
    }

    fn treemap_of(&mut self, model: Arc<Model>) -> Result<Message, Refusal> {
        self.version = model.version.to_str().unwrap_or_default().into();
        self.sent();
        treemap_v1::message(&Answer::new(model, self.request), Of::Watch, self.codec, self.gzip, &self.connection)
    }

    fn sent(&mut self) {
        self.treemap.watch_messages.inc();
        self.heartbeat_due = Instant::now() + self.treemap.heartbeat;
    }

    async fn wait(&mut self) -> Next {
        let closing = async {
            match &mut self.closing {
                // The connection holds the sender for as long as it lives.
                Some(closing) => drop(closing.wait_for(|closing| *closing).await),
                None => pending().await,
            }
        };
        let due = self.deadline.map_or(self.heartbeat_due, |deadline| deadline.min(self.heartbeat_due));
        let passed = self.deadline.is_some_and(|deadline| deadline <= due);
        tokio::select! {
            () = closing => Next::End(Refusal::Leaving),
            // The model's sender lives as long as the server.
            _ = self.published.changed() => Next::Published,
            () = sleep_until(due) => if passed { Next::End(Refusal::DeadlinePassed) } else { Next::Heartbeat },
        }
    }
}
