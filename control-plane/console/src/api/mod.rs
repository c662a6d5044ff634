//! The management API as this program calls it. Paths and their parts are written here and nowhere else; what a person
//! typed is always escaped before it becomes part of a path, and the token never leaves the `Authorization` header.

pub mod http;

use hyper::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use umbra_protocol::api::{
    AcceptCertificate, Account, AuditEntry, CommandInfo, Device, DeviceChange, DeviceGateway,
    DeviceSettings, Gateway, GatewayChange, GatewayKeystore, KeyChange, KeyInfo, KeyUse, LoggedIn,
    Login, MadeKey, NewAccount, NewCommand, NewGateway, NewKeys, NewPassword, NewSession, Policy,
    Problem, ServerCredentials, SessionInfo, SessionOffer,
};
use umbra_protocol::refusal::clip;
use umbra_protocol::{Fingerprint, KeyId, Secret, SessionId};

use self::http::{Answer, Ask, HttpError, Server};

/// Why the server didn't do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Nobody is logged in, by this program's own records.
    #[error("{0}")]
    NotLoggedIn(String),
    /// The server doesn't know the token any more.
    #[error("the server {server} doesn't accept the log-in any more: {detail}")]
    LoginEnded {
        /// The server.
        server: String,
        /// The server's sentence.
        detail: String,
    },
    /// The server says no.
    #[error("{}", .0.detail)]
    Problem(Problem),
    /// The server answered with something else than this program understands.
    #[error(
        "the server's answer can't be understood ({0}): server and umbra may be of different versions"
    )]
    NotUnderstood(String),
}

/// An answer: as read, and as it came.
#[derive(Clone, Debug)]
pub struct Reply<T> {
    /// What it says.
    pub value: T,
    /// The server's own document, which may say more.
    pub json: serde_json::Value,
}

/// A server to which somebody is, or is about to be, logged in.
#[derive(Clone, Debug)]
pub struct Client {
    server: Server,
    token: Option<Secret>,
}

impl Client {
    /// With a token, or without for logging in.
    pub fn new(server: Server, token: Option<Secret>) -> Self {
        Self { server, token }
    }

    /// Logs in.
    ///
    /// # Errors
    /// [`ApiError`], as for every call below.
    pub async fn login(&self, login: &Login) -> Result<Reply<LoggedIn>, ApiError> {
        self.send(Method::POST, "/login", Some(login)).await
    }

    /// Logs out: the server forgets the token.
    pub async fn logout(&self) -> Result<(), ApiError> {
        self.send_for_nothing(Method::POST, "/logout", None::<&()>)
            .await
    }

    /// Devices; all of them without a query.
    pub async fn devices(&self, query: Option<&str>) -> Result<Reply<Vec<Device>>, ApiError> {
        self.get(&with_query("/devices", &[("q", query.map(str::to_owned))]))
            .await
    }

    /// One device, by ID, unit ID or name.
    pub async fn device(&self, device: &str) -> Result<Reply<Device>, ApiError> {
        self.get(&device_path(device, "")).await
    }

    /// Gives a device another name.
    pub async fn rename(&self, device: &str, name: String) -> Result<Reply<Device>, ApiError> {
        self.send(
            Method::PATCH,
            &device_path(device, ""),
            Some(&DeviceChange { name }),
        )
        .await
    }

    /// Takes a device off the file.
    pub async fn remove(&self, device: &str) -> Result<(), ApiError> {
        self.send_for_nothing(Method::DELETE, &device_path(device, ""), None::<&()>)
            .await
    }

    /// Files the certificate of a conflict in place of the one on file.
    pub async fn accept_certificate(
        &self,
        device: &str,
        certificate: Fingerprint,
    ) -> Result<Reply<Device>, ApiError> {
        let accept = AcceptCertificate { certificate };
        self.send(
            Method::POST,
            &device_path(device, "/certificate"),
            Some(&accept),
        )
        .await
    }

    /// Refuses the certificate of a conflict: the one on file stays.
    pub async fn refuse_certificate(
        &self,
        device: &str,
        certificate: Fingerprint,
    ) -> Result<Reply<Device>, ApiError> {
        let refuse = AcceptCertificate { certificate };
        self.send(
            Method::POST,
            &device_path(device, "/certificate/refusal"),
            Some(&refuse),
        )
        .await
    }

    /// Says that a device is no clone.
    pub async fn clear_clone(&self, device: &str) -> Result<Reply<Device>, ApiError> {
        self.send(
            Method::DELETE,
            &device_path(device, "/clone-suspicion"),
            None::<&()>,
        )
        .await
    }

    /// What the server decides for a device.
    pub async fn settings(&self, device: &str) -> Result<Reply<DeviceSettings>, ApiError> {
        self.get(&device_path(device, "/settings")).await
    }

    /// Replaces what the server decides for a device.
    pub async fn put_settings(
        &self,
        device: &str,
        settings: &DeviceSettings,
    ) -> Result<Reply<DeviceSettings>, ApiError> {
        self.send(
            Method::PUT,
            &device_path(device, "/settings"),
            Some(settings),
        )
        .await
    }

