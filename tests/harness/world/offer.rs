//! Session offers straight from the server's API, for scenarios that need the ticket and the password themselves, which
//! the console never shows to anybody.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Console, PATIENCE, Server, WorldError};
use crate::tunnel::{Tunnel, dial};

/// What a console needs for one session.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Which session.
    pub session: String,
    /// The signed ticket.
    pub ticket: String,
    /// The session password.
    pub password: String,
    /// The device's certificate, PEM.
    pub certificate: String,
    /// Where the device can be reached.
    pub addresses: Vec<String>,
    /// Where it is met, if it is met at a gateway.
    pub meeting: Option<Meeting>,
}

/// The console's end of a rendezvous.
#[derive(Debug, Clone)]
pub struct Meeting {
    /// Where the gateway is, as `HOST:PORT`.
    pub addresses: Vec<String>,
    /// The console's one-time token.
    pub token: String,
}

impl Offer {
    /// What a console says first, with this ticket and this password.
    pub fn preface(&self) -> String {
        format!("UMBRA/1 {} {}\n", self.ticket, self.password)
    }
}

impl Console<'_> {
    /// Asks the server for a session with a device, as the account that is logged in here.
    pub async fn offer(
        &self,
        server: &Server<'_>,
        device: &str,
        legacy: bool,
    ) -> Result<Offer, WorldError> {
        self.offer_at(server.address(), device, legacy).await
    }

    /// The same for whoever only knows where the server is.
    pub async fn offer_at(
        &self,
        address: SocketAddr,
        device: &str,
        legacy: bool,
    ) -> Result<Offer, WorldError> {
        let permissions = json!({"control": true, "clipboard": true});
        let wish = json!({"device": device, "reason": "scenario", "permissions": permissions, "legacy": legacy});
        let (status, answer) = self
            .call_at(address, "POST", "/api/v1/sessions", Some(&wish))
            .await?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
        let meeting = answer.get("rendezvous").and_then(|meeting| {
            Some(Meeting {
                addresses: texts(meeting, "addresses"),
                token: meeting.get("token")?.as_str()?.to_owned(),
            })
        });
        let offer = || -> Option<Offer> {
            Some(Offer {
                session: text("session")?,
                ticket: text("ticket")?,
                password: text("password")?,
                certificate: text("device_certificate")?,
                addresses: texts(&answer, "addresses"),
                meeting: meeting.clone(),
            })
        };
        offer().ok_or_else(|| WorldError::Unexpected {
            program: "the server's API".into(),
            said: format!("{status}: {answer}"),
        })
    }

    /// One request to the server's API with the token of whoever is logged in here.
    pub async fn call(
        &self,
        server: &Server<'_>,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), WorldError> {
        self.call_at(server.address(), method, path, body).await
    }

    /// The same for whoever only knows where the server is.
    pub async fn call_at(
        &self,
        address: SocketAddr,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), WorldError> {
        let token = self.token().unwrap_or_default();
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nAccept: application/json\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            address,
            body.len(),
        );
        let failed = WorldError::file("the server's API cannot be used");
        let answer = async {
            let mut connection: Tunnel = dial(address, PATIENCE).await?;
            connection.say(request.as_bytes()).await?;
            connection.rest(PATIENCE).await
        };
        let answer = answer.await.map_err(failed)?;
        parse(&answer).ok_or_else(|| WorldError::Unexpected {
            program: "the server's API".into(),
            said: String::from_utf8_lossy(&answer).into_owned(),
        })
    }

    /// The token of whoever is logged in here.
    pub fn token(&self) -> Option<String> {
        let config = std::fs::read_to_string(self.config()).ok()?;
        let config: Value = serde_json::from_str(&config).ok()?;
        let servers = config.get("servers")?.as_object()?;
        servers
            .values()
            .find_map(|server| Some(server.pointer("/login/token")?.as_str()?.to_owned()))
    }
}

fn texts(document: &Value, name: &str) -> Vec<String> {
    let all = document.get(name).and_then(Value::as_array);
    let texts = all.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

/// Status and body of an answer with a stated length or none.
fn parse(answer: &[u8]) -> Option<(u16, Value)> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = if body.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(body).ok()?
    };
    Some((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart_or_not_at_all() {
        let answer = b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\n\r\n{\"a\":1}";
        assert_eq!(parse(answer), Some((201, json!({"a": 1}))));
        assert_eq!(
            parse(b"HTTP/1.1 204 No Content\r\n\r\n"),
            Some((204, Value::Null))
        );
        assert_eq!(parse(&answer[..30]), None);
        assert_eq!(parse(&answer[..answer.len() - 1]), None);
    }
}
