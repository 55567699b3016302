//! Why a call gets no answer, and what that is in each protocol: one table, for all of them.

use std::{sync::LazyLock, time::Duration};

use http::StatusCode;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::treemap::InvalidRequest;

/// An outcome without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// A field of the request is invalid.
    Invalid(InvalidRequest),
    /// There is no model yet.
    NotLoaded,
    /// This replica has all the calls that it takes.
    TooManyCalls,
    /// This replica has all the connections that it takes.
    TooManyConnections,
    /// The connection, or this replica, has all the streams of health and reflection that it takes.
    TooManyStreams,
    /// This replica has all the watchers that it takes.
    TooManyWatchers,
    /// The server stops, or the connection is old: another replica, or another connection, goes on.
    Leaving,
    /// The client's deadline passed first.
    DeadlinePassed,
    /// There is no such service or method.
    UnknownMethod,
    /// The request message is too large.
    TooLarge,
    /// The request was not complete in time.
    Incomplete,
    /// The body of the request is not as its head says.
    Malformed,
    /// The client went away in the middle of its request. It sees no refusal.
    ClientGone,
    /// This replica has all the incomplete requests that it takes.
    TooManyIncomplete,
    /// Too many bytes of answers wait for the client, or for all.
    TooManyBytes,
}

/// When to come back to a replica that has no model yet.
const LOADED_SOON: Duration = Duration::from_secs(2);
/// When to come back to a replica that is full.
const FREE_SOON: Duration = Duration::from_secs(1);

/// The status that proxies log for a client that went away; `http` has no name for it.
static CLIENT_CLOSED_REQUEST: LazyLock<StatusCode> =
    LazyLock::new(|| StatusCode::from_u16(499).expect("a number of three digits"));

impl Refusal {
    /// The code, the words for the client, and the details.
    fn parts(self) -> (Code, &'static str, ErrorDetails) {
        let retry = |after| ErrorDetails::with_retry_info(Some(after));
        let none = ErrorDetails::new;
        match self {
            Self::Invalid(InvalidRequest { field, message }) => {
                (Code::InvalidArgument, message, ErrorDetails::with_bad_request_violation(field, message))
            }
            Self::NotLoaded => {
                (Code::Unavailable, "the treemap is not loaded yet; the server keeps trying", retry(LOADED_SOON))
            }
            Self::TooManyCalls => {
                (Code::ResourceExhausted, "this replica answers all the calls that it can", retry(FREE_SOON))
            }
            Self::TooManyConnections => {
                (Code::ResourceExhausted, "this replica serves all the connections that it can", retry(FREE_SOON))
            }
            Self::TooManyStreams => {
                (Code::ResourceExhausted, "too many streams of health and reflection are open", retry(FREE_SOON))
            }
            Self::TooManyWatchers => {
                (Code::ResourceExhausted, "this replica has all the watchers that it can", retry(FREE_SOON))
            }
            Self::Leaving => (
                Code::Unavailable,
                "this connection is about to end; watch again, with the version that you have",
                retry(Duration::ZERO),
            ),
            Self::DeadlinePassed => {
                (Code::DeadlineExceeded, "the deadline passed before the treemap could be answered", none())
            }
            Self::UnknownMethod => (Code::Unimplemented, "there is no such method here", none()),
            Self::TooLarge => (Code::ResourceExhausted, "the request message is too large", none()),
            Self::Incomplete => (Code::DeadlineExceeded, "the request was not complete in time", none()),
            Self::Malformed => (Code::InvalidArgument, "the chunks of the request's body are malformed", none()),
            Self::ClientGone => (Code::Cancelled, "the client went away", none()),
            Self::TooManyIncomplete => (Code::ResourceExhausted, "too many incomplete requests", retry(FREE_SOON)),
            Self::TooManyBytes => {
                (Code::ResourceExhausted, "too many answers wait for clients that do not take them", retry(FREE_SOON))
            }
        }
    }

    /// As a gRPC status.
    pub fn status(self) -> Status {
        let (code, message, details) = self.parts();
        Status::with_error_details(code, message, details)
    }
}

