//! The exact contract of GetIndustryTreeMap, tested with a generated client and with grpcurl.

use std::{collections::BTreeSet, path::Path, process::Command};

use tonic::Code;
use tonic_types::StatusExt;

use crate::support::{
    cluster::output,
    database::Database,
    server::{Server, get, stocks},
    treemap::run,
};

const PERIODS: [&str; 6] = ["3m", "6m", "1y", "2y", "5y", "max"];
const PERIOD_MESSAGE: &str = "invalid period format. Valid periods: 1D, 1W, 1M, 3M, 6M, 1Y, 2Y, 5Y, 10Y, MAX";
/// `(period, limit, view mode)`, the refused field, and the message.
const BAD: [(&str, i32, i32, &str, &str); 11] = [
    ("3x", 10, 0, "period", PERIOD_MESSAGE),
    (" 3m", 10, 0, "period", PERIOD_MESSAGE),
    ("3m ", 10, 0, "period", PERIOD_MESSAGE),
    ("3 months", 10, 0, "period", PERIOD_MESSAGE),
    ("3m", -1, 0, "limit", "limit must be positive"),
    ("3m", i32::MIN, 0, "limit", "limit must be positive"),
    ("3m", 501, 0, "limit", "limit cannot exceed 500 for treemap data"),
    ("3m", i32::MAX, 0, "limit", "limit cannot exceed 500 for treemap data"),
    ("3m", 10, 2, "view_mode", "invalid view mode. Valid modes: CURRENT_CHANGE, PERCENTAGE_CHANGE"),
    ("3m", 10, -1, "view_mode", "invalid view mode. Valid modes: CURRENT_CHANGE, PERCENTAGE_CHANGE"),
    // All three fields are wrong: only the first is reported.
    ("x", -1, 9, "period", PERIOD_MESSAGE),
];

#[tokio::test]
async fn bad_requests_are_refused_with_the_message_of_the_contract_and_the_field() {
    // No model is loaded: a bad request is refused at once, without the database.
    let database = Database::empty();
    let server = Server::start(&database).await;
    let mut client = server.client().await;
    for (period, limit, view_mode, field, message) in BAD {
        let status = get(&mut client, period, limit, view_mode).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::InvalidArgument, message),
            "{period:?} {limit} {view_mode}"
        );
        let violations = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations.len(), 1);
        assert_eq!((&*violations[0].field, &*violations[0].description), (field, message));
    }
}

#[tokio::test]
async fn every_accepted_period_is_served_in_any_letter_case() {
    let database = Database::with_sample();
    let server = Server::ready(&database).await;
    let mut client = server.client().await;
    let accepted = [
        ("", "3m"),
        ("1D", "3m"),
        ("1w", "3m"),
        ("1M", "3m"),
        ("3M", "3m"),
        ("3m", "3m"),
        ("6M", "6m"),
        ("1y", "1y"),
        ("2Y", "2y"),
        ("5y", "5y"),
        ("10Y", "max"),
        ("10y", "max"),
        ("MaX", "max"),
    ];
    for (asked, served) in accepted {
        let answer = get(&mut client, asked, 5, 1).await.unwrap();
        assert_eq!(answer.metadata().get("treemap-period").unwrap(), served, "{asked:?}");
        assert_eq!(answer.into_inner(), get(&mut client, served, 5, 1).await.unwrap().into_inner());
    }
}

#[tokio::test]
async fn the_answer_equals_the_ranked_window_query_for_every_period_mode_and_limit() {
    let database = Database::with_sample();
    let server = Server::ready(&database).await;
    let mut client = server.client().await;
    let sql = database.connect().await;
    for period in PERIODS {
        for (view_mode, mode, column) in
            [(0, "CURRENT_CHANGE", "current_short_position"), (1, "PERCENTAGE_CHANGE", "percentage_change")]
        {
            for limit in [1, 8, 10, 100, 500] {
                let found = stocks(&mut client, period, limit, view_mode).await;
                let window = format!(
                    r#"SELECT industry, product_code, value FROM (
                        SELECT *, {column} AS value, row_number() OVER (PARTITION BY industry
                            ORDER BY {column} DESC, product_code COLLATE "C") AS place
                        FROM mv_treemap_data WHERE period_name = '{period}' AND {column} IS NOT NULL
                    ) AS ranked WHERE place <= {limit} ORDER BY industry COLLATE "C", place"#
                );
                let function = format!("SELECT * FROM get_treemap_data('{period}', {limit}, '{mode}')");
                for query in [&window, &function] {
                    let rows = sql.query(query, &[]).await.unwrap();
                    let expected: Vec<(String, String, f64)> =
                        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
                    assert!(expected.len() >= 27, "the sample covers every industry");
                    assert_eq!(found, expected, "{query}");
                }
            }
        }
    }
}

