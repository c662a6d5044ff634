//! A tunnel through an HTTP proxy: CONNECT (RFC 9110, section 9.3.6), with Basic credentials (RFC 7617) where some are
//! configured. What comes right behind the answer belongs to the tunnel and is kept.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use super::{Proxy, ProxyError};
use crate::http::{Head, HeadError, read_head};
use crate::io::Prefixed;
use crate::ws::authority;

pub(super) async fn connect<IO>(
    mut io: IO,
    proxy: &Proxy,
    host: &str,
    port: u16,
) -> Result<Prefixed<IO>, ProxyError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let name = proxy.name();
    let target = authority(host, port, None);
    let request = write_request(proxy, &target)?;
    let sent = async {
        io.write_all(request.as_bytes()).await?;
        io.flush().await
    };
    sent.await
        .map_err(|error| ProxyError::of_stream(name.clone(), error))?;
    let mut behind = Vec::new();
    match read_head(&mut io, &mut behind).await {
        Ok(head) if (200..300).contains(&head.status) => Ok(Prefixed::new(behind, io)),
        Ok(head) => Err(refusal(proxy, target, &head)),
        Err(HeadError::Closed) => Err(ProxyError::Closed { proxy: name }),
        Err(HeadError::Garbage | HeadError::TooLarge) => Err(ProxyError::Garbage { proxy: name }),
        Err(HeadError::Io(error)) => Err(ProxyError::of_stream(name, error)),
    }
}

fn write_request(proxy: &Proxy, target: &str) -> Result<Zeroizing<String>, ProxyError> {
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: umbra\r\n");
    let Some(credentials) = &proxy.credentials else {
        return Ok(Zeroizing::new(head + "\r\n"));
    };
    let (user, password) = (&credentials.user, &credentials.password);
    if user.contains(':') || user.chars().chain(password.chars()).any(char::is_control) {
        return Err(ProxyError::CredentialsUnusable {
            proxy: proxy.name(),
        });
    }
    let pair = Zeroizing::new(format!("{user}:{}", password.as_str()));
    let basic = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
    Ok(Zeroizing::new(format!(
        "{head}Proxy-Authorization: Basic {}\r\n\r\n",
        basic.as_str()
    )))
}

fn refusal(proxy: &Proxy, target: String, head: &Head) -> ProxyError {
    let name = proxy.name();
    let answer = format!("HTTP status {}", head.status);
    match head.status {
        407 if proxy.credentials.is_some() => ProxyError::CredentialsRefused { proxy: name },
        407 => ProxyError::CredentialsNeeded { proxy: name },
        // It speaks HTTP, but to switch protocols is no answer to CONNECT.
        ..=199 => ProxyError::Garbage { proxy: name },
        // The proxy got no connection or no name, or is overloaded itself.
        404 | 429 | 500 | 502 | 503 | 504 => ProxyError::TargetUnreachable {
            proxy: name,
            target,
            answer,
            retry_after: head.retry_after(),
        },
        _ => ProxyError::Refused {
            proxy: name,
            target,
            answer,
        },
    }
}
