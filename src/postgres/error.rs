//! What can go wrong with the database, classified by what to do about it (by SQLSTATE, never by message).

use std::{error::Error, fmt, io, time::Duration};

use tokio_postgres::error::{DbError as Report, SqlState};

/// A failed step against the database. `Display` gives the whole story for a log or a terminal: what was tried, what
/// Postgres reported, and what mends it. None of it is for a client of the RPC.
#[derive(Debug)]
pub struct DbError {
    /// What to do about it.
    pub kind: Kind,
    /// What was being done, as "load the treemap".
    doing: &'static str,
    /// The words of Postgres, of the driver, or of a time limit of ours.
    cause: String,
}

/// The kinds of failure, by what to do about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No answer, a broken connection, or a server that is starting, stopping or full: it passes.
    Unreachable,
    /// A time limit of ours, or of the server, was reached.
    TimedOut,
    /// Another session holds a lock for longer than we wait.
    Locked,
    /// LISTEN does not deliver.
    NotDelivered,
    /// TLS failed: what one side wants the other does not offer, or does not trust.
    Tls,
    /// Password or database are wrong.
    Credentials,
    /// Postgres does not admit this user from here, or not in this way.
    NotAdmitted,
    /// The role may not do it.
    Privilege,
    /// A relation or function is missing.
    Missing,
    /// A column is missing, of a table that the service does not own.
    MissingColumn,
    /// The view exists but was never filled.
    NotPopulated,
    /// The server is a standby.
    ReadOnly,
    /// It conflicted with another transaction, and would succeed now.
    Conflict,
    /// The new rows of the view are not unique: the data is at fault.
    Duplicates,
    /// The disk or the memory of the server is full.
    Full,
    /// Anything else: the words of Postgres are all there is.
    Other,
}

impl Kind {
    fn of(error: &tokio_postgres::Error) -> Self {
        let Some(report) = error.as_db_error() else {
            return Self::of_transport(error);
        };
        match *report.code() {
            SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::CANNOT_CONNECT_NOW
            | SqlState::TOO_MANY_CONNECTIONS => Self::Unreachable,
            SqlState::QUERY_CANCELED => Self::TimedOut,
            SqlState::LOCK_NOT_AVAILABLE => Self::Locked,
            SqlState::INVALID_PASSWORD | SqlState::INVALID_CATALOG_NAME => Self::Credentials,
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION => Self::NotAdmitted,
            SqlState::INSUFFICIENT_PRIVILEGE => Self::Privilege,
            SqlState::UNDEFINED_TABLE | SqlState::UNDEFINED_FUNCTION | SqlState::UNDEFINED_OBJECT => Self::Missing,
            SqlState::UNDEFINED_COLUMN => Self::MissingColumn,
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE => Self::NotPopulated,
            SqlState::READ_ONLY_SQL_TRANSACTION => Self::ReadOnly,
            // How a standby refuses BEGIN READ WRITE.
            SqlState::FEATURE_NOT_SUPPORTED if report.routine() == Some("call_bool_check_hook") => Self::ReadOnly,
            SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED => Self::Conflict,
            SqlState::CARDINALITY_VIOLATION => Self::Duplicates,
            SqlState::UNIQUE_VIOLATION if is_of_the_view(report) => Self::Duplicates,
            SqlState::DISK_FULL | SqlState::OUT_OF_MEMORY => Self::Full,
            ref state if state.code().starts_with("08") => Self::Unreachable,
            _ => Self::Other,
        }
    }

