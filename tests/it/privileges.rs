//! A role for the service that can do what it has to, and nothing else: the one that docs/connecting.md creates.

use crate::support::{database::Database, docs, outage::refreshes_arrive, server::Server, treemap};

#[tokio::test]
async fn the_role_of_the_docs_can_serve_and_refresh_and_nothing_else() {
    let database = Database::with_sample();
    database.psql(&docs::block("connecting.md", "CREATE ROLE treemap_service"));
    let url = database.url_of("treemap_service");
    let arguments = ["--refresh-schedule", "* * * * * *", "--source-interval", "500ms", "--source-quiet", "100ms"];
    let server = Server::refreshing(&url, &arguments).await;
    server.becomes_ready().await;
    server.logged("listening for refreshes").await;
    server.logged("refreshed the view for the tick").await;
    refreshes_arrive(&server, || {
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
        // Since version 17 the right to refresh can be granted: the words are others.
        let refused = [refused, &refused.replace("must be owner of", "permission denied for")];
        assert!(refused.iter().any(|words| said.contains(*words)), "{statement}: {said}");
    }
}