/// The name of a code in Connect, and its HTTP status, by "Error codes" of the Connect protocol's reference.
pub fn in_connect(code: Code) -> (&'static str, StatusCode) {
    match code {
        // Never an error: what claims to be one with this code is a fault of ours.
        Code::Ok | Code::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR),
        Code::Cancelled => ("canceled", *CLIENT_CLOSED_REQUEST),
        Code::Unknown => ("unknown", StatusCode::INTERNAL_SERVER_ERROR),
        Code::InvalidArgument => ("invalid_argument", StatusCode::BAD_REQUEST),
        Code::DeadlineExceeded => ("deadline_exceeded", StatusCode::GATEWAY_TIMEOUT),
        Code::NotFound => ("not_found", StatusCode::NOT_FOUND),
        Code::AlreadyExists => ("already_exists", StatusCode::CONFLICT),
        Code::PermissionDenied => ("permission_denied", StatusCode::FORBIDDEN),
        Code::ResourceExhausted => ("resource_exhausted", StatusCode::TOO_MANY_REQUESTS),
        Code::FailedPrecondition => ("failed_precondition", StatusCode::BAD_REQUEST),
        Code::Aborted => ("aborted", StatusCode::CONFLICT),
        Code::OutOfRange => ("out_of_range", StatusCode::BAD_REQUEST),
        Code::Unimplemented => ("unimplemented", StatusCode::NOT_IMPLEMENTED),
        Code::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE),
        Code::DataLoss => ("data_loss", StatusCode::INTERNAL_SERVER_ERROR),
        Code::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_code_and_says_when_to_come_back_if_that_helps() {
        let invalid = InvalidRequest { field: "limit", message: "limit must be positive" };
        for (refusal, code, connect, http, retry) in [
            (Refusal::Invalid(invalid), Code::InvalidArgument, "invalid_argument", 400, false),
            (Refusal::NotLoaded, Code::Unavailable, "unavailable", 503, true),
            (Refusal::TooManyCalls, Code::ResourceExhausted, "resource_exhausted", 429, true),
            (Refusal::TooManyConnections, Code::ResourceExhausted, "resource_exhausted", 429, true),
            (Refusal::TooManyStreams, Code::ResourceExhausted, "resource_exhausted", 429, true),
            (Refusal::TooManyWatchers, Code::ResourceExhausted, "resource_exhausted", 429, true),
            (Refusal::Leaving, Code::Unavailable, "unavailable", 503, true),
            (Refusal::DeadlinePassed, Code::DeadlineExceeded, "deadline_exceeded", 504, false),
            (Refusal::UnknownMethod, Code::Unimplemented, "unimplemented", 501, false),
            (Refusal::TooLarge, Code::ResourceExhausted, "resource_exhausted", 429, false),
            (Refusal::Incomplete, Code::DeadlineExceeded, "deadline_exceeded", 504, false),
            (Refusal::ClientGone, Code::Cancelled, "canceled", 499, false),
            (Refusal::TooManyIncomplete, Code::ResourceExhausted, "resource_exhausted", 429, true),
            (Refusal::TooManyBytes, Code::ResourceExhausted, "resource_exhausted", 429, true),
        ] {
            let status = refusal.status();
            assert_eq!(status.code(), code, "{refusal:?}");
            assert_eq!(in_connect(code), (connect, StatusCode::from_u16(http).unwrap()), "{refusal:?}");
            assert!(!status.message().is_empty());
            assert_eq!(status.get_details_retry_info().is_some(), retry, "{refusal:?}");
            let violations = status.get_details_bad_request().map(|details| details.field_violations);
            assert_eq!(violations.is_some_and(|all| all[0].field == "limit"), code == Code::InvalidArgument);
        }
    }

    #[test]
    fn every_code_has_the_http_status_of_todays_specification() {
        let statuses = (0..17).map(|number| in_connect(Code::from_i32(number)).1.as_u16());
        assert!(statuses.eq([500, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401]));
    }
}
