//! Tests of the service with the real binary and a real Postgres. The name of a test is the promise that it checks.

#![allow(clippy::float_cmp, reason = "counts, which /metrics writes as floats")]

mod answer;
mod bad_input;
mod cdn;
mod clients;
mod clients_page;
mod deploy;
mod failover;
mod floods;
mod limits;
mod load_companies;
mod load_shorts;
mod migrations;
mod mixed;
mod odd_databases;
mod operations;
mod outages;
mod page;
mod picture;
mod pooler;
mod privileges;
mod query;
mod real_data;
mod refresh;
mod refresher;
mod reload;
mod rpc;
mod sample;
mod secrets;
mod serve;
mod shares;
mod soak;
mod status;
mod support;
mod tls;
mod view;
mod warm_start;
mod watch;
mod web;
mod web_abuse;
