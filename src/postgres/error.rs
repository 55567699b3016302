//! What can go wrong with the database, told apart by what is to be done about it (by SQLSTATE, never by message).

use std::{error::Error, fmt, io, time::Duration};

use tokio_postgres::error::SqlState;

/// A failed step against the database. `Display` gives the whole story for a log or a terminal: what was tried, what
/// Postgres said, and what mends it. None of it is for a client of the RPC.
#[derive(Debug)]
pub struct DbError {
    /// What it calls for.
    pub kind: Kind,
    /// What was being done, as "load the treemap".
    doing: &'static str,
    /// What was said: by Postgres, by the driver, or by a clock of ours.
    cause: String,
}

/// The kinds of failure, by what is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nobody answers, the connection broke, or the server is starting, stopping or full: it passes.
    Unreachable,
    /// A bound of ours, or the server's, was reached.
    TimedOut,
    /// Someone else holds a lock for longer than we wait.
    Locked,
    /// LISTEN does not deliver.
    NotDelivered,
    /// No private connection could be made: what one side wants the other does not offer, or does not believe.
    Tls,
    /// User, password or database are wrong.
    Credentials,
    /// The role may not do it.
    Privilege,
    /// A relation or function is missing.
    Missing,
    /// The view exists but was never filled.
    NotPopulated,
    /// The server is a standby.
    ReadOnly,
    /// It ran into another transaction, and would succeed now.
    Conflict,
    /// The new rows are not unique: the data is at fault.
    Duplicates,
    /// The disk or the memory of the server is full.
    Full,
    /// Anything else: what Postgres says is all there is to say.
    Other,
}

impl Kind {
    fn of(error: &tokio_postgres::Error) -> Self {
        let Some(state) = error.code() else {
            return Self::of_transport(error);
        };
        match *state {
            SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::CANNOT_CONNECT_NOW
            | SqlState::TOO_MANY_CONNECTIONS => Self::Unreachable,
            SqlState::QUERY_CANCELED => Self::TimedOut,
            SqlState::LOCK_NOT_AVAILABLE => Self::Locked,
            SqlState::INVALID_PASSWORD
            | SqlState::INVALID_AUTHORIZATION_SPECIFICATION
            | SqlState::INVALID_CATALOG_NAME => Self::Credentials,
            SqlState::INSUFFICIENT_PRIVILEGE => Self::Privilege,
            SqlState::UNDEFINED_TABLE
            | SqlState::UNDEFINED_FUNCTION
            | SqlState::UNDEFINED_COLUMN
            | SqlState::UNDEFINED_OBJECT => Self::Missing,
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE => Self::NotPopulated,
            SqlState::READ_ONLY_SQL_TRANSACTION => Self::ReadOnly,
            SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED => Self::Conflict,
            SqlState::CARDINALITY_VIOLATION | SqlState::UNIQUE_VIOLATION => Self::Duplicates,
            SqlState::DISK_FULL | SqlState::OUT_OF_MEMORY => Self::Full,
            _ if state.code().starts_with("08") => Self::Unreachable,
            _ => Self::Other,
        }
    }

    /// Of an error that is not Postgres' own.
    fn of_transport(error: &tokio_postgres::Error) -> Self {
        let io = error.source().and_then(<dyn Error>::downcast_ref::<io::Error>);
        match io {
            // The driver's way to say that the server is not what `target_session_attrs` asks for.
            Some(io) if io.kind() == io::ErrorKind::PermissionDenied => Self::ReadOnly,
            Some(io) if io.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<rustls::Error>) => Self::Tls,
            Some(_) => Self::Unreachable,
            None if error.is_closed() => Self::Unreachable,
            // "server does not support TLS" has no type of its own; these words are the driver's, and constant.
            None if error.to_string().starts_with("error performing TLS handshake") => Self::Tls,
            None => Self::Other,
        }
    }

    /// What to do about it, as a sentence; empty where Postgres' words are all there is.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Unreachable => "Is Postgres running, and is that its address in DATABASE_URL?",
            Self::TimedOut => "Postgres is overloaded, or something holds a lock: see pg_stat_activity.",
            Self::Locked => "Another session holds a lock on it: see pg_stat_activity.",
            Self::NotDelivered => "Set LISTEN_DATABASE_URL to a direct or session connection.",
            Self::Tls => {
                "Name the CA of Postgres with sslrootcert=FILE in the connection string, or say sslmode=disable where the \
                 network itself is private."
            }
            Self::Credentials => "Check user, password and database in DATABASE_URL.",
            Self::Privilege => "Use the role that owns the treemap's objects, or have it grant what is missing.",
            Self::Missing => "Set up the database with: treemap migrate",
            Self::NotPopulated => "Fill the view with: treemap refresh (and see treemap status)",
            Self::ReadOnly => "This is a standby: DATABASE_URL has to name the primary.",
            Self::Conflict => "Try again.",
            Self::Duplicates => "Rows are repeated where they must not be: look at the data that was loaded last.",
            Self::Full => "Make room on the database server.",
            Self::Other => "",
        }
    }
}

impl Kind {
    /// The longest pause before it is worth trying again: soon where it passes by itself, later where somebody has to mend
    /// it, and last where the try itself has kept Postgres busy for as long as it was allowed.
    #[must_use]
    pub const fn longest_pause(self) -> Duration {
        Duration::from_secs(match self {
            Self::Unreachable | Self::Locked | Self::Conflict | Self::ReadOnly => 10,
            Self::TimedOut => 900,
            _ => 60,
        })
    }
}

impl DbError {
    /// An error of the driver or of Postgres, while `doing` something.
    #[must_use]
    pub fn new(doing: &'static str, error: &tokio_postgres::Error) -> Self {
        let cause = error.as_db_error().map_or_else(
            || chain(error),
            |db| {
                let mut words = format!("{} (SQLSTATE {})", db.message(), db.code().code());
                for more in
                    [db.detail(), db.hint(), db.where_().and_then(|place| place.lines().next())].into_iter().flatten()
                {
                    words = format!("{words}; {more}");
                }
                words
            },
        );
        Self { kind: Kind::of(error), doing, cause }
    }

    /// The same error, naming the server that it happened at.
    #[must_use]
    pub fn at(self, target: &impl fmt::Display) -> Self {
        Self { cause: format!("{target}: {}", self.cause), ..self }
    }

    /// An error that is not Postgres' own, of a kind that the caller knows.
    #[must_use]
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
