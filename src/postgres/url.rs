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
const MEANINGLESS: [&str; 14] = [
    "pgbouncer",
    "connection_limit",
    "pool_timeout",
    "supa",
    // libpq's and other libraries', which change nothing for us: we send UTF-8, and use neither GSSAPI nor compression.
    "client_encoding",
    "fallback_application_name",
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
/// Options that the driver reads.
const SERVED: [&str; 15] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "password",
    "sslnegotiation",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];
/// Options that are not served, mostly libpq's: the values that ask for what is done here anyway, and the way round for any other.
const ELSEWHERE: [(&str, &[&str], &str); 30] = [
    ("currentSchema", &["public"], "the tables are those of the schema public: leave it out"),
    ("gssdelegation", &["0"], "GSSAPI is not used: leave it out"),
    ("gssencmode", &["disable", "prefer"], "GSSAPI is not used: leave it out, and encrypt with sslmode=verify-full"),
    ("max_protocol_version", &["3.0", "3.2", "latest"], "protocol 3.0 is spoken: leave it out"),
    ("min_protocol_version", &["3.0"], "protocol 3.0 is spoken: leave it out"),
    ("oauth_client_id", &[], OAUTH),
    ("oauth_client_secret", &[], OAUTH),
    ("oauth_issuer", &[], OAUTH),
    ("oauth_scope", &[], OAUTH),
    ("passfile", &[], "write the password into the string, and keep the string in a file: DATABASE_URL_FILE"),
    ("replication", &["0", "false", "no", "off"], "this is no client of replication: leave it out"),
    ("require_auth", &[], "any login is made that the server asks for: leave it out, and use sslmode=verify-full"),
    ("requirepeer", &[], "the owner of a socket is not looked at: leave it out"),
    ("requiressl", &[], "write sslmode=verify-full, or require"),
    ("schema", &["public"], "the tables are those of the schema public: leave it out"),
    ("scram_client_key", &[], "write the password"),
    ("scram_server_key", &[], "write the password"),
    ("service", &[], "write out what the service file says"),
    ("servicefile", &[], "write out what the service file says"),
    ("ssl", &[], "write sslmode=verify-full, require or disable"),
    ("ssl_max_protocol_version", &["TLSv1.3"], TLS_VERSIONS),
    ("ssl_min_protocol_version", &["TLSv1", "TLSv1.1", "TLSv1.2"], TLS_VERSIONS),
    ("sslaccept", &[], "write sslmode=verify-full, or require to trust any certificate"),
    ("sslcertmode", &["allow"], "sslcert is sent if the server asks for it: leave one of them out"),
    ("sslcrl", &[], "lists of revoked certificates are not read: leave it out"),
    ("sslcrldir", &[], "lists of revoked certificates are not read: leave it out"),
    ("sslidentity", &[], "write sslcert and sslkey, both in PEM form"),
    ("sslkeylogfile", &[], "keys of TLS are not logged: leave it out"),
    (
        "sslpassword",
        &[],
        "store the key without a password (openssl pkey -in KEY -out NEW), readable by this user only",
    ),
    ("sslsni", &["1"], "the name of the host is always sent: leave it out"),
];
const OAUTH: &str = "logins with OAuth are not made: use a password or a certificate";
const TLS_VERSIONS: &str = "TLS 1.2 and 1.3 are spoken: leave it out; the server may demand more of its clients";
const EXPECTED: &str = "postgres://user:password@host:5432/database, or host=... user=... password=... dbname=...";

impl DatabaseUrl {
    /// Reads a URL or a `key=value` string, and the files that it names; white space around it is ignored.
    ///
    /// Fails: what is wrong with it, without quoting it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if is_of_dot_net(text) {
            return Err(format!("is a .NET connection string, with semicolons; expected {EXPECTED}"));
        }
        let pairs = text::pairs(text).map_err(|form| format!("{form}; expected {EXPECTED}"))?;
        let mut tls = tls::Settings::default();
        let (mut names, mut addresses, mut ports) = (None, None, None);
        let mut rest = Vec::new();
        for (keyword, value) in pairs {
            match keyword.as_str() {
                "host" => names = Some(value),
                "hostaddr" => addresses = Some(value),
                "port" => ports = Some(value),
                "sslmode" if value == "no-verify" => {
                    return Err("has an sslmode that is no-verify, node-postgres' word for require".into());
                }
                "sslmode" => tls.mode = Some(value),
                "sslrootcert" => tls.roots = Some(value),
                "sslcert" => tls.certificate = Some(value.into()),
                "sslkey" => tls.key = Some(value.into()),
                "target_session_attrs" => {
                    // libpq's newer words for what matters here.
                    let value = match value.as_str() {
                        "primary" => "read-write",
                        "standby" => "read-only",
                        other => other,
                    };
                    rest.push(format!("{keyword}='{}'", escape(value)));
                }
                served if SERVED.contains(&served) => rest.push(format!("{keyword}='{}'", escape(&value))),
                other => refuse_elsewhere(other, &value)?,
            }
        }
        let common: Config = rest.join(" ").parse().map_err(|error| refused(&error))?;
        // A name is printed, and what is no name may hold a password that was cut at the wrong place.
        if names.iter().flat_map(|names| names.split(',')).any(|name| !name.starts_with('/') && name.contains(NO_HOST))
        {
            return Err(format!("has a host with a character that no host has; expected {EXPECTED}"));
        }
        let hosts = Host::list(names.as_deref(), addresses.as_deref(), ports.as_deref())?;
        let mode = tls.mode(hosts.iter().all(Host::is_local))?;
        let direct = common.get_ssl_negotiation() == SslNegotiation::Direct;
        let digest = tls.files().fold(Sha256::new().chain_update(text), |digest, file| {
            digest.chain_update([0]).chain_update(fs::read(file).unwrap_or_default())
        });
        let client = tls.client(mode, direct)?;
        let mut target: Vec<_> = hosts.iter().map(|host| format!("{}:{}", host.name(), host.port)).collect();
        target.dedup();
        let database = common.get_dbname().or(common.get_user()).filter(|name| !name.contains('=')).unwrap_or_default();
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

