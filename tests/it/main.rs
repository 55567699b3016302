//! Tests of what the service promises, against the real binary and a real Postgres. Each is named as its promise.

#![allow(clippy::float_cmp, reason = "counts, which /metrics writes as floats")]

mod answer;
mod bad_input;
mod deploy;
mod failover;
mod limits;
mod load_companies;
mod load_shorts;
mod migrations;
mod operations;
mod outages;
mod pooler;
mod privileges;
mod real_data;
mod refresh;
mod refresher;
mod reload;
mod rpc;
mod sample;
mod serve;
mod soak;
mod status;
mod support;
mod tls;
mod view;
