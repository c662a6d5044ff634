//! The proxy as the environment names it: `https_proxy`, `all_proxy`, `no_proxy` and their capital forms. The values come
//! from the caller, and may hold a password: no error repeats one.

use super::{Credentials, NoProxy, Proxy, ProxyKind, ProxySettings};
use crate::address::HostPort;

/// Which variables name a proxy; the first that isn't empty counts.
const VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
const EXCEPTIONS: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// Why a proxy's address can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxySettingsError {
    /// Another kind of proxy.
    #[error(
        "{place} names a kind of proxy that isn't supported: http://HOST:PORT, socks5://HOST:PORT and \
         socks5h://HOST:PORT are"
    )]
    Scheme {
        /// Where the address stands.
        place: String,
    },
    /// No host and port.
    #[error("{place} doesn't hold the address of a proxy, like http://proxy.example.com:3128")]
    Address {
        /// Where the address stands.
        place: String,
    },
    /// Broken percent signs.
    #[error(
        "the user name or the password in {place} has a % that isn't followed by two hexadecimal digits"
    )]
    Escape {
        /// Where the address stands.
        place: String,
    },
}

impl ProxySettings {
    /// What the environment says. `get` gives a variable's value.
    ///
    /// # Errors
    /// [`ProxySettingsError`], naming the variable.
    pub fn from_environment(
        get: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ProxySettingsError> {
        let first = |names: &[&str]| {
            let set = |name: &&str| Some((name.to_string(), get(name)?));
            names
                .iter()
                .filter_map(set)
                .find(|(_, value)| !value.trim().is_empty())
        };
        let Some((name, value)) = first(&VARIABLES) else {
            return Ok(Self::none());
        };
        let exceptions = first(&EXCEPTIONS).map(|(_, list)| list).unwrap_or_default();
        Ok(Self {
            proxy: Some(read_url(&value, &name)?),
            no_proxy: NoProxy::parse(&exceptions),
        })
    }

    /// A proxy from its address as a URL; without a scheme, HTTP is meant. Without a port it is 80, for SOCKS 1080.
    ///
    /// # Errors
    /// [`ProxySettingsError`]
    pub fn from_url(url: &str, no_proxy: NoProxy) -> Result<Self, ProxySettingsError> {
        Ok(Self {
            proxy: Some(read_url(url, "the setting")?),
            no_proxy,
        })
    }
}

fn read_url(url: &str, place: &str) -> Result<Proxy, ProxySettingsError> {
    let place = || place.to_owned();
    let bad_address = || ProxySettingsError::Address { place: place() };
    let url = url.trim();
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let kind = match scheme.to_ascii_lowercase().as_str() {
        "http" => ProxyKind::Http,
        "socks5" | "socks5h" => ProxyKind::Socks5,
        _ => return Err(ProxySettingsError::Scheme { place: place() }),
    };
    // A password may hold slashes: the last @ ends it.
    let (credentials, rest) = match rest.rsplit_once('@') {
        Some((credentials, rest)) => (Some(credentials), rest),
        None => (None, rest),
    };
    let address = match rest.split_once('/') {
        Some((address, "")) => address,
        Some(_) => return Err(bad_address()),
        None => rest,
    };
    let port = match kind {
        ProxyKind::Http => 80,
        ProxyKind::Socks5 => 1080,
    };
    let address = HostPort::parse(address, port).map_err(|_| bad_address())?;
    let unescape =
        |text| unescape(text).ok_or_else(|| ProxySettingsError::Escape { place: place() });
    let credentials = match credentials {
        None | Some("") => None,
        Some(text) => {
            let (user, password) = text.split_once(':').unwrap_or((text, ""));
            Some(Credentials::new(unescape(user)?, unescape(password)?))
        }
    };
    Ok(Proxy {
        kind,
        host: address.host().to_owned(),
        port: address.port(),
        credentials,
    })
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let value = digit()? * 16 + digit()?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
