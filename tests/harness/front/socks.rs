//! A SOCKS5 proxy (RFC 1928, RFC 1929) that resolves names by a list of its own and nothing else, so that a scenario sees
//! who resolved a name. It understands CONNECT only.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// Who may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocksUser {
    /// The name.
    pub name: String,
    /// The password.
    pub password: String,
}

struct Rules {
    user: Option<SocksUser>,
    names: BTreeMap<String, Ipv4Addr>,
    asked: Mutex<Vec<String>>,
}

/// A running proxy; it ends, and every connection with it, when this is dropped.
pub struct SocksProxy {
    address: SocketAddr,
    rules: Arc<Rules>,
    accepting: AbortHandle,
}

impl SocksProxy {
    /// Starts on a free port of `address`, for everybody or for one user, with the names that it knows.
    pub async fn start(
        address: Ipv4Addr,
        user: Option<SocksUser>,
        names: &[(&str, Ipv4Addr)],
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((address, 0)).await?;
        let address = listener.local_addr()?;
        let rules = Arc::new(Rules {
            user,
            names: names
                .iter()
                .map(|(name, address)| ((*name).to_owned(), *address))
                .collect(),
            asked: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&rules))).abort_handle();
        Ok(Self {
            address,
            rules,
            accepting,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked to connect to, as `HOST:PORT`.
    pub fn asked(&self) -> Vec<String> {
        self.rules
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for SocksProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, rules: Arc<Rules>) {
    let mut connections = JoinSet::new();
    loop {
        // An error of accept is a client that left early.
        if let Ok((client, _)) = listener.accept().await {
            let rules = Arc::clone(&rules);
            connections.spawn(async move {
                // Whoever does not keep to the protocol is hung up on.
                let _ = serve(client, &rules).await;
            });
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut client: TcpStream, rules: &Rules) -> io::Result<()> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    if client.read_u8().await? != 5 {
        return Err(bad());
    }
    let methods = text(&mut client).await?;
    let method = if rules.user.is_some() { 2 } else { 0 };
    if !methods.contains(&method) {
        return client.write_all(&[5, 0xff]).await;
    }
    client.write_all(&[5, method]).await?;
    if let Some(user) = &rules.user {
        if client.read_u8().await? != 1 {
            return Err(bad());
        }
        let (name, password) = (text(&mut client).await?, text(&mut client).await?);
        let right = name == user.name.as_bytes() && password == user.password.as_bytes();
        client.write_all(&[1, u8::from(!right)]).await?;
        if !right {
            return Ok(());
        }
    }
    let mut head = [0; 4];
    client.read_exact(&mut head).await?;
    let host = match head {
        [5, 1, 0, 1] => Ipv4Addr::from(client.read_u32().await?).to_string(),
        [5, 1, 0, 3] => String::from_utf8(text(&mut client).await?).map_err(|_| bad())?,
        _ => return Err(bad()),
    };
    let port = client.read_u16().await?;
    rules
        .asked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(format!("{host}:{port}"));
    let address = rules.names.get(&host).copied().or(host.parse().ok());
    let answer = |code: u8| [5, code, 0, 1, 0, 0, 0, 0, 0, 0];
    let Some(address) = address else {
        return client.write_all(&answer(4)).await;
    };
    match TcpStream::connect((address, port)).await {
        Ok(mut server) => {
            client.write_all(&answer(0)).await?;
            copy_bidirectional(&mut client, &mut server).await.map(drop)
        }
        Err(_) => client.write_all(&answer(5)).await,
    }
}

async fn text(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(client.read_u8().await?)];
    client.read_exact(&mut bytes).await?;
    Ok(bytes)
}