    /// Commands to a device, and how far they are.
    pub async fn commands(&self, device: &str) -> Result<Reply<Vec<CommandInfo>>, ApiError> {
        self.get(&device_path(device, "/commands")).await
    }

    /// Gives a device a command.
    pub async fn command(
        &self,
        device: &str,
        command: &NewCommand,
    ) -> Result<Reply<CommandInfo>, ApiError> {
        self.send(
            Method::POST,
            &device_path(device, "/commands"),
            Some(command),
        )
        .await
    }

    /// Moves a device to a gateway, or takes its gateways away.
    pub async fn put_gateway(
        &self,
        device: &str,
        gateway: Option<String>,
    ) -> Result<Reply<CommandInfo>, ApiError> {
        let wanted = DeviceGateway { gateway };
        self.send(Method::PUT, &device_path(device, "/gateway"), Some(&wanted))
            .await
    }

    /// Gateways on file.
    pub async fn gateways(&self) -> Result<Reply<Vec<Gateway>>, ApiError> {
        self.get("/gateways").await
    }

    /// One gateway.
    pub async fn gateway(&self, name: &str) -> Result<Reply<Gateway>, ApiError> {
        self.get(&gateway_path(name, "")).await
    }

    /// Makes a gateway.
    pub async fn add_gateway(
        &self,
        gateway: &NewGateway,
    ) -> Result<Reply<GatewayKeystore>, ApiError> {
        self.send(Method::POST, "/gateways", Some(gateway)).await
    }

    /// Changes a gateway.
    pub async fn change_gateway(
        &self,
        name: &str,
        change: &GatewayChange,
    ) -> Result<Reply<Gateway>, ApiError> {
        self.send(Method::PATCH, &gateway_path(name, ""), Some(change))
            .await
    }

    /// Takes a gateway off the file.
    pub async fn remove_gateway(&self, name: &str) -> Result<(), ApiError> {
        self.send_for_nothing(Method::DELETE, &gateway_path(name, ""), None::<&()>)
            .await
    }

    /// Makes a new certificate for a gateway.
    pub async fn gateway_certificate(
        &self,
        name: &str,
    ) -> Result<Reply<GatewayKeystore>, ApiError> {
        self.send(
            Method::POST,
            &gateway_path(name, "/certificate"),
            None::<&()>,
        )
        .await
    }

    /// Makes first-authentication keys.
    pub async fn make_keys(&self, keys: &NewKeys) -> Result<Reply<Vec<MadeKey>>, ApiError> {
        self.send(Method::POST, "/keys", Some(keys)).await
    }

    /// Keys on file.
    pub async fn keys(&self) -> Result<Reply<Vec<KeyInfo>>, ApiError> {
        self.get("/keys").await
    }

    /// One key, without its text.
    pub async fn key(&self, key: KeyId) -> Result<Reply<KeyInfo>, ApiError> {
        self.get(&format!("/keys/{key}")).await
    }

    /// The devices that came in with a key.
    pub async fn key_uses(&self, key: KeyId) -> Result<Reply<Vec<KeyUse>>, ApiError> {
        self.get(&format!("/keys/{key}/uses")).await
    }

    /// Enables or disables a key.
    pub async fn change_key(&self, key: KeyId, enabled: bool) -> Result<Reply<KeyInfo>, ApiError> {
        let change = KeyChange { enabled };
        self.send(Method::PATCH, &format!("/keys/{key}"), Some(&change))
            .await
    }

    /// Makes a key useless.
    pub async fn revoke_key(&self, key: KeyId) -> Result<(), ApiError> {
        self.send_for_nothing(Method::DELETE, &format!("/keys/{key}"), None::<&()>)
            .await
    }

    /// What devices need to find and to trust the server.
    pub async fn credentials(&self) -> Result<Reply<ServerCredentials>, ApiError> {
        self.get("/credentials").await
    }

    /// Asks for a shadowing session.
    pub async fn offer(&self, session: &NewSession) -> Result<Reply<SessionOffer>, ApiError> {
        self.send(Method::POST, "/sessions", Some(session)).await
    }

    /// Sessions on file, newest first.
    pub async fn sessions(
        &self,
        device: Option<&str>,
        limit: Option<u32>,
    ) -> Result<Reply<Vec<SessionInfo>>, ApiError> {
        let parts = [
            ("device", device.map(str::to_owned)),
            ("limit", limit.map(|limit| limit.to_string())),
        ];
        self.get(&with_query("/sessions", &parts)).await
    }

    /// One session.
    pub async fn session(&self, session: SessionId) -> Result<Reply<SessionInfo>, ApiError> {
        self.get(&format!("/sessions/{session}")).await
    }

    /// Ends a session, or withdraws one that has not begun.
    pub async fn end_session(&self, session: SessionId) -> Result<(), ApiError> {
        self.send_for_nothing(Method::DELETE, &format!("/sessions/{session}"), None::<&()>)
            .await
    }

    /// The audit log, newest first.
    pub async fn audit(&self, limit: Option<u32>) -> Result<Reply<Vec<AuditEntry>>, ApiError> {
        self.get(&with_query(
            "/audit",
            &[("limit", limit.map(|limit| limit.to_string()))],
        ))
        .await
    }

