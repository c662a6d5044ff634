//! A tunnel through a SOCKS5 proxy (RFC 1928), with a user name and a password (RFC 1929) where some are configured. Each
//! answer is read to its exact end, so that nothing of the tunnel is taken.

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use super::{Credentials, Proxy, ProxyError};
use crate::io::Prefixed;
use crate::ws::authority;

const VERSION: u8 = 5;
const WITHOUT_CREDENTIALS: u8 = 0;
const WITH_PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;
const PASSWORD_VERSION: u8 = 1;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

pub(super) async fn connect<IO>(
    mut io: IO,
    proxy: &Proxy,
    host: &str,
    port: u16,
) -> Result<Prefixed<IO>, ProxyError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let talk = Talk { io: &mut io, proxy };
    talk.run(host, port).await?;
    Ok(Prefixed::new(Vec::new(), io))
}

struct Talk<'a, IO> {
    io: &'a mut IO,
    proxy: &'a Proxy,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Talk<'_, IO> {
    async fn run(mut self, host: &str, port: u16) -> Result<(), ProxyError> {
        let request = write_request(host, port).ok_or_else(|| ProxyError::BadTarget {
            target: crate::x509::printable(host, 80),
        })?;
        self.greet().await?;
        self.send(&request).await?;
        let [version, reply, _, kind] = self.read().await?;
        if version != VERSION {
            return Err(self.garbage());
        }
        if reply != 0 {
            return Err(self.refusal(reply, authority(host, port, None)));
        }
        // The address that the proxy connects from is of no use to us, but stands before the tunnel.
        match kind {
            IPV4 => {
                self.read::<4>().await?;
            }
            IPV6 => {
                self.read::<16>().await?;
            }
            NAME => {
                let [length] = self.read().await?;
                for _ in 0..length {
                    self.read::<1>().await?;
                }
            }
            _ => return Err(self.garbage()),
        }
        self.read::<2>().await?;
        Ok(())
    }

    /// Agrees on how the proxy learns who we are, and tells it.
    async fn greet(&mut self) -> Result<(), ProxyError> {
        let credentials = self.proxy.credentials.as_ref();
        match credentials {
            Some(_) => {
                let both = [VERSION, 2, WITHOUT_CREDENTIALS, WITH_PASSWORD];
                self.send(&both).await?;
            }
            None => self.send(&[VERSION, 1, WITHOUT_CREDENTIALS]).await?,
        }
        let [version, method] = self.read().await?;
        if version != VERSION {
            return Err(self.garbage());
        }
        match (method, credentials) {
            (WITHOUT_CREDENTIALS, _) => Ok(()),
            (WITH_PASSWORD, Some(credentials)) => {
                let message =
                    write_password(credentials).ok_or_else(|| ProxyError::CredentialsUnusable {
                        proxy: self.proxy.name(),
                    })?;
                self.send(&message).await?;
                let [_, status] = self.read().await?;
                if status == 0 {
                    Ok(())
                } else {
                    Err(self.credentials_refused())
                }
            }
            (NO_METHOD, _) => Err(self.credentials_refused()),
            _ => Err(self.garbage()),
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), ProxyError> {
        let result = async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        };
        let result: io::Result<()> = result.await;
        result.map_err(|error| ProxyError::of_stream(self.proxy.name(), error))
    }

    async fn read<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], ProxyError> {
        let mut bytes = [0; LENGTH];
        match self.io.read_exact(&mut bytes).await {
            Ok(_) => Ok(bytes),
            Err(error) => Err(ProxyError::of_stream(self.proxy.name(), error)),
        }
    }

    fn garbage(&self) -> ProxyError {
        ProxyError::Garbage {
            proxy: self.proxy.name(),
        }
    }

    fn credentials_refused(&self) -> ProxyError {
        let proxy = self.proxy.name();
        match self.proxy.credentials {
            Some(_) => ProxyError::CredentialsRefused { proxy },
            None => ProxyError::CredentialsNeeded { proxy },
        }
    }

    /// The replies of RFC 1928, section 6.
    fn refusal(&self, reply: u8, target: String) -> ProxyError {
        let proxy = self.proxy.name();
        let answer = match reply {
            1 => "general failure",
            2 => "its rules forbid it",
            3 => "the network is unreachable",
            4 => "the host is unreachable",
            5 => "the connection was refused",
            6 => "it took too long",
            7 => "it can't make connections",
            8 => "it doesn't know this kind of address",
            _ => "for an unknown reason",
        };
        let answer = format!("SOCKS reply {reply}: {answer}");
        match reply {
            1 | 3..=6 => ProxyError::TargetUnreachable {
                proxy,
                target,
                answer,
                retry_after: None,
            },
            _ => ProxyError::Refused {
                proxy,
                target,
                answer,
            },
        }
    }
}

/// `None` if the name is longer than any.
fn write_request(host: &str, port: u16) -> Option<Vec<u8>> {
    let mut request = vec![VERSION, CONNECT, 0];
    // The zone of a link-local address means nothing to the proxy.
    let address = host.split_once('%').map_or(host, |(address, _)| address);
    match address.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend(address.octets());
        }
        Err(_) => {
            request.push(NAME);
            request.push(u8::try_from(host.len()).ok()?);
            request.extend(host.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    Some(request)
}

/// `None` if a part is longer than can be said.
fn write_password(credentials: &Credentials) -> Option<Zeroizing<Vec<u8>>> {
    let (user, password) = (credentials.user.as_bytes(), credentials.password.as_bytes());
    let user_length = u8::try_from(user.len()).ok().filter(|length| *length > 0)?;
    let password_length = u8::try_from(password.len()).ok()?;
    let mut message = Zeroizing::new(Vec::with_capacity(3 + user.len() + password.len()));
    message.extend([PASSWORD_VERSION, user_length]);
    message.extend(user);
    message.push(password_length);
    message.extend(password);
    Some(message)
}