#[tokio::test]
async fn industries_are_listed_once_in_byte_order_and_stocks_follow_them_by_rank() {
    let database = Database::migrated();
    let companies =
        [("B1", "'b'"), ("B2", "'b'"), ("A1", "'A'"), ("E1", "'\u{c9}nergie'"), ("Z1", "'Z'"), ("a1", "'A'")];
    database.add_companies(&companies);
    for (code, percent) in [("B1", "1"), ("B2", "3"), ("A1", "2"), ("E1", "9"), ("Z1", "4"), ("a1", "2")] {
        database.add_shorts(&[("2023-12-29", code, percent)]);
    }
    database.refresh();
    let server = Server::ready(&database).await;
    let answer = get(&mut server.client().await, "3m", 10, 0).await.unwrap().into_inner();
    // Byte order, not alphabetical order: Z before b before \u{c9}, and A1 before a1 at equal positions.
    assert_eq!(answer.industries, ["A", "Z", "b", "\u{c9}nergie"]);
    let codes: Vec<_> = answer.stocks.iter().map(|stock| &*stock.product_code).collect();
    assert_eq!(codes, ["A1", "a1", "Z1", "B2", "B1", "E1"]);
}

#[tokio::test]
async fn a_tie_at_the_limit_goes_to_the_first_product_code() {
    let database = Database::migrated();
    for code in ["CCC", "AAA", "DDD", "BBB"] {
        database.add_companies(&[(code, "'Banks'")]);
        database.add_shorts(&[("2023-12-01", code, "1"), ("2023-12-29", code, "2")]);
    }
    database.refresh();
    let server = Server::ready(&database).await;
    let mut client = server.client().await;
    for view_mode in [0, 1] {
        let codes: Vec<_> = stocks(&mut client, "3m", 2, view_mode).await.into_iter().map(|stock| stock.1).collect();
        assert_eq!(codes, ["AAA", "BBB"]);
    }
}

#[tokio::test]
async fn every_answer_is_complete_enough_to_be_drawn() {
    let database = Database::with_sample();
    let server = Server::ready(&database).await;
    let mut client = server.client().await;
    for view_mode in [0, 1] {
        let answer = get(&mut client, "1y", 3, view_mode).await.unwrap().into_inner();
        let industries: BTreeSet<_> = answer.industries.iter().collect();
        assert_eq!(industries.len(), answer.industries.len());
        assert_eq!(answer.stocks.iter().map(|stock| &stock.industry).collect::<BTreeSet<_>>(), industries);
        for stock in &answer.stocks {
            assert!(!stock.industry.is_empty() && !stock.product_code.is_empty() && stock.short_position.is_finite());
            assert!(!industries.contains(&stock.product_code));
        }
    }
}

#[tokio::test]
async fn a_limit_of_zero_means_a_hundred_and_five_hundred_is_the_maximum() {
    let database = Database::migrated();
    database.psql(
        r#"INSERT INTO "company-metadata" SELECT 'C' || n, 'N', 'Banks' FROM generate_series(1, 600) AS n;
        INSERT INTO shorts SELECT '2023-12-29', 'N', 'C' || n, 1, 100, n FROM generate_series(1, 600) AS n"#,
    );
    database.refresh();
    let server = Server::ready(&database).await;
    let mut client = server.client().await;
    for (limit, served) in [(0, 100), (1, 1), (499, 499), (500, 500)] {
        let stocks = stocks(&mut client, "3m", limit, 0).await;
        assert_eq!(stocks.len(), served);
        assert_eq!(stocks.last().unwrap().1, format!("C{}", 601 - served));
    }
}

#[tokio::test]
async fn an_empty_view_gives_an_empty_answer() {
    let database = Database::migrated();
    let server = Server::ready(&database).await;
    let answer = get(&mut server.client().await, "3m", 10, 0).await.unwrap();
    assert_eq!(answer.metadata().get("treemap-stale").unwrap(), "true", "an unknown age counts as stale");
    assert!(answer.metadata().get("treemap-data-date").is_none());
    let answer = answer.into_inner();
    assert!(answer.industries.is_empty() && answer.stocks.is_empty());
}

#[tokio::test]
async fn the_metadata_contains_the_served_period_and_its_freshness() {
    let database = Database::with_sample();
    // No stock of the newest report is served. Its date is still the anchor date.
    database.add_shorts(&[("2024-01-02", "ZZZZ", "1")]);
    database.refresh();
    let server = Server::start_with(&database.url(), &["--max-data-age", "36500d"]).await;
    server.wait_until_ready().await;
    let answer = get(&mut server.client().await, "1W", 10, 0).await.unwrap();
    let text = |key| answer.metadata().get(key).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(text("treemap-period").unwrap(), "3m");
    assert_eq!(text("treemap-data-date").unwrap(), "2024-01-02");
    let refreshed = database.psql(
        r#"SET timezone = 'UTC'; SELECT to_char(max(last_refreshed), 'YYYY-MM-DD"T"HH24:MI:SS') FROM mv_treemap_data"#,
    );
    let said = text("treemap-last-refreshed").unwrap();
    assert!(said.starts_with(&refreshed) && said.ends_with('Z'), "{said} for {refreshed}");
    assert_eq!(text("treemap-version").unwrap().len(), 16);
    assert_eq!(text("treemap-stale"), None, "the view is new, and the data may be old");
}

