//! The treemap service: answers `GetIndustryTreeMap` from the materialized view `mv_treemap_data`, over gRPC, gRPC-Web and Connect.
//!
//! The map of the code, in call order. Each module knows only those below it.
//!
//! - [`cli`]: the `treemap` command, one file per subcommand
//! - [`client`]: a client of a running server, for `query` and `status`
//! - [`app`]: the server put together: build (binds), run until stopped, stop in order
//! - [`server`]: connections of clients: threads, limits, TLS, drain; and the admin port
//! - [`api`]: the protocols: from a call to an answer, and back to bytes; CORS, health and reflection
//! - [`renew`]: certificates and connection strings, read again while the server runs
//! - [`model_file`]: a model in a file, for a start without Postgres
//! - [`reload`]: keeps the model equal to the view
//! - [`refresh`]: one refresh of the view; in the background, when to do one
//! - [`status`], [`migrate`], [`load`], [`sample`]: what the other commands do
//! - [`view`]: everything that is read of `mv_treemap_data`
//! - [`picture`]: the treemap laid out and drawn: SVG, terminal, CSV, the page
//! - [`config`]: every setting
//! - [`metrics`], [`telemetry`]: what is counted; logs and traces
//! - [`treemap`]: what a valid request is; the model that answers it
//! - [`retry`]: the pause before the next try; a lasting failure is logged once
//! - [`postgres`]: the one door to Postgres: connection strings, connections, time limits, errors
//! - [`schedule`]: the ticks of a cron pattern in a time zone
//! - [`files`]: reads files within bounds of size and time
//! - [`tls`]: certificates and keys for both sides of TLS
//!
//! A request goes `server` → `api` → `treemap` and back; it meets the database only when no model has been loaded yet, and then it
//! waits. A refresh goes `refresh::background` → `refresh` → `refresh_treemap_data()` in Postgres → NOTIFY → `reload::listen` →
//! `reload` → `view` → `treemap::model`.

mod api;
mod app;
mod cli;
mod client;
mod config;
mod files;
mod load;
mod metrics;
mod migrate;
mod model_file;
mod picture;
mod postgres;
mod refresh;
mod reload;
mod renew;
mod retry;
mod sample;
mod schedule;
mod server;
mod status;
mod telemetry;
mod tls;
mod treemap;
mod view;

pub use cli::Cli;
pub use load::report::HEADER;
pub use treemap::{
    InvalidRequest, Limit, Period, Request, ViewMode,
    freshness::{Freshness, Tolerance},
    model::{Answer, Builder, Model},
    stocks::Stock,
};

/// The protocols, generic over the service: the conformance suite puts its own behind them.
pub mod protocols {
    pub use crate::{
        api::{
            body::Body,
            in_flight::{Counts, Place},
            message::Message,
            protocol::{Answered, Settings, cache_control, serve},
            request::{RequestBody, discard_in_time},
            service::{Call, Codec, Failure, Messages, MethodKind, Reply, Service},
        },
        server::connection::serve_http,
    };
}

/// What the .proto files define: the messages, a typed client, and the descriptors that reflection serves.
#[allow(clippy::all, clippy::pedantic)]
pub mod proto {
    pub mod shorts {
        pub mod v1alpha1 {
            tonic::include_proto!("shorts.v1alpha1");
        }
    }
    pub mod stocks {
        pub mod v1alpha1 {
            tonic::include_proto!("stocks.v1alpha1");
        }
    }
    pub mod treemap {
        pub mod v1 {
            tonic::include_proto!("treemap.v1");
        }
    }
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
