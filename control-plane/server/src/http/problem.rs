//! Errors as problem documents (RFC 9457): a status, a stable code, and one sentence for a person.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use umbra_protocol::api::Problem;

use crate::passwords::PasswordError;
use crate::server::log_failure;
use crate::store::StoreError;

/// An error that goes to the peer.
#[derive(Debug)]
pub struct Fault {
    status: StatusCode,
    code: String,
    detail: String,
    retry_after: Option<u32>,
}

impl Fault {
    /// An error with a stable code and a sentence for a person.
    pub fn new(status: StatusCode, code: impl ToString, detail: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_string(),
            detail: umbra_protocol::refusal::clip(detail.into()),
            retry_after: None,
        }
    }

    /// The same with a hint about when to come back, in seconds.
    pub(super) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// A value that cannot be used: what, and why.
    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
    }

    /// Nothing of that name.
    pub(super) fn unknown(what: &str) -> Self {
        let detail = format!("There is no such {what} on file.");
        Self::new(StatusCode::NOT_FOUND, format!("unknown_{what}"), detail)
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let problem = Problem {
            status: self.status.as_u16(),
            code: self.code,
            detail: self.detail,
        };
        let mut response = (self.status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        log_failure("a request failed at the database", &error);
        let (status, code, detail) = match error {
            StoreError::Busy(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "The server has too much to do: try again shortly.",
            ),
            StoreError::Full(_) => (
                StatusCode::INSUFFICIENT_STORAGE,
                "disk_full",
                "The server's disk is full, so nothing was changed: free some space on the server and try again; it needs \
                 no restart.",
            ),
            StoreError::NotWritable(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "not_writable",
                "The server cannot write to its database, so nothing was changed: see that its folder is writable and its \
                 disk neither full nor damaged; its log says more.",
            ),
            StoreError::Unreadable(_) | StoreError::Migration(_) | StoreError::Failed(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "internal",
                "Something failed inside the server; its log says what. Nothing was changed.",
            ),
        };
        Self::new(status, code, detail).retry_after(5)
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

impl From<PasswordError> for Fault {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Length => Self::invalid(format!("Choose another password: {error}.")),
            PasswordError::Busy => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "Too many people log in at this moment: try again shortly.",
            )
            .retry_after(5),
            PasswordError::Failed(_) => {
                log_failure("a password could not be processed", &error);
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal",
                    "Something failed inside the server; its log says what.",
                )
            }
        }
    }
}
