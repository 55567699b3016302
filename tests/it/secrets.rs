//! No secret is printed, in whatever form and wherever it is given by mistake.

use std::process::Command;

use tempfile::TempDir;

use crate::support::{
    database::Database,
    server::Server,
    treemap::{command, run},
};

/// Connection strings in every form that people have, and in some that they have by mistake. Nothing listens on port 1.
const FORMS: [&str; 14] = [
    "postgres://u:hunter2@127.0.0.1:1/d",
    "postgres://u:hunter2 sesame7@127.0.0.1:1/d",
    "postgres://u:one hunter2 sesame7@127.0.0.1:1/d",
    "postgres://u:hunter2/sesame7@127.0.0.1:1/d",
    "postgres://u:hunter2/d",
    "jdbc:postgresql://127.0.0.1:1/d?user=u&password=hunter2&x=y",
    "http://u:hunter2@127.0.0.1:1",
    "u:hunter2@127.0.0.1:1/d",
    "u:hunter2 sesame7@127.0.0.1:1/d",
    "host=127.0.0.1 port=1 password=hunter2",
    "host=127.0.0.1 port=1 password='hunter2 sesame7' dbname=d",
    "host=127.0.0.1 port=1 password = hunter2 dbname=d",
    "host=127.0.0.1 port=1 PASSWORD=a;hunter2&sesame7",
    "Host=127.0.0.1;Port=1;Pwd=hunter2;Database=d",
];
/// The secrets in them; one with a space in halves.
const SECRETS: [&str; 2] = ["hunter2", "sesame7"];

/// The settings of `serve` that are checked together, after the log has begun.
const SETTINGS: [&str; 31] = [
    "DATABASE_URL",
    "DATABASE_URL_FILE",
    "LISTEN_DATABASE_URL",
    "LISTEN_DATABASE_URL_FILE",
    "PORT",
    "TREEMAP_ADMIN_ADDR",
    "TREEMAP_CACHE_MAX_AGE",
    "TREEMAP_CORS_ORIGINS",
    "TREEMAP_DRAIN_DELAY",
    "TREEMAP_DRAIN_TIMEOUT",
    "TREEMAP_FROM",
    "TREEMAP_LISTEN_ADDR",
    "TREEMAP_MAX_AGE",
    "TREEMAP_MAX_CALLS",
    "TREEMAP_MAX_CONNECTIONS",
    "TREEMAP_MAX_CONNECTIONS_PER_CLIENT",
    "TREEMAP_MAX_CONNECTION_AGE",
    "TREEMAP_MAX_DATA_AGE",
    "TREEMAP_MAX_WATCHERS",
    "TREEMAP_MODEL_FILE",
    "TREEMAP_PAGE",
    "TREEMAP_POLL_INTERVAL",
    "TREEMAP_REFRESH_SCHEDULE",
    "TREEMAP_REFRESH_TIMEZONE",
    "TREEMAP_SOURCE_INTERVAL",
    "TREEMAP_SOURCE_LONGEST_WAIT",
    "TREEMAP_SOURCE_QUIET",
    "TREEMAP_TLS_CERT",
    "TREEMAP_TLS_CLIENT_CA",
    "TREEMAP_TLS_KEY",
    "TREEMAP_WATCH_HEARTBEAT",
];
/// Those that are checked before, each by itself.
const FIRST_SETTINGS: [&str; 4] =
    ["TREEMAP_LOG", "TREEMAP_LOG_FORMAT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL"];

/// Runs a command that ends, in a folder of its own; gives what it prints.
#[track_caller]
fn check(command: &mut Command) -> String {
    let folder = TempDir::new().unwrap();
    let run = run(command.current_dir(folder.path()));
    let printed = run.stdout() + &run.stderr();
    assert_silent(&printed, &format!("{command:?}"));
    printed
}

#[track_caller]
fn assert_silent(printed: &str, what: &str) {
    for secret in SECRETS {
        assert!(!printed.contains(secret), "{what} prints {secret}:\n{printed}");
    }
}

#[test]
fn no_help_shows_a_setting() {
    for form in FORMS {
        let settings = SETTINGS.map(|setting| (setting, form));
        for arguments in [&["--help"][..], &["serve", "--help"], &["serve", "-h"], &["help", "load", "shorts"]] {
            let mut help = command(arguments);
            help.envs(settings).envs(FIRST_SETTINGS.map(|setting| (setting, form)));
            let help = check(&mut help);
            assert!(help.contains("Usage: treemap"), "{help}");
        }
        for arguments in [&["load"][..], &["man"], &["completions", "bash"]] {
            assert!(check(command(arguments).envs(settings)).contains("shorts"), "{arguments:?}");
        }
    }
}

