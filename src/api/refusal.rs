//! Why a call gets no answer, and what that is in each protocol: one table, for all of them.

use std::time::Duration;

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
    /// The client's deadline passed first.
    DeadlinePassed,
    /// There is no such service or method.
    UnknownMethod,
    /// The request message is too large.
    TooLarge,
}

/// When to come back to a replica that has no model yet.
const LOADED_SOON: Duration = Duration::from_secs(2);
/// When to come back to a replica that is full.
const FREE_SOON: Duration = Duration::from_secs(1);

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
            Self::DeadlinePassed => {
                (Code::DeadlineExceeded, "the deadline passed before the treemap could be answered", none())
            }
            Self::UnknownMethod => (Code::Unimplemented, "there is no such method here", none()),
            Self::TooLarge => (Code::ResourceExhausted, "the request message is too large", none()),
        }
    }

    /// As a gRPC status.
    pub fn status(self) -> Status {
        let (code, message, details) = self.parts();
        Status::with_error_details(code, message, details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_code_and_says_when_to_come_back_if_that_helps() {
        let invalid = InvalidRequest { field: "limit", message: "limit must be positive" };
        for (refusal, code, retry) in [
            (Refusal::Invalid(invalid), Code::InvalidArgument, false),
            (Refusal::NotLoaded, Code::Unavailable, true),
            (Refusal::TooManyCalls, Code::ResourceExhausted, true),
            (Refusal::TooManyConnections, Code::ResourceExhausted, true),
            (Refusal::DeadlinePassed, Code::DeadlineExceeded, false),
            (Refusal::UnknownMethod, Code::Unimplemented, false),
            (Refusal::TooLarge, Code::ResourceExhausted, false),
        ] {
            let status = refusal.status();
            assert_eq!(status.code(), code, "{refusal:?}");
            assert!(!status.message().is_empty());
            assert_eq!(status.get_details_retry_info().is_some(), retry, "{refusal:?}");
            let violations = status.get_details_bad_request().map(|details| details.field_violations);
            assert_eq!(violations.is_some_and(|all| all[0].field == "limit"), code == Code::InvalidArgument);
        }
    }
}
