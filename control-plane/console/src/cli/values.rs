//! Single words of the command line, from text to what they mean. Each refusal says what would be understood.

use std::time::Duration;

use umbra_carrier::address::HostPort;
use umbra_protocol::settings::Value;

use super::{DEFAULT_PORT, Limit};

pub(super) fn address(text: &str) -> Result<HostPort, String> {
    HostPort::parse(text, DEFAULT_PORT).map_err(|error| error.to_string())
}

/// A mail server; port 587 is where mail programs hand in mail.
pub(super) fn mail_server(text: &str) -> Result<HostPort, String> {
    HostPort::parse(text, 587).map_err(|error| error.to_string())
}

pub(super) fn limit(text: &str) -> Result<Limit, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(Limit(None));
    }
    match text.parse() {
        Ok(0) | Err(_) => Err("a number from 1 on is expected, or none".to_owned()),
        Ok(limit) => Ok(Limit(Some(limit))),
    }
}

pub(super) fn span(text: &str) -> Result<Duration, String> {
    crate::text::parse_span(text).map_err(|error| error.to_string())
}

pub(super) fn loopback(text: &str) -> Result<std::net::SocketAddr, String> {
    let address: std::net::SocketAddr = text
        .parse()
        .map_err(|_| "give an IP address and a port, like 127.0.0.1:0".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("the screen is offered without encryption here, so only a loopback address is possible, like 127.0.0.1:0"
            .to_owned())
    }
}

/// Reads `NAME=VALUE`.
pub(super) fn assignment(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let name = name.trim();
    if name.is_empty() {
        return Err("write NAME=VALUE, with a name before the equals sign".to_owned());
    }
    Ok((name.to_owned(), value_of(value)))
}

fn value_of(text: &str) -> Value {
    // A number with a decimal point, null or an object is no value of a parameter, so it stays text.
    serde_json::from_str::<Value>(text).unwrap_or_else(|_| Value::Text(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_parameters_are_what_they_look_like() {
        for (text, value) in [
            ("a.b=true", Value::Bool(true)),
            ("a.b=5900", Value::Int(5_900)),
            ("a.b=-1", Value::Int(-1)),
            ("a.b=\"5900\"", Value::Text("5900".into())),
            ("a.b=0.5", Value::Text("0.5".into())),
            ("a.b=null", Value::Text("null".into())),
            ("a.b=", Value::Text(String::new())),
            ("a.b=x=y", Value::Text("x=y".into())),
            (
                "a.b=[\"x\",\"y\"]",
                Value::List(vec!["x".into(), "y".into()]),
            ),
        ] {
            assert_eq!(assignment(text), Ok(("a.b".to_owned(), value)), "{text}");
        }
        assert!(assignment("=x").is_err());
    }
}
