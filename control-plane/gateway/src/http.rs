//! The requests: three upgrades and a question. Whatever is refused is refused before the upgrade, with a stable code, a
//! sentence and, where it makes sense, a hint when to come back. No header value is ever logged.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use umbra_carrier::ws::{UpgradeHead, check_upgrade};
use umbra_protocol::gateway::{self as wire, TunnelSide, label, token_hash};
use umbra_protocol::{Refusal, RefusalCode, ServerRoot};

use crate::addresses::{Network, Peer};
use crate::ending::Rejection;
use crate::gateway::Gateway;
use crate::{devices, rendezvous, uplink};

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// Answers a request that came from `from`.
///
/// # Errors
/// None.
pub async fn answer(
    gateway: Arc<Gateway>,
    from: IpAddr,
    trusted: Arc<[Network]>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let peer = Peer::behind(from, &trusted, forwarded(request.headers()).as_deref());
    Ok(match request.uri().path() {
        wire::PATH_CHECK_STATUS => check_status(&gateway, request.method()),
        wire::PATH_ENDPOINT => {
            let root = server_of(request.headers());
            if let Ok(root) = root {
                gateway.queue(root, peer).await;
            }
            upgraded(request, wire::SUBPROTOCOL_LINK, |head| {
                let seat = gateway.seat(root?, peer, label_of(head))?;
                let tasks = gateway.tasks.clone();
                Ok(move |upgrade| drop(tasks.spawn(devices::driver::serve(seat, upgrade))))
            })
        }
        wire::PATH_UPLINK => upgraded(request, wire::SUBPROTOCOL_UPLINK, |_| {
            gateway.open()?;
            Ok(|upgrade| {
                let serving = uplink::driver::serve(gateway.clone(), peer, upgrade);
                drop(gateway.tasks.spawn(serving));
            })
        }),
        wire::PATH_TUNNEL => upgraded(request, wire::SUBPROTOCOL_TUNNEL, |head| {
            let (token, side) = tunnel(head)?;
            let seat = gateway.arrive(token, side)?;
            let serving = gateway.clone();
            Ok(move |upgrade| {
                let tasks = serving.tasks.clone();
                drop(tasks.spawn(rendezvous::driver::serve(serving, seat, upgrade)));
            })
        }),
        _ => plain(
            StatusCode::NOT_FOUND,
            "text/plain",
            "there is nothing here\n",
        ),
    })
}

/// Checks that a request is the right kind of upgrade and that `admit` lets it in, and switches protocols.
fn upgraded<S>(
    mut request: Request<Incoming>,
    subprotocol: &'static str,
    admit: impl FnOnce(&HeaderMap) -> Result<S, Rejection>,
) -> Answer
where
    S: FnOnce(hyper::upgrade::OnUpgrade),
{
    if request.method() != Method::GET {
        return not_allowed();
    }
    let headers = request.headers();
    let head = UpgradeHead {
        connection: one(headers, &header::CONNECTION),
        upgrade: one(headers, &header::UPGRADE),
        version: one(headers, &header::SEC_WEBSOCKET_VERSION),
        key: one(headers, &header::SEC_WEBSOCKET_KEY),
        subprotocols: one(headers, &header::SEC_WEBSOCKET_PROTOCOL),
        origin: headers.get(header::ORIGIN).map(|_| "present"),
    };
    let accept = match check_upgrade(&head, subprotocol) {
        Ok(accept) => accept,
        Err(error) => {
            let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
            let refusal = Refusal::new(RefusalCode::Malformed, error.to_string());
            let mut answer = refused(status, &refusal);
            if status == StatusCode::UPGRADE_REQUIRED {
                let headers = answer.headers_mut();
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(
                    header::SEC_WEBSOCKET_VERSION,
                    HeaderValue::from_static("13"),
                );
            }
            return answer;
        }
    };
    let Ok(accept) = HeaderValue::from_str(&accept) else {
        return plain(StatusCode::BAD_REQUEST, "text/plain", "no WebSocket\n");
    };
    let serve = match admit(headers) {
        Ok(serve) => serve,
        Err(rejection) => return refused(rejection.status, &rejection.refusal),
    };
    serve(hyper::upgrade::on(&mut request));
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(subprotocol),
    );
    answer
}

/// The server that a device asks for, if any.
fn server_of(headers: &HeaderMap) -> Result<Option<ServerRoot>, Rejection> {
    let parsed = headers.get(wire::HEADER_SERVER).map(|value| {
        let root = value.to_str().ok().and_then(|text| text.parse().ok());
        root.ok_or_else(|| {
            Rejection::malformed("The header Umbra-Server must be 64 hexadecimal digits.")
        })
    });
    parsed.transpose()
}

/// What a device calls itself.
fn label_of(headers: &HeaderMap) -> String {
    headers
        .get(wire::HEADER_DEVICE)
        .map(|value| label(&String::from_utf8_lossy(value.as_bytes())))
        .unwrap_or_default()
}

fn tunnel(headers: &HeaderMap) -> Result<(umbra_protocol::TokenHash, TunnelSide), Rejection> {
    let side = headers
        .get(wire::HEADER_SIDE)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .ok_or_else(|| {
            Rejection::malformed("The header Umbra-Side must be “device” or “console”.")
        })?;
    let token = one(headers, &header::AUTHORIZATION)
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .filter(|token| !token.is_empty() && token.len() <= wire::TOKEN)
        .ok_or_else(|| {
            Rejection::malformed("The header Authorization must hold a bearer token.")
        })?;
    Ok((token_hash(token), side))
}

fn check_status(gateway: &Gateway, method: &Method) -> Answer {
    if method != Method::GET && method != Method::HEAD {
        return not_allowed();
    }
    let body = format!("{{\"status\":\"{}\"}}", gateway.status().as_str());
    let mut answer = plain(StatusCode::OK, "application/json", body);
    answer
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// All of `X-Forwarded-For`: some proxies write a line of their own below what the client wrote.
fn forwarded(headers: &HeaderMap) -> Option<String> {
    let lines: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .map(|line| line.to_str().unwrap_or("unreadable"))
        .collect();
    (!lines.is_empty()).then(|| lines.join(","))
}

/// A header that is there once and readable; one that is there twice is none.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    value.to_str().ok()
}

fn refused(status: StatusCode, refusal: &Refusal) -> Answer {
    let body = serde_json::to_string(refusal).unwrap_or_default();
    let mut answer = plain(status, "application/json", body);
    if let Some(seconds) = refusal.retry_after_seconds {
        answer
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

fn not_allowed() -> Answer {
    let mut answer = plain(
        StatusCode::METHOD_NOT_ALLOWED,
        "text/plain",
        "only GET is allowed here\n",
    );
    answer
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static("GET"));
    answer
}

/// A short answer.
pub fn plain(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
