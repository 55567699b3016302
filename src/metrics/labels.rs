//! The labels of metrics. Closed sets are enums, each value with the name that Prometheus sees.

use prometheus_client::encoding::EncodeLabelSet;

/// A method of a gRPC service, as the ecosystem labels it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Method {
    /// `unary`, `server_stream` or `bidi_stream`.
    pub grpc_type: &'static str,
    /// The full name of the service.
    pub grpc_service: &'static str,
    /// The name of the method.
    pub grpc_method: &'static str,
}

impl Method {
    /// What a client made up does not become a label: all of it is this.
    pub const UNKNOWN: Self = Self { grpc_type: "unary", grpc_service: "unknown", grpc_method: "unknown" };

    /// Whether it is a method of ours.
    pub fn is_unknown(&self) -> bool {
        *self == Self::UNKNOWN
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfProtocol {
    pub protocol: &'static str,
    pub grpc_code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Handled {
    pub grpc_type: &'static str,
    pub grpc_service: &'static str,
    pub grpc_method: &'static str,
    pub grpc_code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfResult {
    pub result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Why {
    pub why: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfPage {
    pub path: &'static str,
    pub status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfPeriod {
    pub period: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfVersion {
    pub version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfPool {
    pub pool: &'static str,
    pub state: &'static str,
}

/// The names of the gRPC codes, in the order of their numbers, as Go prints them.
pub const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// A closed set of label values: an enum with all of its values and the name of each.
macro_rules! label {
    ($(#[$doc:meta])* $set:ident { $($(#[$value_doc:meta])* $value:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $set {
            $($(#[$value_doc])* $value,)*
        }

        impl $set {
            pub const ALL: &'static [Self] = &[$(Self::$value,)*];

            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)*
                }
            }
        }
    };
}

label! {
    /// Why a connection was closed.
    Closed {
        /// The client closed it, or broke the protocol.
        Client = "client",
        /// It was too old.
        Age = "age",
        /// All places were taken.
        Crowded = "crowded",
        /// It sent nothing, or no whole first message, in time.
        Silent = "silent",
        /// A call on it did not end in time.
        Stalled = "stalled",
        /// The server stopped.
        Stopped = "stopped",
        /// It was still open at the end of the drain.
        Cut = "cut",
    }
}

label! {
    /// How a look at the view ended.
    ReloadResult {
        /// The view had changed, and was loaded.
        Loaded = "loaded",
        /// The model is still equal to the view.
        Unchanged = "unchanged",
        /// The database or the view could not be read.
        Failed = "failed",
    }
}

label! {
    /// How a refresh ended.
    RefreshResult {
        /// This replica refreshed the view.
        Refreshed = "refreshed",
        /// Another had, for the same reason.
        AlreadyDone = "already_done",
        /// It failed.
        Failed = "failed",
    }
}

label! {
    /// How a write of the model file ended.
    FileWrite {
        /// The file holds the newest model.
        Written = "written",
        /// The file is as it was.
        Failed = "failed",
    }
}