/// What stands in no name of a host, but between the parts of a connection string.
const NO_HOST: [char; 6] = ['=', ';', '@', '&', '?', ' '];

/// Whether this is `Host=...;Username=...;Password=...`. Read as libpq's form, all of it would be the name of the host.
fn is_of_dot_net(text: &str) -> bool {
    let text = text.trim_start_matches(['"', '\'', '\u{feff}', ' ']);
    let mut parts = text.split(';').map(|part| part.split_once('='));
    let (Some(Some((name, value))), Some(Some(_))) = (parts.next(), parts.next()) else {
        return false;
    };
    // A password of another form may hold a semicolon.
    let is_password = name.eq_ignore_ascii_case("password") || name.contains(':');
    !is_password && !value.trim().contains(char::is_whitespace)
}

/// Ignores an option that changes nothing here, and refuses any other. Only names from the lists are printed: what was cut at the wrong
/// place may be a piece of a password.
fn refuse_elsewhere(option: &str, value: &str) -> Result<(), String> {
    if MEANINGLESS.contains(&option) {
        return Ok(());
    }
    let Some((name, held, way)) = ELSEWHERE.iter().find(|(name, ..)| *name == option) else {
        return Err(format!(
            "has an unknown option (not printed, for it may be a piece of a password: one with spaces needs quotes, in a URL & is %26); \
             expected {EXPECTED}"
        ));
    };
    if value.is_empty() || held.iter().any(|held| held.eq_ignore_ascii_case(value)) {
        return Ok(());
    }
    Err(format!("has {name}, which is not read here: {way}"))
}

/// Words for what the driver refuses. The driver's may hold a piece of a password that was cut at the wrong place; only
/// the name of an option is safe, for it is one of [`SERVED`].
fn refused(error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
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
            // Pieces of a password that look like the name of an option.
            "host=h user=u password=correct hunter=battery",
            "postgres://user@host/db?password=abc&hunter=1",
            "postgres://user@host/db?password=abc&Hunter=1",
            "host=h;user=u;password=hunter2",
            "Host=h;Username=u;Password=hunter2",
            "User Id=u;Password=hunter2;Server=h",
            "host=h,user=u,password=hunter2",
            "host=h&password=hunter2",
            "Password=hunter2;Host=h",
        ] {
            let problem = DatabaseUrl::parse(text).expect_err(text);
            assert!(!problem.to_lowercase().contains("hunter"), "{text}: {problem}");
        }
        // A database of this name may exist; it is not printed.
        let url = DatabaseUrl::parse("postgres://user@host/db&password=hunter2?sslmode=disable").unwrap();
        assert_eq!(url.to_string(), "host:5432/");
    }

    #[test]
    fn what_changes_nothing_here_is_ignored() {
        let options = MEANINGLESS.map(|name| (name, "any"));
        let held = ELSEWHERE.iter().flat_map(|(name, values, _)| values.iter().map(move |value| (*name, *value)));
        for (name, value) in options.into_iter().chain(held).chain([("sslpassword", "''")]) {
            let text = format!("host=h sslmode=disable {name}={value}");
            assert!(DatabaseUrl::parse(&text).is_ok(), "{text}");
        }
        // What looks like another form is a password.
        let text = "host=h user=u password=a;b=c sslmode=disable";
        assert_eq!(DatabaseUrl::parse(text).unwrap().hosts()[0].get_password(), Some(&b"a;b=c"[..]));
        let text = "postgres://u:a;b=c;d=e@h/d?sslmode=disable";
        assert_eq!(DatabaseUrl::parse(text).unwrap().hosts()[0].get_password(), Some(&b"a;b=c;d=e"[..]));
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
            ("postgres://h/d?colour=red", "an unknown option"),
            ("postgres://h/d?sslmode=no-verify", "word for require"),
            ("postgres://h/d?ssl=true", "ssl, which is not read here: write sslmode"),
            ("postgres://h/d?ssl_min_protocol_version=TLSv1.3", "ssl_min_protocol_version, which is not read here"),
            ("host=h sslsni=0", "sslsni, which"),
            ("host=h sslpassword=hunter2", "openssl pkey"),
            ("host=h require_auth=scram-sha-256", "require_auth, which"),
            ("host=/tmp requirepeer=postgres", "requirepeer, which"),
            ("host=h gssencmode=require", "gssencmode, which"),
            ("host=h gssdelegation=1", "gssdelegation, which"),
            ("host=h sslcertmode=require", "sslcertmode, which"),
            ("host=h sslcrldir=/etc/crl", "sslcrldir, which"),
            ("host=h service=prod", "write out what the service file says"),
            ("host=h schema=other", "leave it out"),
            ("Host=h;Username=u;Password=hunter2", ".NET"),
            ("Server=h;Port=5432;User Id=u;Password=hunter2;", ".NET"),
            ("\"host=h; database=d; username=u; password=hunter2\"", ".NET"),
            ("host=h,password=hunter2", "a host with a character"),
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
            if let Err(problem) = DatabaseUrl::parse(&format!("{before}hunter{after}")) {
                proptest::prop_assert!(!problem.contains("hunter"), "{}", problem);
            }
        }
    }
}