#[test]
fn no_setting_is_shown_when_it_is_refused() {
    for form in FORMS {
        let refused = check(command(&["serve"]).envs(SETTINGS.map(|setting| (setting, form))));
        assert!(refused.starts_with("error: "), "{refused}");
        for setting in SETTINGS.into_iter().chain(FIRST_SETTINGS) {
            let mut serve = command(&["serve"]);
            // It ends also where this one can be used.
            serve.env("TREEMAP_PAGE", "none").env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
            assert!(check(serve.env(setting, form)).contains("error: "), "{setting}");
        }
        for arguments in [&["refresh"][..], &["status"], &["migrate"], &["snapshot", "x"]] {
            for setting in ["DATABASE_URL", "DATABASE_URL_FILE"] {
                check(command(arguments).env(setting, form));
            }
        }
        for (admin, setting) in
            [("127.0.0.1:1", "TREEMAP_LISTEN_ADDR"), ("off", "TREEMAP_LISTEN_ADDR"), ("off", "PORT"), (form, "PORT")]
        {
            check(command(&["healthcheck"]).env("TREEMAP_ADMIN_ADDR", admin).env(setting, form));
        }
    }
}

#[test]
fn no_argument_is_shown_when_it_is_refused_as_a_whole_or_in_pieces() {
    for form in FORMS {
        let pieces: Vec<_> = form.split(' ').collect();
        for arguments in [
            &["serve", "--page", "none", "--database-url"][..],
            &["serve", "--page", "none", "--log"],
            &["serve", "--page", "none", "--database-url-file"],
            &["serve", "--listen-addr", "127.0.0.1:0", "--admin-addr", "off", "--from"],
            &["serve", "--max-calls"],
            &["serve", "--fast"],
            &["serve"],
            &["status", "--database-url"],
            &["migrate"],
            &["query"],
            &["query", "--format"],
            &["query", "--ca"],
            &["healthcheck", "--admin-addr"],
            &["completions"],
            &["sample", "--from"],
            &["load"],
            &[],
        ] {
            check(&mut command(&[arguments, &[form]].concat()));
            if pieces.len() > 1 {
                check(&mut command(&[arguments, &pieces[..]].concat()));
            }
        }
        let from = ["serve", "--listen-addr", "127.0.0.1:0", "--admin-addr", "off", "--from", form];
        let failed = check(command(&from).env("TREEMAP_LOG_FORMAT", "json"));
        let last: serde_json::Value = serde_json::from_str(failed.lines().last().unwrap()).unwrap();
        assert!(last["message"].as_str().unwrap().starts_with("TREEMAP_FROM names "), "{failed}");
    }
}

#[test]
fn no_name_of_a_file_or_a_server_is_shown() {
    let database = Database::with_sample();
    let one_report = ["--companies", "1", "--from", "2023-01-03", "--to", "2023-01-03"];
    for form in FORMS {
        let pieces: Vec<_> = form.split(' ').collect();
        for (arguments, more) in [
            (&["load", "shorts"][..], &[][..]),
            (&["load", "companies"][..], &[][..]),
            (&["snapshot"][..], &[][..]),
            (&["sample"][..], &one_report[..]),
            (&["status"][..], &[][..]),
            (&["status", "--json"][..], &[][..]),
        ] {
            for given in [&[form][..], &pieces[..]] {
                check(command(&[arguments, given, more].concat()).env("DATABASE_URL", database.url()));
            }
        }
    }
    // The reason is.
    let refused = check(command(&["load", "shorts", FORMS[0], "nowhere"]).env("DATABASE_URL", database.url()));
    assert_eq!(refused.matches("refused ***: No such file").count(), 2, "{refused}");
}

#[tokio::test]
async fn no_line_of_the_log_shows_a_secret() {
    let database = Database::with_sample();
    for form in [FORMS[1], FORMS[7], FORMS[11]] {
        for format in ["text", "json"] {
            let folder = TempDir::new().unwrap();
            let mut serve = command(&[]);
            serve.current_dir(folder.path()).env("TREEMAP_MODEL_FILE", form).env("TREEMAP_LOG_FORMAT", format);
            let server = Server::run(serve, &database.url(), &["--source-interval", "off"]).await;
            server.wait_for_log("loaded the treemap").await;
            assert!(
                server.log().contains("there is no model file") && server.log().contains("***"),
                "{}",
                server.log()
            );
            assert_silent(&server.log(), form);
        }
    }
}
