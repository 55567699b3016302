//! The role that docs/connecting.md creates for the service: it has the privileges that it needs, and no others.

use crate::support::{database::Database, docs, outage::refresh_and_wait, server::Server, treemap};

#[tokio::test]
async fn the_role_of_the_docs_can_serve_and_refresh_and_nothing_else() {
    let database = Database::with_sample();
    database.psql(&docs::block("connecting.md", "CREATE ROLE treemap_service"));
    let url = database.url_of("treemap_service");
    let arguments = ["--refresh-schedule", "* * * * * *", "--source-interval", "500ms", "--source-quiet", "100ms"];
    let server = Server::refreshing(&url, &arguments).await;
    server.wait_until_ready().await;
    server.wait_for_log("listening for refreshes").await;
    server.wait_for_log("refreshed the view for the tick").await;
    refresh_and_wait(&server, || {
        database.refresh();
    })
    .await;
    let status = treemap::run(treemap::command(&["status", "--max-data-age", "36500d"]).env("DATABASE_URL", &url));
    status.succeeds().prints(&["counted by Postgres", "all is well"]);
    assert!(!server.log().contains(" WARN ") && !server.log().contains(" ERROR "), "{}", server.log());

    // What the role may not read itself is looked at for it.
    database.psql("INSERT INTO shorts SELECT '2034-01-01', 'X', 'XXX', 1, 1, 1");
    let status = |arguments: &[&str]| {
        let arguments = [&["status", "--max-data-age", "36500d"][..], arguments].concat();
        treemap::run(treemap::command(&arguments).env("DATABASE_URL", &url))
    };
    status(&[]).exits(1).prints(&["1 rows of shorts have a date in the future, 2034-01-01"]);
    status(&["--json"]).exits(1).prints(&["\"source_changes_counted\": true"]);

    for (statement, refused) in [
        ("SELECT FROM shorts", "permission denied for table shorts"),
        ("DELETE FROM shorts", "permission denied for table shorts"),
        ("DELETE FROM treemap_refreshes", "permission denied for table treemap_refreshes"),
        ("REFRESH MATERIALIZED VIEW mv_treemap_data", "must be owner of materialized view mv_treemap_data"),
        ("DROP FUNCTION treemap_source_state()", "must be owner of function treemap_source_state"),
    ] {
        let said = database.psql_command().args(["-d", &url, "-c", statement]).output().unwrap();
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        // Since version 17 the privilege to refresh can be granted, and the message is a different one.
        let refused = [refused, &refused.replace("must be owner of", "permission denied for")];
        assert!(refused.iter().any(|words| said.contains(*words)), "{statement}: {said}");
    }

    // Where it is not, status says so, and uses what the last refresh has logged.
    database
        .psql("REVOKE EXECUTE ON FUNCTION treemap_source_facts() FROM treemap_service; SELECT refresh_treemap_data()");
    status(&[]).exits(1).prints(&["not looked at", "1 rows of shorts had a date in the future at the last refresh"]);
    database.psql("DELETE FROM shorts WHERE \"DATE\" = '2034-01-01'; SELECT refresh_treemap_data()");
    status(&[]).succeeds().prints(&["not looked at", "what was looked at is well"]);
    status(&["--json"]).succeeds().prints(&["\"source_changes_counted\": null"]);
}
