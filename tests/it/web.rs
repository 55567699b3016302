//! Connect, gRPC-Web and CORS on the wire, shape by shape: the contract of the web protocols, as a table. Where ours answers otherwise than
//! the published server, the reason stands beside the row.

use std::time::Duration;

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use industry_treemap::proto::{shorts::v1alpha1::GetIndustryTreeMapRequest, stocks::v1alpha1::IndustryTreeMap};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::codec::CompressionEncoding;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::pb;

use crate::{
    support::{
        database::Database,
        raw::{self, GET_TREEMAP},
        server::{self, Server, get},
        treemap,
        web::{Answer, Web, gzip},
    },
    web_abuse::{exchange, head},
};

const BODY: &str = r#"{"period":"3m","limit":1}"#;
const ORIGINS: [&str; 2] = ["--cors-origins", "http://localhost:3000,https://shorted.com.au,https://*.shorted.com.au"];

async fn ready() -> (Database, Server) {
    server::ready(&ORIGINS).await
}

fn proto() -> Vec<u8> {
    GetIndustryTreeMapRequest { period: "3m".into(), limit: 1, view_mode: 0 }.encode_to_vec()
}

fn envelope(flags: u8, bytes: &[u8]) -> Vec<u8> {
    [&[flags][..], &u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// What a row expects.
enum Expect {
    /// The treemap, with this content type.
    Treemap(&'static str),
    /// A refusal: HTTP status, code, and words of the message.
    Refused(u16, &'static str, &'static str),
    /// A response of HTTP alone, with a header.
    Http(u16, &'static str, &'static str),
}
use Expect::{Http, Refused, Treemap};

const JSON: &str = "application/json";
const PROTO: &str = "application/proto";
const INVALID: &str = "invalid_argument";
const UNMARSHAL: &str = "unmarshal message: ";

fn check(request: &Web, answer: &Answer, expected: &Expect) {
    let shown = || format!("{request:?} got {answer:?}");
    assert!(answer.header("date").ends_with(" GMT"), "{}", shown());
    match *expected {
        Treemap(content_type) => {
            assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, content_type), "{}", shown());
            let stocks = if content_type.starts_with(JSON) {
                let treemap: serde_json::Value = serde_json::from_slice(&answer.decompressed()).unwrap();
                treemap["stocks"].as_array().map_or(0, Vec::len)
            } else {
                IndustryTreeMap::decode(&answer.decompressed()[..]).unwrap().stocks.len()
            };
            assert!(stocks > 0, "{}", shown());
            assert!(!answer.header("treemap-version").is_empty(), "{}", shown());
            assert_eq!(answer.header("accept-encoding"), "gzip", "{}", shown());
            assert!(answer.header("vary").contains("Origin"), "{}", shown());
        }
        Refused(status, code, words) => {
            assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{}", shown());
            assert!(answer.json()["message"].as_str().unwrap().contains(words), "{}", shown());
            assert_eq!(answer.header("content-type"), JSON, "{}", shown());
            assert_eq!(
                (answer.header("cache-control"), answer.header("content-encoding")),
                ("no-store", ""),
                "{}",
                shown()
            );
        }
        Http(status, header, value) => {
            assert_eq!((answer.status.as_u16(), answer.header(header)), (status, value), "{}", shown());
            if status >= 400 {
                assert_eq!(answer.header("cache-control"), "no-store", "{}", shown());
                let words = if status == 404 && request.method != "HEAD" { "404 page not found\n" } else { "" };
                assert_eq!(answer.body, words, "{}", shown());
            }
            if status == 404 {
                assert_eq!(answer.header("x-content-type-options"), "nosniff", "{}", shown());
            }
        }
    }
}

async fn check_all(server: &Server, rows: Vec<(Web, Expect)>) {
    for (request, expected) in rows {
        check(&request, &request.http1(&server.addr).await, &expected);
        check(&request, &request.http2(&server.addr).await, &expected);
    }
}

const ACCEPT_POST: &str = "application/grpc, application/grpc+json, application/grpc+json; charset=utf-8, application/grpc+proto, \
    application/grpc-web, application/grpc-web+json, application/grpc-web+json; charset=utf-8, application/grpc-web+proto, \
    application/grpc-web-text, application/grpc-web-text+proto, application/json, application/json; charset=utf-8, application/proto";

const ACCEPT_POST_OF_STREAMS: &str = "application/connect+json, application/connect+proto, application/grpc, application/grpc+json, \
    application/grpc+json; charset=utf-8, application/grpc+proto, application/grpc-web, application/grpc-web+json, \
    application/grpc-web+json; charset=utf-8, application/grpc-web+proto, application/grpc-web-text, application/grpc-web-text+proto";

#[tokio::test]
async fn content_types_are_as_strict_as_the_contract() {
    let (_database, server) = ready().await;
    let typed = |kind: &str| Web::post(kind, BODY);
    let mut rows = vec![
        (typed("application/json"), Treemap(JSON)),
        (typed("application/json; charset=utf-8"), Treemap("application/json; charset=utf-8")),
        (typed("application/json;charset=UTF-8"), Treemap("application/json; charset=utf-8")),
        (typed("application/json;\tcharset=\"utf-8\""), Treemap("application/json; charset=utf-8")),
        (typed("Application/JSON"), Treemap(JSON)),
        (Web::post(PROTO, proto()), Treemap(PROTO)),
        (Web::new("POST", GET_TREEMAP).body(BODY), Http(415, "accept-post", ACCEPT_POST)),
    ];
    for kind in [
        "text/plain",
        "application/xml",
        "application/x-protobuf",
        "application/json; charset=latin1",
        "application/connect+json",
    ] {
        // Thirteen types where the published server has eleven: ours speaks gRPC-Web in base64 too.
        rows.push((typed(kind), Http(415, "accept-post", ACCEPT_POST)));
    }
    rows.push((Web { path: format!("{GET_TREEMAP}?x=1"), ..Web::json(BODY) }, Treemap(JSON)));
    let watch = "/treemap.v1.TreemapService/WatchTreemap".to_owned();
    rows.push((Web { path: watch, ..Web::json("{}") }, Http(415, "accept-post", ACCEPT_POST_OF_STREAMS)));
    check_all(&server, rows).await;
}

#[tokio::test]
async fn json_and_binary_requests_are_read_as_by_the_published_server() {
    let (_database, server) = ready().await;
    let invalid_period = "invalid period format";
    let mut rows = vec![(
        Web::json(""),
        Refused(400, INVALID, "unmarshal message: zero-length payload is not a valid JSON object"),
    )];
    for taken in [
        r#"{"period":"3m"}  "#,
        r#"{"period":"3m","other":{"a":[1,2]}}"#,
        r#"{"PERIOD":7}"#,
        // A field of another method.
        r#"{"version":2,"version":"x"}"#,
        r#"{"period":null,"limit":null,"viewMode":null}"#,
        r#"{"viewMode":"CURRENT_CHANGE"}"#,
        r#"{"view_mode":1}"#,
        r#"{"viewMode":1.0}"#,
        r#"{"viewMode":"CURRENT_VALUE"}"#,
        r#"{"limit":"10"}"#,
        r#"{"limit":10.0}"#,
        r#"{"limit":1e1}"#,
        r#"{"limit":"1e1"}"#,
        r#"{"limit":-0}"#,
        "{}",
    ] {
        rows.push((Web::json(taken), Treemap(JSON)));
    }
    for refused in [
        " ",
        "null",
        "[]",
        r#"{"period":"3m""#,
        "{}{}",
        "\u{feff}{}",
        r#"{"period":"\ud800"}"#,
        r#"{"limit":1,"limit":1}"#,
        r#"{"viewMode":1,"view_mode":1}"#,
        r#"{"limit":10.5}"#,
        r#"{"limit":" 10"}"#,
        r#"{"limit":""}"#,
        r#"{"limit":true}"#,
        r#"{"limit":2147483648}"#,
        r#"{"period":3}"#,
        r#"{"viewMode":true}"#,
    ] {
        rows.push((Web::json(refused), Refused(400, INVALID, UNMARSHAL)));
    }
    rows.extend([
        (Web::post(JSON, b"{\"period\":\"\xff\"}"), Refused(400, INVALID, UNMARSHAL)),
        (Web::json(r#"{"limit":-1}"#), Refused(400, INVALID, "limit must be positive")),
        (Web::json(r#"{"limit":501}"#), Refused(400, INVALID, "limit cannot exceed 500 for treemap data")),
        (Web::json(r#"{"viewMode":7}"#), Refused(400, INVALID, "invalid view mode. Valid modes: ")),
        (Web::json(&format!(r#"{{"period":"{}"}}"#, "x".repeat(4000))), Refused(400, INVALID, invalid_period)),
        // The published server has no limit; ours is 4 KiB.
        (
            Web::json(&format!(r#"{{"period":"{}"}}"#, "x".repeat(5000))),
            Refused(429, "resource_exhausted", "too large"),
        ),
        (Web::post(PROTO, ""), Treemap(PROTO)),
        (Web::post(PROTO, [proto(), vec![0xc2, 0x3e, 1, b'x']].concat()), Treemap(PROTO)),
        (Web::post(PROTO, &proto()[..3]), Refused(400, INVALID, UNMARSHAL)),
        (Web::post(PROTO, b"\x0a\x01\xff"), Refused(400, INVALID, UNMARSHAL)),
        (Web::post(PROTO, b"\x18\x07"), Refused(400, INVALID, "invalid view mode")),
        (Web::post(PROTO, b"\x0a\x024M"), Refused(400, INVALID, invalid_period)),
    ]);
    check_all(&server, rows).await;
}

#[tokio::test]
async fn headers_of_connect_are_read_as_by_todays_server() {
    let (_database, server) = ready().await;
    let with = |name: &str, value: &str| Web::json(BODY).header(name, value);
    let large = r#"{"period":"3m","limit":100}"#;
    let unknown = "unknown compression \"br\": supported encodings are gzip";
    check_all(
        &server,
        vec![
            (with("connect-protocol-version", "1"), Treemap(JSON)),
            (with("connect-protocol-version", ""), Treemap(JSON)),
            (
                with("connect-protocol-version", "2"),
                Refused(400, INVALID, "Connect-Protocol-Version must be \"1\": got \"2\""),
            ),
            (with("connect-timeout-ms", ""), Treemap(JSON)),
            (with("connect-timeout-ms", "5000"), Treemap(JSON)),
            (with("connect-timeout-ms", "9999999999"), Treemap(JSON)),
            // Codes map to HTTP by today's specification, where the published server has 408.
            (with("connect-timeout-ms", "0"), Refused(504, "deadline_exceeded", "deadline")),
            (with("connect-timeout-ms", "-1"), Refused(400, INVALID, "parse timeout: \"-1\" is negative")),
            (with("connect-timeout-ms", "soon"), Refused(400, INVALID, "parse timeout: ")),
            (
                with("connect-timeout-ms", "10000000000"),
                Refused(400, INVALID, "parse timeout: \"10000000000\" has >10 digits"),
            ),
            (with("content-encoding", "identity"), Treemap(JSON)),
            (with("content-encoding", "gzip").body(gzip(BODY.as_bytes())), Treemap(JSON)),
            (Web::post(PROTO, gzip(&proto())).header("content-encoding", "gzip"), Treemap(PROTO)),
            (with("content-encoding", "gzip"), Refused(400, INVALID, "get decompressor: gzip: ")),
            (with("content-encoding", "br"), Refused(501, "unimplemented", unknown)),
            (with("authorization", "Bearer nonsense"), Treemap(JSON)),
            (with("accept-encoding", "gzip").body(large), Http(200, "content-encoding", "gzip")),
            (with("accept-encoding", "deflate, gzip;q=0.5, br").body(large), Http(200, "content-encoding", "gzip")),
            (with("content-encoding", "gzip").body(gzip(large.as_bytes())), Http(200, "content-encoding", "gzip")),
            (with("accept-encoding", "br, zstd").body(large), Http(200, "content-encoding", "")),
            (with("accept-encoding", "*").body(large), Http(200, "content-encoding", "")),
            (with("accept-encoding", "gzip;q=0").body(large), Http(200, "content-encoding", "")),
            (with("accept-encoding", "gzip").body(r#"{"limit":-1}"#), Refused(400, INVALID, "limit must be positive")),
        ],
    )
    .await;
    let bomb = Web::json("").header("content-encoding", "gzip").body(gzip(&vec![b' '; 1_000_000]));
    check(&bomb, &bomb.http1(&server.addr).await, &Refused(429, "resource_exhausted", "too large"));
}

#[tokio::test]
async fn methods_and_paths_are_as_strict_as_the_contract() {
    let (_database, server) = ready().await;
    // GET and HEAD are served where the published server has POST alone: our method is free of side effects.
    let allow = "GET, HEAD, POST";
    let mut rows = vec![
        (Web::get("x=1"), Http(415, "accept-post", ACCEPT_POST)),
        (Web::new("GET", GET_TREEMAP).body(BODY).header("content-type", JSON), Http(415, "accept-post", ACCEPT_POST)),
        (Web::new("PUT", GET_TREEMAP), Http(405, "allow", allow)),
        (Web::new("DELETE", GET_TREEMAP), Http(405, "allow", allow)),
        (Web::new("OPTIONS", GET_TREEMAP), Http(405, "allow", allow)),
        (Web::new("OPTIONS", GET_TREEMAP).header("origin", "https://shorted.com.au"), Http(405, "allow", allow)),
        (Web::new("HEAD", GET_TREEMAP), Http(415, "accept-post", ACCEPT_POST)),
        (Web::new("HEAD", "/nowhere"), Http(404, "content-length", "19")),
        (Web::new("GET", "/health"), Http(200, "content-type", "text/plain; charset=utf-8")),
        (Web::new("POST", "/health"), Http(200, "x-content-type-options", "nosniff")),
        (Web::new("HEAD", "/health"), Http(200, "content-type", "text/plain; charset=utf-8")),
        (Web::new("PUT", "/health"), Http(405, "allow", allow)),
    ];
    for path in [
        "/",
        "/shorts.v1alpha1.ShortedStocksService/GetStock",
        "/other.Service/Method",
        "/shorts.v1alpha1.ShortedStocksService/GetIndustryTreeMap/",
        "/shorts.v1alpha1.shortedstocksservice/getindustrytreemap",
        // 307 to the clean path on the published server; no client sends it.
        "//shorts.v1alpha1.ShortedStocksService/GetIndustryTreeMap",
        "/grpc.health.v1.Health/Check",
    ] {
        rows.push((
            Web { path: path.into(), ..Web::json(BODY) },
            Http(404, "content-type", "text/plain; charset=utf-8"),
        ));
    }
    check_all(&server, rows).await;
    assert_eq!(Web::new("GET", "/health").http1(&server.addr).await.body, "OK");
    // Also where gRPC spoke: a type that is none of gRPC's, and an unknown method.
    let unknown =
        Web { path: "/shorts.v1alpha1.ShortedStocksService/GetStock".into(), ..Web::post("application/grpc", "") };
    assert_eq!(unknown.http2(&server.addr).await.status, 404);
    let unknown = Web { headers: Vec::new(), ..unknown }.header("content-type", "application/grpc-web+proto");
    assert_eq!(unknown.http1(&server.addr).await.status, 404);
}

#[tokio::test]
async fn http_1_may_be_of_version_0_ask_before_it_sends_a_body_or_send_none() {
    let (_database, server) = ready().await;
    let call = head(&format!("content-length: {}\r\n", BODY.len()));
    let older = format!("{}\r\n{BODY}", call.replace("HTTP/1.1", "HTTP/1.0"));
    let (answer, closed) = exchange(&server.addr, older.as_bytes(), Duration::from_secs(8)).await;
    assert!(closed && answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
    let none = head("connection: close\r\n\r\n");
    let (answer, _) = exchange(&server.addr, none.as_bytes(), Duration::from_secs(8)).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("zero-length payload"), "{answer}");
    let mut stream = TcpStream::connect(&server.addr).await.unwrap();
    stream.write_all(format!("{call}expect: 100-continue\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = [0; 8192];
    let read = stream.read(&mut answer).await.unwrap();
    assert_eq!(std::str::from_utf8(&answer[..read]).unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(BODY.as_bytes()).await.unwrap();
    let read = stream.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn health_on_the_service_port_is_200_with_a_model_and_503_without() {
    let database = Database::empty();
    let server = Server::start(&database).await;
    server.wait_for_log("not ready; retrying").await;
    let answer = Web::new("GET", "/health").http1(&server.addr).await;
    assert_eq!(answer.status, 503);
    assert!(std::str::from_utf8(&answer.body).unwrap().starts_with("not ready: cannot load the treemap"), "{answer:?}");
    let refused = Web::json(BODY);
    check(&refused, &refused.http1(&server.addr).await, &Refused(503, "unavailable", "not loaded yet"));
    treemap::treemap(&database, &["migrate"]).succeeds();
    server.wait_until_ready().await;
    assert_eq!(Web::new("GET", "/health").http2(&server.addr).await.status, 200);
    let empty = Web::json(BODY).http1(&server.addr).await;
    assert_eq!(empty.json(), serde_json::json!({}), "no rows are an empty object");
}

fn query(message: &str) -> String {
    format!(
        "connect=v1&encoding=json&message={}",
        percent_encoding::utf8_percent_encode(message, percent_encoding::NON_ALPHANUMERIC)
    )
}

#[tokio::test]
async fn get_is_answered_as_connect_has_it() {
    let (_database, server) = ready().await;
    let binary = BASE64_URL_SAFE_NO_PAD.encode(proto());
    let padded = format!("{}{}", binary, "=".repeat((4 - binary.len() % 4) % 4));
    let zipped = BASE64_URL_SAFE_NO_PAD.encode(gzip(&proto()));
    let large = GetIndustryTreeMapRequest { period: "3m".into(), limit: 100, view_mode: 0 }.encode_to_vec();
    let large = BASE64_URL_SAFE_NO_PAD.encode(gzip(&large));
    let unknown = "unknown compression \"br\": supported encodings are gzip";
    check_all(
        &server,
        vec![
            (Web::get(&query(BODY)), Treemap(JSON)),
            (Web::get(&format!("connect=v1&encoding=proto&base64=1&message={binary}")), Treemap(PROTO)),
            (Web::get(&format!("base64=1&connect=v1&encoding=proto&message={padded}&more=1")), Treemap(PROTO)),
            (Web::get(query(BODY).strip_prefix("connect=v1&").unwrap()), Treemap(JSON)),
            (Web::get(&query(BODY).replace("v1", "v2")), Refused(400, INVALID, "connect must be \"v1\": got \"v2\"")),
            (Web::get(&query(BODY).replace("json", "xml")), Http(415, "accept-post", ACCEPT_POST)),
            (Web::get("connect=v1&encoding=json"), Refused(400, INVALID, "missing message parameter")),
            (Web::get(&query("")), Refused(400, INVALID, "zero-length payload")),
            (Web::get("connect=v1&encoding=proto&message="), Treemap(PROTO)),
            (Web::get(&format!("{}&base64=0", query(BODY))), Treemap(JSON)),
            (Web::get(&format!("{}&base64=true", query(BODY))), Treemap(JSON)),
            (Web::get(&query(BODY).replace("v1", "")), Treemap(JSON)),
            // invalid_argument where the published server says unknown: the better code.
            (Web::get("connect=v1&encoding=proto&base64=1&message=a/b+"), Refused(400, INVALID, "illegal base64 data")),
            (
                Web::get(&format!("connect=v1&encoding=proto&base64=1&compression=gzip&message={zipped}")),
                Treemap(PROTO),
            ),
            (
                Web::get(&format!("connect=v1&encoding=proto&base64=1&compression=gzip&message={large}")),
                Http(200, "content-encoding", "gzip"),
            ),
            (
                Web::get(&query(r#"{"period":"3m"}"#)).header("accept-encoding", "gzip"),
                Http(200, "content-encoding", "gzip"),
            ),
            (Web::get(&format!("{}&compression=identity", query(BODY))), Treemap(JSON)),
            (Web::get(&format!("{}&compression=br", query(BODY))), Refused(501, "unimplemented", unknown)),
            (Web::get(&query(BODY)).header("connect-timeout-ms", "0"), Refused(504, "deadline_exceeded", "deadline")),
            (Web::get(&query(BODY)).header("accept-encoding", "gzip"), Http(200, "cache-control", CACHED)),
        ],
    )
    .await;
}

const CACHED: &str = "public, max-age=60, stale-while-revalidate=600, stale-if-error=86400";

#[tokio::test]
async fn an_answer_to_get_is_kept_by_its_entity_tag() {
    let (database, server) = ready().await;
    let get = Web::get(&query(r#"{"period":"3m"}"#));
    let answer = get.http1(&server.addr).await;
    let tag = answer.header("etag").to_owned();
    assert_eq!(tag, format!("W/\"{}\"", answer.header("treemap-version")));
    assert_eq!(answer.header("vary"), "Accept-Encoding, Origin");
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
    for known in [tag.clone(), format!("\"other\", {tag}"), tag.replace("W/", ""), "*".into()] {
        for known in [
            get.clone().header("if-none-match", &known).http1(&server.addr).await,
            get.clone().header("if-none-match", &known).http2(&server.addr).await,
        ] {
            assert_eq!(known.status, 304);
            assert!(known.body.is_empty());
            assert!(!known.headers.contains_key("content-type"), "there is no content");
            for name in [
                "etag",
                "cache-control",
                "vary",
                "treemap-version",
                "treemap-data-date",
                "treemap-last-refreshed",
                "treemap-period",
            ] {
                assert_eq!(known.header(name), answer.header(name), "{name}");
            }
        }
    }
    let other = get.clone().header("if-none-match", "W/\"other\"");
    assert_eq!(other.http1(&server.addr).await.status, 200);
    assert_eq!(other.header("if-none-match", &tag).http1(&server.addr).await.status, 304, "in the second of two lists");
    // 304 is a call that went well.
    let ok = "treemap_calls_total{protocol=\"connect\",grpc_code=\"OK\"}";
    assert!(server.metric(ok).await >= 9.0);
    let head = Web { method: http::Method::HEAD, ..get.clone() };
    for head in [head.http1(&server.addr).await, head.http2(&server.addr).await] {
        assert_eq!((head.status.as_u16(), head.header("etag")), (200, tag.as_str()));
        assert_eq!((head.body.len(), head.header("content-length")), (0, answer.header("content-length")));
    }
    database.psql(r#"UPDATE "company-metadata" SET industry = 'Elsewhere' WHERE stock_code = 'AAA'"#);
    crate::support::outage::refresh_and_wait(&server, || database.refresh()).await;
    let newer = get.header("if-none-match", &tag).http1(&server.addr).await;
    assert_eq!(newer.status, 200);
    assert_ne!(newer.header("etag"), tag);
    // By POST nothing is kept.
    assert_eq!(Web::json(BODY).http1(&server.addr).await.header("etag"), "");
}

#[tokio::test]
async fn the_time_that_caches_keep_an_answer_is_a_setting() {
    let database = Database::with_sample();
    for (setting, expected) in
        [("5m", "public, max-age=300, stale-while-revalidate=600, stale-if-error=86400"), ("off", "no-store")]
    {
        let server = Server::start_with(&database.url(), &["--cache-max-age", setting]).await;
        server.wait_until_ready().await;
        let answer = Web::get(&query(BODY)).http1(&server.addr).await;
        assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (200, expected));
    }
}

#[tokio::test]
async fn the_details_of_a_refusal_travel_in_connect_and_grpc_web() {
    let (_database, server) = ready().await;
    let refused = Web::json(r#"{"limit":-1}"#).http1(&server.addr).await.json();
    let detail = &refused["details"][0];
    assert_eq!(detail["type"], "google.rpc.BadRequest");
    let value = BASE64_STANDARD_NO_PAD.decode(detail["value"].as_str().unwrap()).unwrap();
    assert_eq!(pb::BadRequest::decode(&value[..]).unwrap().field_violations[0].field, "limit");
    let message = GetIndustryTreeMapRequest { limit: -1, ..Default::default() };
    let web = Web::post("application/grpc-web+proto", raw::message(&message)).http1(&server.addr).await;
    assert_eq!((web.status.as_u16(), web.header("grpc-status"), web.body.len()), (200, "3", 0));
    assert_eq!(web.header("grpc-message"), "limit must be positive");
    let details = BASE64_STANDARD_NO_PAD.decode(web.header("grpc-status-details-bin").trim_end_matches('=')).unwrap();
    assert_eq!(
        pb::Status::decode(&details[..]).unwrap().details[0].type_url,
        "type.googleapis.com/google.rpc.BadRequest"
    );
}

/// The message and the trailers of a body of gRPC-Web.
fn frames(body: &[u8]) -> (u8, Vec<u8>, String) {
    let length = |at: usize| u32::from_be_bytes(body[at + 1..at + 5].try_into().unwrap()) as usize;
    let end = 5 + length(0);
    assert_eq!((body[end], body.len()), (0x80, end + 5 + length(end)), "{body:?}");
    (body[0], body[5..end].to_vec(), String::from_utf8(body[end + 5..].to_vec()).unwrap())
}

#[tokio::test]
async fn grpc_web_is_answered_in_both_modes() {
    let (_database, server) = ready().await;
    let expected = get(&mut server.client().await, "3m", 1, 0).await.unwrap().into_inner();
    for kind in ["application/grpc-web+proto", "application/grpc-web"] {
        let request = Web::post(kind, envelope(0, &proto())).header("x-grpc-web", "1");
        for answer in [request.http1(&server.addr).await, request.http2(&server.addr).await] {
            assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, kind));
            assert_eq!(answer.header("grpc-accept-encoding"), "gzip");
            let (flags, message, trailers) = frames(&answer.body);
            assert_eq!((flags, IndustryTreeMap::decode(&message[..]).unwrap()), (0, expected.clone()));
            assert!(trailers.lines().any(|line| line == "grpc-status: 0") && trailers.ends_with("\r\n"), "{trailers}");
        }
    }
    let json = Web::post("application/grpc-web+json", envelope(0, BODY.as_bytes())).http1(&server.addr).await;
    let (_, message, _) = frames(&json.body);
    assert!(serde_json::from_slice::<serde_json::Value>(&message).unwrap()["stocks"].is_array());
    // The published server has no text mode; Google's clients need it for streams.
    let text = BASE64_STANDARD.encode(envelope(0, &proto()));
    let answer = Web::post("application/grpc-web-text", text).http1(&server.addr).await;
    assert_eq!(answer.header("content-type"), "application/grpc-web-text");
    let decoded: Vec<u8> = answer.body.chunks(4).flat_map(|group| BASE64_STANDARD.decode(group).unwrap()).collect();
    assert_eq!(IndustryTreeMap::decode(&frames(&decoded).1[..]).unwrap(), expected);

    let zipped = GetIndustryTreeMapRequest { period: "3m".into(), limit: 100, view_mode: 0 }.encode_to_vec();
    let asks = Web::post("application/grpc-web+proto", envelope(0, &zipped)).header("grpc-accept-encoding", "gzip");
    let sends = Web::post("application/grpc-web+proto", envelope(1, &gzip(&zipped))).header("grpc-encoding", "gzip");
    for request in [asks, sends] {
        let answer = request.http1(&server.addr).await;
        assert_eq!((answer.header("grpc-encoding"), frames(&answer.body).0), ("gzip", 1));
    }
    let status = async |request: Web| {
        let answer = request.http1(&server.addr).await;
        (answer.header("grpc-status").to_owned(), answer.header("grpc-message").replace("%22", "\""))
    };
    let web = |body: &[u8]| Web::post("application/grpc-web+proto", body);
    let whole = envelope(0, &proto());
    for (request, code, words) in [
        (web(&whole).header("grpc-encoding", "br"), "12", "unknown compression"),
        (web(&whole).header("grpc-timeout", "0m"), "4", "deadline"),
        (web(&whole).header("grpc-timeout", "soon"), "3", "protocol error: invalid timeout"),
        // The first two as the newest connect-go has them, where 1.15.0 has 2 and an answer; the last as 1.15.0.
        (web(b""), "12", "unary request has zero messages"),
        (web(&[whole.clone(), whole.clone()].concat()), "12", "unary request has multiple messages"),
        (web(&whole[..whole.len() - 1]), "3", "protocol error: promised 6 bytes in enveloped message, got 5 bytes"),
    ] {
        let (got, message) = status(request.clone()).await;
        assert!(got == code && message.contains(words), "{request:?}: {got} {message}");
    }
}

#[tokio::test]
async fn grpc_takes_gzip_and_speaks_json_and_http_1() {
    let (_database, server) = ready().await;
    let expected = get(&mut server.client().await, "3m", 100, 0).await.unwrap().into_inner();
    let message = GetIndustryTreeMapRequest { period: "3m".into(), limit: 100, view_mode: 0 }.encode_to_vec();
    let asks = Web::post("application/grpc", envelope(0, &message)).header("grpc-accept-encoding", "identity,gzip");
    let sends = Web::post("application/grpc+proto", envelope(1, &gzip(&message))).header("grpc-encoding", "gzip");
    for request in [asks, sends] {
        let answer = request.header("te", "trailers").http2(&server.addr).await;
        assert_eq!(
            (answer.header("grpc-encoding"), answer.body[0], answer.trailers["grpc-status"].to_str().unwrap()),
            ("gzip", 1, "0")
        );
        let message = crate::support::web::gunzip(&answer.body[5..]);
        assert_eq!(IndustryTreeMap::decode(&message[..]).unwrap(), expected);
    }
    let json = Web::post("application/grpc+json", envelope(0, BODY.as_bytes())).http2(&server.addr).await;
    assert!(serde_json::from_slice::<serde_json::Value>(&json.body[5..]).unwrap()["stocks"].is_array());
    let http1 = Web::post("application/grpc", envelope(0, &message)).header("te", "trailers").http1(&server.addr).await;
    assert_eq!(http1.trailers["grpc-status"], "0");
    assert_eq!(IndustryTreeMap::decode(&http1.body[5..]).unwrap(), expected);
    let refused = Web::post("application/grpc", envelope(1, &message)).header("grpc-encoding", "br");
    let refused = refused.http2(&server.addr).await;
    assert_eq!((refused.header("grpc-status"), refused.header("grpc-accept-encoding")), ("12", "gzip"));
    // Health too, for those who compress all that they send.
    let mut health = HealthClient::new(server.channel().await).send_compressed(CompressionEncoding::Gzip);
    health.check(HealthCheckRequest::default()).await.unwrap();
    for (timeout, code) in [("", 0), ("soon", 3), ("123456789m", 3), ("0m", 4), ("10S", 0)] {
        let (got, words) = raw::status(&server.addr, &[("grpc-timeout", timeout)], envelope(0, &message)).await;
        assert_eq!(got, code, "{timeout}: {words}");
    }
}

#[tokio::test]
async fn browsers_of_the_origins_that_are_set_may_call_and_no_others() {
    let (_database, server) = ready().await;
    let preflight = |origin: &str, method: &str, headers: &str| {
        let request =
            Web::new("OPTIONS", GET_TREEMAP).header("origin", origin).header("access-control-request-method", method);
        if headers.is_empty() { request } else { request.header("access-control-request-headers", headers) }
    };
    let simple = "connect-protocol-version,content-type";
    for (origin, method, headers) in [
        ("http://localhost:3000", "POST", simple),
        ("https://shorted.com.au", "POST", "authorization,connect-timeout-ms,grpc-timeout,x-grpc-web,x-user-agent"),
        ("https://a.b.shorted.com.au", "GET", "if-none-match"),
        ("https://shorted.com.au", "GET", ""),
        // Unsorted lists and spaces too: nothing is gained by refusing them.
        ("https://shorted.com.au", "POST", "content-type, connect-protocol-version"),
    ] {
        let answer = preflight(origin, method, headers).http1(&server.addr).await;
        assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (204, origin));
        assert_eq!(answer.header("access-control-max-age"), "7200");
        assert_eq!(answer.header("access-control-allow-methods"), "GET, POST");
        for header in headers.split(',') {
            let allowed = answer.header("access-control-allow-headers").to_ascii_lowercase();
            assert!(allowed.contains(header.trim()), "{header}");
        }
        assert_eq!(answer.header("vary"), "Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
        assert!(answer.body.is_empty());
    }
    for (origin, method, headers) in [
        ("https://evil.test", "POST", simple),
        ("null", "POST", simple),
        ("https://shorted.com.au.evil.test", "POST", simple),
        ("http://shorted.com.au", "POST", simple),
        ("https://shorted.com.au", "PUT", simple),
        ("https://shorted.com.au", "post", simple),
        ("https://shorted.com.au", "POST", "x-requested-with"),
    ] {
        let answer = preflight(origin, method, headers).http1(&server.addr).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("access-control-allow-origin")),
            (204, ""),
            "{origin} {method}"
        );
        assert!(answer.header("vary").starts_with("Origin"));
    }
    let origin = "https://shorted.com.au";
    for call in [Web::json(BODY), Web::json(r#"{"limit":-1}"#), Web::new("PUT", GET_TREEMAP), Web::get(&query(BODY))] {
        let answer = call.clone().header("origin", origin).http1(&server.addr).await;
        assert_eq!(answer.header("access-control-allow-origin"), origin, "{call:?}");
        let exposed = answer.header("access-control-expose-headers").to_ascii_lowercase();
        for name in
            ["grpc-status", "grpc-message", "grpc-status-details-bin", "etag", "treemap-version", "treemap-stale"]
        {
            assert!(exposed.contains(name), "{exposed}");
        }
        assert!(answer.header("vary").contains("Origin"));
        let foreign = call.header("origin", "https://evil.test").http1(&server.addr).await;
        assert_eq!(foreign.status, answer.status, "served, and the browser keeps it from the script");
        assert_eq!(foreign.header("access-control-allow-origin"), "");
    }
    // Every treemap-* header of an answer is exposed.
    let answer = Web::json(BODY).header("origin", origin).http1(&server.addr).await;
    let exposed = answer.header("access-control-expose-headers").to_ascii_lowercase();
    for name in answer.headers.keys().filter(|name| name.as_str().starts_with("treemap-")) {
        assert!(exposed.contains(name.as_str()), "{name}");
    }
    let unknown =
        Web::new("OPTIONS", "/health").header("origin", origin).header("access-control-request-method", "POST");
    assert_eq!(unknown.http1(&server.addr).await.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn without_origins_no_browser_may_call_and_a_star_lets_all() {
    let database = Database::with_sample();
    for (arguments, allowed) in [(&[][..], ""), (&["--cors-origins", "*"], "https://any.test")] {
        let server = Server::start_with(&database.url(), arguments).await;
        server.wait_until_ready().await;
        let answer = Web::json(BODY).header("origin", "https://any.test").http1(&server.addr).await;
        assert_eq!(answer.header("access-control-allow-origin"), allowed);
    }
}
