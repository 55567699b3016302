//! Connection strings: as people have them, with our time limits, and never printed whole.

mod host;
mod text;

use std::{fmt, fs};

use sha2::{Digest, Sha256};
use tokio_postgres::{
    Config,
    config::{SslNegotiation, TargetSessionAttrs},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use self::host::Host;
use super::tls::{self, Mode};

/// A checked connection string with our time limits. Prints the target, never user or password.
#[derive(Clone)]
pub struct DatabaseUrl {
    /// One per host, to be tried in turn.
    hosts: Vec<Config>,
    tls: MakeRustlsConnect,
    mode: Mode,
    target: String,
    /// Of the text, and of the files that it names.
    digest: [u8; 32],
}

/// What other libraries read in a connection string, and has no meaning here: statements are unnamed anyway, and the pool
/// has its size.
const MEANINGLESS: [&str; 15] = [
    "pgbouncer",
    "connection_limit",
    "pool_timeout",
    "supa",
    // libpq's and other libraries', which change nothing for us: we send UTF-8, and use neither GSSAPI nor compression.
    "client_encoding",
    "fallback_application_name",
    "gssencmode",
    "gsslib",
    "keepalives_count",
    "krbsrvname",
    "sslcompression",
    "uselibpqcompat",
    // What desktop tools write into a URL.
    "env",
    "statusColor",
    "tLSMode",
];
/// Words of libpq that lead elsewhere, and the way round.
const ELSEWHERE: [(&str, &str); 5] = [
    ("passfile", "write the password into the string, and keep the string in a file: DATABASE_URL_FILE"),
    ("service", "write out what the service file says"),
    ("currentSchema", "the tables are those of the schema public: leave it out"),
    ("schema", "the tables are those of the schema public: leave it out"),
    ("sslcrl", "lists of revoked certificates are not read"),
];
const EXPECTED: &str = "postgres://user:password@host:5432/database, or host=... user=... password=... dbname=...";

impl DatabaseUrl {
    /// Reads a URL or a `key=value` string, and the files that it names; white space around it is ignored.
    ///
    /// Fails: what is wrong with it, without quoting it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let pairs = text::pairs(text).map_err(|form| format!("{form}; expected {EXPECTED}"))?;
        let mut tls = tls::Settings::default();
        let (mut names, mut addresses, mut ports) = (None, None, None);
        let mut rest = Vec::new();
        for (keyword, value) in pairs {
            match keyword.as_str() {
                "host" => names = Some(value),
                "hostaddr" => addresses = Some(value),
                "port" => ports = Some(value),
                "sslmode" => tls.mode = Some(value),
                "sslrootcert" => tls.roots = Some(value),
                "sslcert" => tls.certificate = Some(value.into()),
                "sslkey" => tls.key = Some(value.into()),
                "schema" | "currentSchema" if value == "public" => {}
                other if ELSEWHERE.iter().any(|(word, _)| *word == other) => {
                    let way = ELSEWHERE.iter().find(|(word, _)| *word == other).map_or("", |(_, way)| way);
                    return Err(format!("has {other}, which is not read here: {way}"));
                }
                meaningless if MEANINGLESS.contains(&meaningless) => {}
                "target_session_attrs" => {
                    // libpq's newer words for what matters here.
                    let value = match value.as_str() {
                        "primary" => "read-write",
                        "standby" => "read-only",
                        other => other,
                    };
                    rest.push(format!("{keyword}='{}'", escape(value)));
                }
                _ => rest.push(format!("{keyword}='{}'", escape(&value))),
            }
        }
        let common: Config = rest.join(" ").parse().map_err(|error| refused(&error))?;
        let hosts = Host::list(names.as_deref(), addresses.as_deref(), ports.as_deref())?;
        let mode = tls.mode(hosts.iter().all(Host::is_local))?;
        let direct = common.get_ssl_negotiation() == SslNegotiation::Direct;
        let digest = tls.files().fold(Sha256::new().chain_update(text), |digest, file| {
            digest.chain_update([0]).chain_update(fs::read(file).unwrap_or_default())
        });
        let client = tls.client(mode, direct)?;
        let mut target: Vec<_> = hosts.iter().map(|host| format!("{}:{}", host.name(), host.port)).collect();
        target.dedup();
        let database = common.get_dbname().or(common.get_user()).unwrap_or_default();
        Ok(Self {
            target: format!("{}/{database}", target.join(",")),
            hosts: hosts.iter().map(|host| host.config(common.clone(), mode)).collect(),
            tls: MakeRustlsConnect::new(client),
            mode,
            digest: digest.finalize().into(),
        })
    }

    /// Whether text and files are the same as those of `other`.
    pub fn same(&self, other: &Self) -> bool {
        self.digest == other.digest
    }

    /// What the driver connects with, host by host.
    pub fn hosts(&self) -> &[Config] {
        &self.hosts
    }

    /// How the driver encrypts a connection.
    pub const fn tls(&self) -> &MakeRustlsConnect {
        &self.tls
    }

    /// Whether any server that answers is trusted: asked for with `sslmode=require`.
    pub fn is_unverified(&self) -> bool {
        self.mode == Mode::Require
    }

    /// The same, but only where writing is allowed: of several hosts, the primary.
    pub fn primary(mut self) -> Self {
        for host in &mut self.hosts {
            host.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        self
    }
}

/// Words for what the driver refuses. The driver's may hold a piece of a password that was cut at the wrong place; only
/// the name of an option is safe, for it stands before any value.
fn refused(error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    if let Some(name) = cause.strip_prefix("unknown option ") {
        // What was cut at the wrong place may be a piece of a password.
        let is_word = name.trim_matches('`').bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        return if is_word {
            format!("has an unknown option {name}")
        } else {
            format!("is not a connection string; expected {EXPECTED}")
        };
    }
    cause.strip_prefix("invalid value for option ").map_or_else(
        || format!("is not a connection string; expected {EXPECTED}"),
        |name| format!("has a value for {name} that cannot be used"),
    )
}

fn escape(value: &str) -> String {
    value.replace('\\', r"\\").replace('\'', r"\'")
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.target)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_string_is_never_quoted() {
        for text in [
            "postgres://user:hunter2@host:port/db",
            "postgres://user:hunter2@host/db?sslmode=hunter2",
            "host=h password=hunter2 port=hunter2",
            "host=h hunter2",
            "host=h port=hunter2",
            "host=h sslmode=hunter2",
            "postgres://user:hunter2/db",
            "hunter2",
        ] {
            let problem = DatabaseUrl::parse(text).expect_err(text);
            assert!(!problem.contains("hunter2"), "{text}: {problem}");
        }
    }

    #[test]
    fn every_connection_string_in_the_docs_is_one() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let pages = std::fs::read_dir(root.join("docs")).unwrap().map(|page| page.unwrap().path());
        let mut found = 0;
        for page in pages.chain([root.join("README.md")]) {
            let text = std::fs::read_to_string(&page).unwrap();
            let urls = text
                .split(|end: char| end.is_whitespace() || "`()".contains(end))
                .map(|word| word.split_once("postgres://").map(|(_, rest)| format!("postgres://{rest}")));
            let keywords = text.lines().map(str::trim).map(|line| line.starts_with("host=").then(|| line.to_owned()));
            for example in urls.chain(keywords).flatten().filter(|example| !example.contains("...")) {
                match DatabaseUrl::parse(example.trim_end_matches([',', ';', '.', ':'])) {
                    Ok(_) => {}
                    // The file is the reader's.
                    Err(problem) => {
                        assert!(
                            problem.contains("sslrootcert that cannot be used"),
                            "{}: {example}: {problem}",
                            page.display()
                        );
                    }
                }
                found += 1;
            }
        }
        assert!(found >= 4, "{found}");
    }

    #[test]
    fn a_connection_string_prints_its_target_without_user_and_password() {
        let url = DatabaseUrl::parse(" postgres://user:hunter2@one:6543,two/shorts?sslmode=disable\n").unwrap();
        assert_eq!(format!("{url} {url:?}"), "one:6543,two:5432/shorts one:6543,two:5432/shorts");
    }

    #[test]
    fn both_forms_say_the_same() {
        let password = r"p@s:s/w%r#d\'s";
        let url = DatabaseUrl::parse(r"postgres://u:p%40s:s%2Fw%25r%23d%5C's@h:6543/d?sslmode=disable&pgbouncer=true")
            .unwrap();
        let keywords = r"host=h port=6543 user=u password='p@s:s/w%r#d\\\'s' dbname=d sslmode=disable target_session_attrs=primary";
        let keywords = DatabaseUrl::parse(keywords).unwrap();
        for read in [&url, &keywords] {
            assert_eq!(read.hosts()[0].get_password(), Some(password.as_bytes()));
            assert_eq!(read.hosts()[0].get_ports(), [6543]);
            assert_eq!(read.to_string(), "h:6543/d");
        }
        assert_eq!(keywords.hosts()[0].get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
    }

    #[test]
    fn postgres_is_verified_unless_it_is_here_or_somebody_asked_for_less() {
        let mode = |text: &str| DatabaseUrl::parse(text).map(|url| url.mode);
        for local in
            ["postgres://localhost/d", "postgres://127.0.0.9/d", "postgres://[::1]/d", "postgres:///d?host=/tmp"]
        {
            assert_eq!(mode(local), Ok(Mode::Disable), "{local}");
        }
        for away in [
            "postgres://db/d",
            "postgres://10.0.0.1/d",
            "postgres://localhost,db/d",
            "host=localhost hostaddr=10.0.0.1",
        ] {
            assert_eq!(mode(away), Ok(Mode::VerifyFull), "{away}");
        }
        assert_eq!(mode("postgres://db/d?sslmode=require"), Ok(Mode::Require));
        assert_eq!(mode("postgres://db/d?sslmode=require&sslrootcert=system"), Ok(Mode::VerifyCa));
        assert_eq!(mode("postgres://db/d?sslmode=disable"), Ok(Mode::Disable));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (text, words) in [
            ("postgres://h/d?colour=red", "unknown option `colour`"),
            ("postgres://h/d?sslmode=prefer", "sslmode that is prefer"),
            (
                "postgres://h/d?sslmode=verify-full&sslrootcert=/nowhere/ca.pem",
                "sslrootcert that cannot be used: /nowhere/ca.pem",
            ),
            ("postgres://h/d?sslcert=/nowhere/me.pem", "only one of sslcert and sslkey"),
            ("postgres://h/d?connect_timeout=soon", "`connect_timeout`"),
            ("postgres://h/d?target_session_attrs=prefer-standby", "`target_session_attrs`"),
            ("postgres://a,b:99999/d", "port"),
            ("host=a,b port=1,2,3", "one length"),
            ("hostaddr=db", "hostaddr"),
            ("user=u", "names no host"),
        ] {
            let problem = DatabaseUrl::parse(text).expect_err(text);
            assert!(problem.contains(words), "{text}: {problem}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic_or_shows_its_password(
            text in "[ -~]{0,60}",
            before in "(postgres|postgresql\\+asyncpg|jdbc:postgresql|mysql|)(://)?[a-z@:/?&= ]{0,20}",
            after in "[ -~]{0,30}",
        ) {
            let _ = DatabaseUrl::parse(&text);
            if let Err(problem) = DatabaseUrl::parse(&format!("{before}hunter2{after}")) {
                proptest::prop_assert!(!problem.contains("hunter2"), "{}", problem);
            }
        }
    }
}
