//! Tests of what the service promises, against the real binary and a real Postgres. Each is named as its promise.

mod answer;
mod bad_input;
mod failover;
mod load_companies;
mod load_shorts;
mod migrations;
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