    /// The kind of an error that Postgres did not report.
    fn of_transport(error: &tokio_postgres::Error) -> Self {
        let io = error.source().and_then(<dyn Error>::downcast_ref::<io::Error>);
        match io {
            // How the driver reports a server that is not what `target_session_attrs` asks for.
            Some(io) if io.kind() == io::ErrorKind::PermissionDenied => Self::ReadOnly,
            Some(io) if io.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<rustls::Error>) => Self::Tls,
            Some(_) => Self::Unreachable,
            None if error.is_closed() => Self::Unreachable,
            // "server does not support TLS" has no type of its own; these words are the driver's, and constant.
            None if error.to_string().starts_with("error performing TLS handshake") => Self::Tls,
            None => Self::Other,
        }
    }

    /// What to do about it, as a sentence; empty where the words of Postgres are all there is.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Unreachable => "Is Postgres running, and is that its address in DATABASE_URL?",
            Self::TimedOut => "Postgres is overloaded, or a session holds a lock: see pg_stat_activity.",
            Self::Locked => "Another session holds a lock on it: see pg_stat_activity.",
            Self::NotDelivered => "Set LISTEN_DATABASE_URL to a direct or session connection.",
            Self::Tls => {
                "Name the CA of Postgres with sslrootcert=FILE in the connection string, or set sslmode=disable where the \
                 network itself is private."
            }
            Self::Credentials => "Check user, password and database in DATABASE_URL.",
            Self::NotAdmitted => {
                "Check the user in DATABASE_URL, and pg_hba.conf; where Postgres demands encryption, set sslmode=verify-full, \
                 and where it demands a client certificate, sslcert and sslkey."
            }
            Self::Privilege => "Use the role that owns the treemap's objects, or have it grant what is missing.",
            Self::Missing => "Set up the database with: treemap migrate",
            Self::MissingColumn => "See which columns are expected with: treemap migrate --check",
            Self::NotPopulated => "Fill the view with: treemap refresh (and see treemap status)",
            Self::ReadOnly => "This is a standby: DATABASE_URL has to name the primary.",
            Self::Conflict => "Try again.",
            Self::Duplicates => "Rows are repeated where they must not be: look at the data that was loaded last.",
            Self::Full => "Free space on the database server.",
            Self::Other => "",
        }
    }

    /// The longest pause before a retry: short where it passes by itself, longer where somebody has to mend it, and longest where
    /// the attempt itself kept Postgres busy up to its time limit.
    pub const fn longest_pause(self) -> Duration {
        Duration::from_secs(match self {
            Self::Unreachable | Self::Locked | Self::Conflict | Self::ReadOnly => 10,
            Self::TimedOut => 900,
            _ => 60,
        })
    }
}

/// Whether a unique violation is about rows of the view: the log of refreshes has unique columns too, and is not filled from data.
fn is_of_the_view(report: &Report) -> bool {
    report.table() == Some("mv_treemap_data") || report.constraint() == Some("idx_mv_treemap_unique")
}

impl DbError {
    /// An error of the driver or of Postgres, while `doing` something.
    pub fn new(doing: &'static str, error: &tokio_postgres::Error) -> Self {
        let cause = error.as_db_error().map_or_else(
            || chain(error),
            |report| {
                let mut words = format!("{} (SQLSTATE {})", report.message(), report.code().code());
                let place = report.where_().and_then(|place| place.lines().next());
                for more in [report.detail(), report.hint(), place].into_iter().flatten() {
                    words = format!("{words}; {more}");
                }
                words
            },
        );
        Self { kind: Kind::of(error), doing, cause }
    }

    /// The same error, with the name of the server.
    pub fn at(self, target: &impl fmt::Display) -> Self {
        Self { cause: format!("{target}: {}", self.cause), ..self }
    }

    /// An error that Postgres did not report, of a kind that the caller knows.
    pub fn of_kind(kind: Kind, doing: &'static str, cause: impl Into<String>) -> Self {
        Self { kind, doing, cause: cause.into() }
    }
}

/// An error and all its causes: `tokio_postgres::Error` alone says no more than "db error".
fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        words = format!("{words}: {cause}");
        next = cause.source();
    }
    words
}

impl fmt::Display for DbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.doing, self.cause.trim_end_matches('.'))?;
        match self.kind.advice() {
            "" => Ok(()),
            advice => write!(f, ". {advice}"),
        }
    }
}

impl Error for DbError {}