    /// What holds for every device.
    pub async fn policy(&self) -> Result<Reply<Policy>, ApiError> {
        self.get("/policy").await
    }

    /// Changes what holds for every device.
    pub async fn put_policy(&self, policy: &Policy) -> Result<Reply<Policy>, ApiError> {
        self.send(Method::PUT, "/policy", Some(policy)).await
    }

    /// Operator accounts.
    pub async fn accounts(&self) -> Result<Reply<Vec<Account>>, ApiError> {
        self.get("/accounts").await
    }

    /// Makes an operator account.
    pub async fn add_account(&self, account: &NewAccount) -> Result<Reply<Account>, ApiError> {
        self.send(Method::POST, "/accounts", Some(account)).await
    }

    /// Removes an operator account.
    pub async fn remove_account(&self, user: &str) -> Result<(), ApiError> {
        let path = format!("/accounts/{}", escaped(user));
        self.send_for_nothing(Method::DELETE, &path, None::<&()>)
            .await
    }

    /// Sets an account's password; all its log-ins end.
    pub async fn set_password(&self, user: &str, password: Secret) -> Result<(), ApiError> {
        let path = format!("/accounts/{}/password", escaped(user));
        self.send_for_nothing(Method::PUT, &path, Some(&NewPassword { password }))
            .await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Reply<T>, ApiError> {
        self.send(Method::GET, path, None::<&()>).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Reply<T>, ApiError> {
        let answer = self.call(method, path, body).await?;
        let json: serde_json::Value =
            serde_json::from_slice(&answer.body).map_err(not_understood)?;
        let value = T::deserialize(&json).map_err(not_understood)?;
        Ok(Reply { value, json })
    }

    async fn send_for_nothing(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<(), ApiError> {
        self.call(method, path, body).await.map(drop)
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Answer, ApiError> {
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(not_understood)?;
        let path = format!("/api/v1{path}");
        let answer = self
            .server
            .exchange(Ask {
                method,
                path: &path,
                body,
                token: self.token.as_ref(),
            })
            .await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        let problem = problem(&answer);
        if answer.status == StatusCode::UNAUTHORIZED && self.token.is_some() {
            return Err(ApiError::LoginEnded {
                server: self.server.address().to_string(),
                detail: problem.detail,
            });
        }
        Err(ApiError::Problem(problem))
    }
}

/// The server's problem document, or one made up for an answer without.
fn problem(answer: &Answer) -> Problem {
    let status = answer.status;
    match serde_json::from_slice::<Problem>(&answer.body) {
        Ok(problem) => Problem {
            detail: clip(problem.detail),
            code: clip(problem.code),
            ..problem
        },
        Err(_) => Problem {
            status: status.as_u16(),
            code: "no_problem_document".to_owned(),
            detail: format!(
                "The server answered with status {} ({}) and no explanation. Is this an Umbra server?",
                status.as_u16(),
                status.canonical_reason().unwrap_or("unknown")
            ),
        },
    }
}

fn not_understood(error: serde_json::Error) -> ApiError {
    ApiError::NotUnderstood(clip(error.to_string()))
}

fn device_path(device: &str, rest: &str) -> String {
    format!("/devices/{}{rest}", escaped(device))
}

fn gateway_path(name: &str, rest: &str) -> String {
    format!("/gateways/{}{rest}", escaped(name))
}

fn with_query(path: &str, parts: &[(&str, Option<String>)]) -> String {
    let mut whole = path.to_owned();
    let mut mark = '?';
    for (name, value) in parts {
        if let Some(value) = value {
            whole.push(mark);
            whole.push_str(name);
            whole.push('=');
            whole.push_str(&escaped(value));
            mark = '&';
        }
    }
    whole
}

/// Everything that isn't plain in a path or a query, as `%XX`. A part that is only dots would be taken for a folder.
fn escaped(text: &str) -> String {
    let only_dots = text.bytes().all(|byte| byte == b'.');
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'~')
            || (byte == b'.' && !only_dots);
        if plain {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// What fuzz targets reach of what is private here. It exists only while fuzzing.
#[cfg(fuzzing)]
pub mod fuzzing {
    use super::{Answer, Problem};

    /// What a person is told of an answer that is no success.
    pub fn problem(answer: &Answer) -> Problem {
        super::problem(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_types_cannot_leave_its_place_in_the_path() {
        assert_eq!(
            device_path("till-5", "/settings"),
            "/devices/till-5/settings"
        );
        assert_eq!(
            device_path("../accounts?x#y z", ""),
            "/devices/..%2Faccounts%3Fx%23y%20z"
        );
        assert_eq!(device_path("..", ""), "/devices/%2E%2E");
        assert_eq!(device_path("Zähler", ""), "/devices/Z%C3%A4hler");
        let parts = [
            ("device", Some("a&b=c".to_owned())),
            ("none", None),
            ("limit", Some("5".to_owned())),
        ];
        assert_eq!(
            with_query("/sessions", &parts),
            "/sessions?device=a%26b%3Dc&limit=5"
        );
    }
}