#[tokio::test]
async fn an_answer_is_marked_stale_when_the_view_is_older_than_the_maximum_age() {
    let database = Database::with_sample();
    let server = Server::start_with(&database.url(), &["--max-age", "2s", "--max-data-age", "36500d"]).await;
    server.wait_until_ready().await;
    let mut client = server.client().await;
    crate::support::eventually("the answer is marked stale", async || {
        let answer = get(&mut client.clone(), "3m", 1, 0).await.unwrap();
        answer.metadata().get("treemap-stale").map(|value| assert_eq!(value, "true"))
    })
    .await;
    assert!(!stocks(&mut client, "3m", 1, 0).await.is_empty(), "a stale answer still has stocks");
}

/// grpcurl from `make test`, or else from the PATH.
fn grpcurl(server: &Server, arguments: &[&str]) -> Command {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin/grpcurl");
    let mut command = if built.exists() { Command::new(built) } else { Command::new("grpcurl") };
    let (flags, rest) =
        arguments.split_at(arguments.iter().take_while(|word| word.starts_with('-') || word.starts_with('{')).count());
    command.arg("-plaintext").args(flags).arg(&server.addr).args(rest);
    command
}

const METHOD: &str = "shorts.v1alpha1.ShortedStocksService/GetIndustryTreeMap";

#[tokio::test]
async fn grpcurl_needs_no_proto_to_list_describe_and_call() {
    let database = Database::with_sample();
    let server = Server::ready(&database).await;
    let listed = output(&mut grpcurl(&server, &["list"]));
    let services: Vec<_> = listed.lines().collect();
    for service in ["grpc.health.v1.Health", "shorts.v1alpha1.ShortedStocksService", "treemap.v1.TreemapService"] {
        assert!(services.contains(&service), "{listed}");
    }
    let described = output(&mut grpcurl(&server, &["describe", "shorts.v1alpha1.ShortedStocksService"]));
    assert!(described.contains("rpc GetIndustryTreeMap") && described.contains("NO_SIDE_EFFECTS"), "{described}");
    let message = output(&mut grpcurl(&server, &["describe", "stocks.v1alpha1.TreemapShortPosition"]));
    for field in ["string industry = 1", "string product_code = 2", "double short_position = 3"] {
        assert!(message.contains(field), "{message}");
    }

    let request = r#"{"period":"6m","limit":1,"view_mode":"PERCENTAGE_CHANGE"}"#;
    let answer = output(&mut grpcurl(&server, &["-d", request, METHOD]));
    assert!(answer.contains("\"industries\"") && answer.contains("\"productCode\""), "{answer}");
    let verbose = output(&mut grpcurl(&server, &["-v", METHOD]));
    assert!(verbose.contains("treemap-period: 3m") && verbose.contains("treemap-data-date: 2023-12-29"), "{verbose}");
    let health = output(&mut grpcurl(&server, &["grpc.health.v1.Health/Check"]));
    assert!(health.contains("SERVING"), "{health}");
    let health = r#"{"service":"shorts.v1alpha1.ShortedStocksService"}"#;
    assert!(output(&mut grpcurl(&server, &["-d", health, "grpc.health.v1.Health/Check"])).contains("SERVING"));
}

#[tokio::test]
async fn grpcurl_shows_why_a_request_is_bad() {
    let database = Database::empty();
    let server = Server::start(&database).await;
    for (period, limit, view_mode, field, message) in BAD {
        let request = format!(r#"{{"period":"{period}","limit":{limit},"view_mode":{view_mode}}}"#);
        let code = 64 + Code::InvalidArgument as i32;
        run(&mut grpcurl(&server, &["-d", &request, METHOD])).exits(code).prints(&[
            "Code: InvalidArgument",
            &format!("Message: {message}"),
            "google.rpc.BadRequest",
            &format!("\"field\": \"{field}\""),
        ]);
    }
}

#[tokio::test]
async fn reflection_answers_in_both_of_its_versions() {
    use tonic_reflection::pb::{v1, v1alpha};
    let database = Database::empty();
    let server = Server::start(&database).await;
    let services = |names: Vec<String>| names.contains(&"shorts.v1alpha1.ShortedStocksService".to_owned());

    let mut client = v1::server_reflection_client::ServerReflectionClient::new(server.channel().await);
    let request = v1::ServerReflectionRequest {
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut answers = client.server_reflection_info(futures_util::stream::iter([request])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let v1::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    assert!(services(list.service.into_iter().map(|service| service.name).collect()));

    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(server.channel().await);
    let request = v1alpha::ServerReflectionRequest {
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut answers = client.server_reflection_info(futures_util::stream::iter([request])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    assert!(services(list.service.into_iter().map(|service| service.name).collect()));
}
