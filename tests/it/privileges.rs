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
    status.succeeds();
    assert!(!server.log().contains(" WARN ") && !server.log().contains(" ERROR "), "{}", server.log());

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
}
