//! Why a request was not carried out, as it goes over the wire: a kind that programs match on, one line that
//! says what, one that says what next. The kind decides the HTTP status and the exit code of the command.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The kinds of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The request itself is wrong: a bad name, size or field.
    Invalid,
    /// What the request names does not exist.
    NotFound,
    /// What the request would make exists already, or is in use.
    Conflict,
    /// The cluster cannot do it as it is: no space, too few disks.
    Refused,
    /// No token, or a wrong one.
    Unauthorized,
    /// A join token was used, is too old, or was never given out.
    TokenUsed,
    /// A join token is past its time.
    TokenExpired,
    /// The control plane has no majority now; the request was not carried out.
    Unavailable,
    /// The outcome is not known: it may have been carried out. Look before repeating.
    Unknown,
    /// Nobody answers at the socket or address.
    Unreachable,
    /// A fault of ours.
    Internal,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [ErrorKind; 11] = [
        ErrorKind::Invalid,
        ErrorKind::NotFound,
        ErrorKind::Conflict,
        ErrorKind::Refused,
        ErrorKind::Unauthorized,
        ErrorKind::TokenUsed,
        ErrorKind::TokenExpired,
        ErrorKind::Unavailable,
        ErrorKind::Unknown,
        ErrorKind::Unreachable,
        ErrorKind::Internal,
    ];

    /// The HTTP status that carries it.
    pub const fn status(self) -> u16 {
        match self {
            ErrorKind::Invalid => 400,
            ErrorKind::Unauthorized => 401,
            ErrorKind::NotFound => 404,
            ErrorKind::Conflict => 409,
            ErrorKind::TokenUsed | ErrorKind::TokenExpired => 410,
            ErrorKind::Refused => 422,
            ErrorKind::Internal => 500,
            ErrorKind::Unreachable => 502,
            ErrorKind::Unavailable => 503,
            ErrorKind::Unknown => 504,
        }
    }

    /// The exit code of a command that ends with it: 2 when the input was wrong, 1 otherwise.
    pub const fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Invalid => 2,
            _ => 1,
        }
    }
}

/// An error of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// What kind.
    pub kind: ErrorKind,
    /// One line: what is wrong.
    pub message: String,
    /// One line: what to do about it, when there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ApiError {
    /// An error of that kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }
    /// The same with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// A volume, node, disk or pool that does not exist.
    pub fn not_found(what: &str, name: &str) -> Self {
        Self::new(ErrorKind::NotFound, format!("{what} {name:?} does not exist"))
            .hint(format!("`holdfast {what} ls` lists what there is"))
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_an_error_status_and_an_exit_code_of_one_or_two() {
        for kind in ErrorKind::ALL {
            assert!((400..600).contains(&kind.status()), "{kind:?}");
            assert!((1..=2).contains(&kind.exit_code()), "{kind:?}");
        }
    }

    #[test]
    fn an_error_prints_as_one_line_with_what_to_do() {
        let error = ApiError::not_found("volume", "demo\nx");
        let text = error.to_string();
        assert_eq!(text, "volume \"demo\\nx\" does not exist; `holdfast volume ls` lists what there is");
    }
}
