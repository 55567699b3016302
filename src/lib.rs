//! The treemap service: answers `GetIndustryTreeMap` from the materialized view `mv_treemap_data`.
//!
//! The map of the code, in call order. Each module knows only those below it.
//!
//! - [`cli`]: the `treemap` command, one file per subcommand
//! - [`app`]: the server put together: build (binds), run until stopped, stop in order
//! - [`admin`]: the port for ops: alive, ready, metrics
//! - [`server`]: the listener: connections, their limits, TLS, their end
//! - [`grpc`]: a request from proto to domain to read model to wire, and the mapping to gRPC status
//! - [`listen`], [`reload`]: notice that the view changed; load the read model again
//! - [`refresher`]: decides when the view is refreshed
//! - [`load`], [`sample`], [`migrate`], [`refresh`], [`status`]: what the other commands do
//! - [`metrics`], [`telemetry`]: what is counted; logs and traces
//! - [`store`]: every statement of the serving path
//! - [`read_model`]: the answers, encoded and ready to be sliced, and how fresh they are
//! - [`treemap`]: period, view mode, limit: what a valid request is
//! - [`db`]: the one door to Postgres: connections, pool, bounds
//! - [`backoff`], [`trouble`]: the pause before the next try; telling of a failure once
//! - [`config`]: every setting, read once
//! - [`tls`]: certificates and keys for both sides of TLS, and what the listener accepts with
//! - [`schedule`]: the ticks of a cron pattern in a time zone
//! - [`error`]: what can go wrong with the database, by what to do about it
//!
//! A request goes `server` → `grpc::calls` → `grpc` → `treemap` → `read_model` → `grpc::codec`; it meets the database only when no model has been
//! loaded yet, and then it waits. A refresh goes `refresher` → `refresh` → `refresh_treemap_data()` in Postgres → NOTIFY → `listen` →
//! `reload` → `store` → `read_model`.

pub mod admin;
pub mod app;
pub mod backoff;
pub mod cli;
pub mod config;
pub mod db;
pub mod error;
pub mod grpc;
pub mod listen;
pub mod load;
pub mod metrics;
pub mod migrate;
pub mod read_model;
pub mod refresh;
pub mod refresher;
pub mod reload;
pub mod sample;
pub mod schedule;
pub mod server;
pub mod status;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod treemap;
pub mod trouble;

/// What the .proto files define: the messages, a typed client, and the descriptors that reflection serves.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
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
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
