//! Runs the examples of the documentation and of the deployment files.

use std::{
    collections::BTreeSet,
    process::{Command, Output},
};

use crate::support::{
    cluster::{OwnCluster, PASSWORD, cluster, program},
    database::Database,
    docs,
    pooler::Pooler,
    server::{Server, ready},
    treemap::{command, run, treemap},
    web::Web,
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/refresh-materialized-views.sh");

fn refreshes(database: &Database) -> usize {
    database.psql("SELECT count(*) FROM treemap_refreshes").parse().unwrap()
}

fn script(url: &str) -> Output {
    let mut script = Command::new(SCRIPT);
    // psql may be only in the folder of the Postgres programs, and not on the PATH.
    let path = format!("{}:{}", program("psql").parent().unwrap().display(), std::env::var("PATH").unwrap());
    script.env("PATH", path).env("DATABASE_URL", url).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_script_for_pipelines_refreshes_directly_and_through_a_pooler() {
    let database = Database::with_sample();
    let pooler = Pooler::start(cluster().port);
    for url in [database.url(), pooler.url(&database), pooler.url(&database) + "?pgbouncer=true"] {
        let before = refreshes(&database);
        let ran = script(&url);
        let said = text(&ran.stdout);
        assert!(ran.status.success(), "{said}{}", text(&ran.stderr));
        for words in ["before:", "after:", "populated", "refreshed", "2023-12-29", "360", "kB"] {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert_eq!(refreshes(&database), before + 1);
    }
}

#[test]
fn the_script_for_pipelines_fails_with_the_reason() {
    let database = Database::empty();
    for (url, reason) in [
        (String::new(), "DATABASE_URL is not set"),
        (database.url(), "relation \"public.treemap_refreshes\" does not exist"),
        (database.url().replace(&database.name, "no_such_database"), "database \"no_such_database\" does not exist"),
    ] {
        let ran = script(&url);
        assert_eq!(ran.status.code(), Some(1), "{}", text(&ran.stdout));
        assert!(text(&ran.stderr).contains(reason), "{}", text(&ran.stderr));
    }
    let database = Database::with_sample();
    database.psql("DROP INDEX idx_mv_treemap_unique");
    let ran = script(&database.url());
    assert_eq!(ran.status.code(), Some(1));
    let why = text(&ran.stderr);
    assert!(why.contains("no usable unique index") && why.contains("the view was not refreshed"), "{why}");
}

#[test]
fn the_python_example_of_the_docs_refreshes_directly_and_through_a_pooler() {
    let database = Database::with_sample();
    let pooler = Pooler::start(cluster().port);
    let has_asyncpg = |python: &&str| {
        Command::new(python).args(["-c", "import asyncpg"]).output().is_ok_and(|ran| ran.status.success())
    };
    let Some(python) = ["/usr/bin/python3", "python3"].into_iter().find(has_asyncpg) else {
        let debian = std::path::Path::new("/etc/debian_version").exists();
        assert!(!debian, "no Python has asyncpg; make test installs it");
        return eprintln!("no Python has asyncpg; not tested");
    };
    for url in [database.url(), pooler.url(&database), pooler.url(&database)] {
        let before = refreshes(&database);
        let mut ran = Command::new(python);
        let ran =
            ran.args(["-c", &docs::block("setup.md", "import asyncpg")]).env("DATABASE_URL", url).output().unwrap();
        assert!(ran.status.success(), "{}", text(&ran.stderr));
        assert_eq!(refreshes(&database), before + 1);
    }
}

#[test]
fn the_pg_cron_example_of_the_docs_refreshes_the_view() {
    if !program("initdb").with_file_name("../lib/pg_cron.so").exists() {
        let debians = program("initdb").starts_with("/usr/lib/postgresql");
        assert!(!debians, "pg_cron is not installed; make test installs it");
        return eprintln!("this Postgres comes without pg_cron; not tested");
    }
    let own = OwnCluster::start(&["shared_preload_libraries=pg_cron", "cron.use_background_workers=on"]);
    let database = Database::with_sample_in(&own);
    own.psql("postgres", "CREATE EXTENSION pg_cron");
    let schedule = docs::block("setup.md", "cron.schedule_in_database")
        .replace("'shorts'", &format!("'{}'", database.name))
        .replace("0 17 * * *", "* * * * *");
    let before = refreshes(&database);
    own.psql("postgres", &schedule);
    // The next minute begins within sixty seconds, and pg_cron runs some seconds later.
    let begun = std::time::Instant::now();
    while refreshes(&database) == before {
        let runs = own.psql("postgres", "SELECT * FROM cron.job_run_details");
        assert!(begun.elapsed().as_secs() < 120, "no refresh by pg_cron: {runs}");
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
}

#[test]
fn the_sql_example_of_the_docs_for_a_production_database_runs() {
    let database = Database::migrated();
    database.psql(docs::block("setup.md", "CREATE INDEX CONCURRENTLY").trim());
    let down = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/down/006_treemap.sql");
    let ran = database.psql_command().args(["-1", "-f", down]).output().unwrap();
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let up = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/006_treemap.sql");
    let ran = database.psql_command().args(["-1", "-f", up]).output().unwrap();
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    treemap(&database, &["migrate", "--check"]).succeeds();
}

#[test]
fn the_steps_of_compose_work_in_order_and_can_be_repeated() {
    let compose = docs::file("compose.yaml");
    let folder = tempfile::tempdir().unwrap();
    let steps: Vec<Vec<String>> = compose
        .lines()
        .filter_map(|line| line.trim().strip_prefix("command: [")?.strip_suffix(']'))
        .map(|words| {
            words.split(", ").map(|word| word.replace("/sample", &folder.path().display().to_string())).collect()
        })
        .collect();
    let names: Vec<&str> = steps.iter().map(|step| step[0].as_str()).collect();
    assert_eq!(names, ["migrate", "sample", "load", "load", "refresh"]);
    let database = Database::empty();
    for _ in 0..2 {
        for step in &steps {
            let step: Vec<&str> = step.iter().map(String::as_str).collect();
            treemap(&database, &step).succeeds();
        }
    }
    assert_eq!(database.psql("SELECT count(*) > 0 FROM mv_treemap_data"), "t");
}

#[tokio::test]
async fn the_healthcheck_prints_ready_or_the_reason() {
    let check = |addr: &str| run(&mut command(&["healthcheck", "--admin-addr", addr]));
    let unready = Database::empty();
    let server = Server::start(&unready).await;
    server.wait_for_log("not ready; retrying").await;
    check(&server.admin().await).exits(1).prints(&["not ready: cannot load the treemap", "treemap migrate"]);
    let database = Database::with_sample();
    let server = Server::start_with(&database.url(), &["--admin-addr", "0.0.0.0:0"]).await;
    server.wait_until_ready().await;
    let port = server.admin().await.split(':').next_back().unwrap().to_owned();
    check(&format!("0.0.0.0:{port}")).succeeds().prints(&["ready"]);
    drop(server);
    check(&format!("127.0.0.1:{port}")).exits(1).prints(&["no answer from http://127.0.0.1:"]);
    // Without the admin port there is no /readyz: a server that accepts connections counts as ready.
    let server = Server::start_with(&database.url(), &["--admin-addr", "off"]).await;
    let off = |addr: &str| run(&mut command(&["healthcheck", "--admin-addr", "off", "--listen-addr", addr]));
    off(&server.addr).succeeds().prints(&["TREEMAP_ADMIN_ADDR is off"]);
    let addr = server.addr.clone();
    drop(server);
    off(&addr).exits(1).prints(&["no answer from 127.0.0.1:"]);
}

#[test]
fn the_version_says_which_commit_was_built() {
    let printed = run(&mut command(&["--version"])).succeeds().stdout();
    let version = concat!("treemap ", env!("CARGO_PKG_VERSION"));
    let mut git = Command::new("git");
    git.args(["log", "-1", "--date=format-local:%Y-%m-%d", "--format=%H %cd"]).env("TZ", "UTC");
    let log = git.current_dir(env!("CARGO_MANIFEST_DIR")).output().map(|ran| text(&ran.stdout)).unwrap_or_default();
    match log.trim().split_once(' ') {
        Some((commit, date)) => assert_eq!(printed, format!("{version} ({}, {date})\n", &commit[..7])),
        None => assert!(printed.starts_with(version), "{printed}"),
    }
}

#[test]
fn completions_and_the_manual_page_name_every_command_and_show_no_secret() {
    for (line, words) in [
        ("completions bash", ["complete -F _treemap", "healthcheck", "--listen-addr"]),
        ("completions zsh", ["#compdef treemap", "healthcheck", "--listen-addr"]),
        ("completions fish", ["complete -c treemap", "healthcheck", "listen-addr"]),
        ("completions powershell", ["Register-ArgumentCompleter", "healthcheck", "--listen-addr"]),
        ("completions elvish", ["edit:completion", "healthcheck", "--listen-addr"]),
        ("man", [".TH treemap 1", ".SH \"treemap healthcheck\"", "\\-\\-listen\\-addr"]),
        ("serve --help", ["DATABASE_URL", "TREEMAP_LISTEN_ADDR", "--listen-addr"]),
    ] {
        // `run` fails when it finds the password in the output.
        let arguments: Vec<_> = line.split(' ').collect();
        run(command(&arguments).env("DATABASE_URL", PASSWORD)).succeeds().prints(&words);
    }
}

#[test]
fn the_systemd_unit_is_sound_and_confined() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("treemap.service");
    // The program has to exist.
    let unit = docs::file("deploy/systemd/treemap.service");
    std::fs::write(&file, unit.replace("/usr/local/bin/treemap", env!("CARGO_BIN_EXE_treemap"))).unwrap();
    let analyze = |arguments: &[&str]| Command::new("systemd-analyze").args(arguments).arg(&file).output();
    let Ok(ran) = analyze(&["verify", "--man=no"]) else {
        let debian = std::path::Path::new("/etc/debian_version").exists();
        assert!(!debian, "systemd-analyze is not installed; make test installs it");
        return eprintln!("this machine has no systemd-analyze; not tested");
    };
    // An unknown key is only a warning, with exit code 0. Other units of this machine may have warnings too.
    let warnings = text(&ran.stderr);
    assert!(ran.status.success() && !warnings.contains("treemap.service"), "{warnings}");
    // In tenths: it is 1.1 with systemd 252, and each version of systemd counts a little differently.
    let ran = analyze(&["security", "--offline=true", "--no-pager", "--threshold=20"]).unwrap();
    assert!(ran.status.success(), "{}{}", text(&ran.stdout), text(&ran.stderr));
}

/// The settings of the server in a manifest, as flags; without its addresses.
fn settings_of(manifest: &str) -> Vec<String> {
    let setting = |line: &str| {
        let (name, value) =
            line.trim().strip_prefix("- { name: TREEMAP_")?.strip_suffix(" }")?.split_once(", value: ")?;
        Some((format!("--{}", name.to_lowercase().replace('_', "-")), value.trim_matches('"').to_owned()))
    };
    let settings = docs::file(manifest).lines().filter_map(setting).collect::<Vec<_>>();
    settings.into_iter().filter(|(name, _)| !name.ends_with("-addr")).flat_map(|(name, value)| [name, value]).collect()
}

#[tokio::test]
async fn with_the_settings_for_cloud_run_probes_are_answered_and_the_drain_fits_its_ten_seconds() {
    let settings = settings_of("deploy/cloudrun/service.yaml");
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let seconds = |name: &str| -> u32 {
        let value = settings[settings.iter().position(|setting| *setting == name).unwrap() + 1];
        value.strip_suffix('s').unwrap().parse().unwrap()
    };
    assert!(seconds("--drain-delay") + seconds("--drain-timeout") < 10);
    let (_database, mut server) = ready(&settings).await;
    // Its probes speak HTTP/1.1; what comes through its proxy is HTTP/2.
    let health = Web::new("GET", "/health");
    assert_eq!(health.http1(&server.addr).await.status, 200);
    assert_eq!(health.http2(&server.addr).await.status, 200);
    server.signal("TERM");
    assert!(server.wait_for_exit().await.success());
}

#[test]
fn the_deployment_files_name_only_settings_that_exist() {
    let settings = |text: &str| -> BTreeSet<String> {
        let words = text.split(|letter: char| !letter.is_ascii_uppercase() && letter != '_');
        let is_setting = |word: &&str| word.starts_with("TREEMAP_") || word.contains("DATABASE_URL");
        words.filter(is_setting).map(str::to_owned).collect()
    };
    let mut known = settings(&run(&mut command(&["serve", "--help"])).succeeds().stdout());
    // Read by the build.
    known.insert("TREEMAP_COMMIT".into());
    for file in [
        "Dockerfile",
        "compose.yaml",
        "deploy/cloudrun/service.yaml",
        "deploy/cloudrun/refresh-job.yaml",
        "deploy/kubernetes/deployment.yaml",
        "deploy/kubernetes/migrate/job.yaml",
        "deploy/systemd/treemap.service",
    ] {
        let used = settings(&docs::file(file));
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}, which treemap serve --help does not have");
    }
}
