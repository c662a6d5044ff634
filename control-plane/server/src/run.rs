//! Joins everything: folder, certificates, database, first administrator, port. It is the only module that knows all
//! others, and what `main` calls for each command.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use umbra_protocol::Secret;
use umbra_protocol::api::{Account, Role};
use zeroize::Zeroizing;

use crate::audit::{self, Actor, Line};
use crate::ca::{self, Authority, CaError, CaFiles};
use crate::cli::{AccountCommand, BackupArgs, ImportArgs, RoleArg};
use crate::clock::Clock;
use crate::config::{self, Config, ConfigError};
use crate::files::{self, FileError};
use crate::import::{self, ImportError};
use crate::passwords::{self, PasswordError};
use crate::serve::{self, Tls};
use crate::server::{Parts, Server, ServerError};
use crate::shutdown::Shutdown;
use crate::store::{Store, StoreError, accounts, devices};
use crate::{http, random};

/// The first administrator's account.
const FIRST_ACCOUNT: &str = "admin";

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Mistakes on the command line.
    #[error("the command line has mistakes")]
    Config(#[from] ConfigError),
    /// A file cannot be used.
    #[error("a file cannot be used")]
    File(#[from] FileError),
    /// Another process has the folder.
    #[error("{} is in use by another umbra-server: stop it first", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The folder cannot be locked.
    #[error("{} cannot be locked", path.display())]
    Lock {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The certificates cannot be used.
    #[error("the server's certificates cannot be used")]
    Ca(#[from] CaError),
    /// The chain was not imported.
    #[error("no chain was imported")]
    Import(#[from] ImportError),
    /// The database cannot be used.
    #[error("the database cannot be used")]
    Store(#[from] StoreError),
    /// The server could not be put together.
    #[error("the server cannot start")]
    Server(#[from] ServerError),
    /// A password cannot be used.
    #[error("the password cannot be used")]
    Password(#[from] PasswordError),
    /// Nobody can listen there.
    #[error("{address} cannot be listened on")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Standard input or output failed.
    #[error("standard input or output failed")]
    Stdio(#[source] std::io::Error),
    /// No account of that name, or one already.
    #[error("{0}")]
    Account(String),
}

/// Where the pieces are.
#[derive(Clone, Debug)]
struct Folder(PathBuf);

impl Folder {
    fn database(&self) -> PathBuf {
        self.0.join("umbra.db")
    }

    fn certificates(&self) -> CaFiles {
        CaFiles::in_folder(&self.0)
    }

    fn address(&self) -> PathBuf {
        self.0.join("address")
    }

    /// Makes the folder if it is not there, and keeps other servers out of it until the file is dropped.
    fn lock(&self) -> Result<File, RunError> {
        files::make_private_folder(&self.0)?;
        let path = self.0.join("lock");
        let failed = |source| RunError::Lock {
            path: self.0.clone(),
            source,
        };
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(RunError::InUse {
                path: self.0.clone(),
            }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    async fn store(&self) -> Result<Store, RunError> {
        let file = self.database();
        if !file.exists() {
            // The database's own files inherit this mode.
            files::make_private_folder(&self.0)?;
            files::write(&file, b"", 0o600)?;
        }
        Ok(Store::open(&file).await?)
    }
}

/// A server that is ready to serve.
#[derive(Debug)]
pub struct Ready {
    /// Where it listens.
    pub address: SocketAddr,
    server: Arc<Server>,
    tls: Arc<Tls>,
    listener: TcpListener,
    // Keeps other servers out of the folder.
    _lock: File,
}

impl Ready {
    /// What its connections share.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Its TLS set-up.
    pub fn tls(&self) -> &Arc<Tls> {
        &self.tls
    }

    /// Serves until shutdown.
    pub async fn serve(self, shutdown: Shutdown) {
        let store = self.server.store.clone();
        serve::serve(self.server, self.tls, self.listener, shutdown).await;
        store.close().await;
    }
}

/// Makes what is missing. `out` gets the first administrator's password, once.
pub async fn init(config: &Config, out: &mut (impl Write + Send)) -> Result<(), RunError> {
    let folder = Folder(config.state.clone());
    let _lock = folder.lock()?;
    let (store, _) = prepare(config, &folder, &Clock::system(), out).await?;
    store.close().await;
    Ok(())
}

/// Makes what is missing, and listens. `out` gets the first administrator's password, once.
pub async fn start(
    config: &Config,
    clock: Clock,
    out: &mut (impl Write + Send),
) -> Result<Ready, RunError> {
    let folder = Folder(config.state.clone());
    let lock = folder.lock()?;
    let listen_failed = |source| RunError::Listen {
        address: config.listen,
        source,
    };
    let listener = listen(config.listen).await.map_err(listen_failed)?;
    let address = listener.local_addr().map_err(listen_failed)?;
    let (store, authority) = prepare(config, &folder, &clock, out).await?;
    let server = Server::new(Parts {
        store,
        clock,
        authority,
        endpoints: config.endpoints(&config::own_hosts(), address.port()),
        heartbeat: config.heartbeat,
        gateway_proxy: config.gateway_proxy.clone(),
    })
    .await?;
    let hosts = config.certificate_hosts(&config::own_hosts());
    let tls = Tls::new(&server.authority.identity, folder.certificates(), hosts);
    files::write(&folder.address(), format!("{address}\n").as_bytes(), 0o644)?;
    Ok(Ready {
        address,
        server: Arc::new(server),
        tls: Arc::new(tls),
        listener,
        _lock: lock,
    })
}

/// On a host without IPv6, all addresses are all IPv4 addresses.
async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.is_ipv6() && address.ip().is_unspecified() => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        result => result,
    }
}

async fn prepare(
    config: &Config,
    folder: &Folder,
    clock: &Clock,
    out: &mut (impl Write + Send),
) -> Result<(Store, Authority), RunError> {
    let hosts = config.certificate_hosts(&config::own_hosts());
    let authority = ca::open(&folder.certificates(), &hosts, clock.now())?;
    let store = folder.store().await?;
    first_account(config, &store, clock, out).await?;
    Ok((store, authority))
}

/// The first administrator, if there is no account at all.
async fn first_account(
    config: &Config,
    store: &Store,
    clock: &Clock,
    out: &mut (impl Write + Send),
) -> Result<(), RunError> {
    let mut tx = store.begin().await?;
    if !accounts::list(&mut tx).await?.is_empty() {
        return Ok(());
    }
    let password = random::password();
    let account = Account {
        user: FIRST_ACCOUNT.into(),
        display_name: "Administrator".into(),
        role: Role::Administrator,
    };
    let hash = passwords::hash(&password)?;
    let now = clock.now();
    accounts::add(&mut tx, now, &account, &hash).await?;
    let line = Line::new(Actor::Server, "account.created", FIRST_ACCOUNT).detail("first start");
    audit::append(&mut tx, now, line).await?;
    // Told before it is kept: a password that nobody has seen would lock everybody out.
    match &config.first_password_file {
        Some(file) => {
            let text = Zeroizing::new(format!("{}\n", password.reveal()));
            // Replaces what a start that was cut off has left.
            files::write(file, text.as_bytes(), 0o600)?;
            say(
                out,
                &format!(
                    "first account={FIRST_ACCOUNT} password-file={}",
                    file.display()
                ),
            )?;
        }
        None => tell_password(out, FIRST_ACCOUNT, &password)?,
    }
    tx.commit().await.map_err(StoreError::from)?;
    Ok(())
}

fn say(out: &mut impl Write, line: &str) -> Result<(), RunError> {
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(RunError::Stdio)
}

fn tell_password(out: &mut impl Write, user: &str, password: &Secret) -> Result<(), RunError> {
    let line = Zeroizing::new(format!("account={user} password={}", password.reveal()));
    say(out, &line)
}

/// Imports a chain.
pub async fn import_chain(args: ImportArgs, out: &mut (impl Write + Send)) -> Result<(), RunError> {
    let mut mistakes = Vec::new();
    let hosts = config::read_hosts(&args.hosts, &mut mistakes);
    if !mistakes.is_empty() {
        return Err(ConfigError(mistakes).into());
    }
    let folder = Folder(args.state.state);
    let _lock = folder.lock()?;
    let store = folder.store().await?;
    let clock = Clock::system();
    let mut tx = store.begin().await?;
    let wanted = import::Import {
        chain: args.chain,
        key: args.key,
        hosts: &hosts,
        devices: devices::list(&mut tx, "").await?.len(),
        replace_root: args.replace_root,
    };
    let mut findings = Vec::new();
    let imported = import::import(&folder.certificates(), &wanted, clock.now(), &mut |all| {
        findings = all.to_vec();
    });
    if let Ok((fingerprint, _)) = &imported {
        let line = Line::new(Actor::Server, "server.chain_imported", fingerprint);
        audit::append(&mut tx, clock.now(), line).await?;
        tx.commit().await.map_err(StoreError::from)?;
    } else {
        // The store waits for it.
        drop(tx);
    }
    store.close().await;
    if args.json {
        say(out, &import::as_json(&findings, &imported))?;
        return imported.map(|_| ()).map_err(RunError::from);
    }
    if !findings.is_empty() {
        say(out, import::as_text(&findings).trim_end())?;
    }
    let (fingerprint, warnings) = imported?;
    for warning in warnings {
        say(out, &format!("warning: {warning}"))?;
    }
    say(out, &format!("imported; root fingerprint: {fingerprint}"))
}

/// Prints the root's fingerprint.
pub fn fingerprint(state: &Path, out: &mut impl Write) -> Result<(), RunError> {
    let identity = ca::read_identity(&Folder(state.to_owned()).certificates().server)?;
    let root = identity.chain().last().unwrap_or(identity.certificate());
    let fingerprint = umbra_protocol::Fingerprint::of_certificate(root);
    // In one piece, for readers that stop after the first line.
    let parts = fingerprint.parts();
    let parts = parts.iter().enumerate();
    let parts: Vec<String> = parts
        .map(|(number, part)| format!("Part {}: {part}", number + 1))
        .collect();
    say(out, &format!("{fingerprint}\n{}", parts.join("\n")))
}

/// Copies the database; a running server does not mind.
pub async fn backup(args: BackupArgs, out: &mut (impl Write + Send)) -> Result<(), RunError> {
    let folder = existing(args.state.state)?;
    let store = folder.store().await?;
    // Made first, so that nobody else can read what is written into it.
    files::write_new(&args.file, b"", 0o600)?;
    store.backup(&args.file.to_string_lossy()).await?;
    store.close().await;
    say(out, &format!("copied to {}", args.file.display()))
}

fn existing(state: PathBuf) -> Result<Folder, RunError> {
    let folder = Folder(state);
    if folder.database().exists() {
        Ok(folder)
    } else {
        Err(RunError::Account(format!(
            "{} holds no server: “umbra-server init” makes one",
            folder.0.display()
        )))
    }
}

/// Accounts, also while the server runs.
pub async fn account(
    command: AccountCommand,
    input: &mut (impl std::io::Read + Send),
    out: &mut (impl Write + Send),
) -> Result<(), RunError> {
    let clock = Clock::system();
    match command {
        AccountCommand::List { state } => {
            let store = existing(state.state)?.store().await?;
            let mut connection = store.read().await?;
            for account in accounts::list(&mut connection).await? {
                let role = accounts::role_word(account.role);
                say(
                    out,
                    &format!("{}\t{role}\t{}", account.user, account.display_name),
                )?;
            }
            drop(connection);
            store.close().await;
            Ok(())
        }
        AccountCommand::Add {
            state,
            user,
            display_name,
            role,
            password_stdin,
        } => {
            if !http::is_user_name(&user) {
                return Err(RunError::Account(
                    "an account's name has 1 to 64 letters, digits, dots and dashes".into(),
                ));
            }
            let account = Account {
                display_name: display_name.unwrap_or_else(|| user.clone()),
                user,
                role: match role {
                    RoleArg::Administrator => Role::Administrator,
                    RoleArg::Operator => Role::Operator,
                    RoleArg::Auditor => Role::Auditor,
                },
            };
            let store = existing(state.state)?.store().await?;
            let password = NewSecret::get(password_stdin, input)?;
            let hash = passwords::hash(&password.secret)?;
            let mut tx = store.begin().await?;
            if !accounts::add(&mut tx, clock.now(), &account, &hash).await? {
                let text = format!("there is an account “{}” already", account.user);
                return Err(RunError::Account(text));
            }
            let line = Line::new(Actor::Server, "account.created", &account.user);
            let line = line.detail("command line");
            audit::append(&mut tx, clock.now(), line).await?;
            tx.commit().await.map_err(StoreError::from)?;
            store.close().await;
            password.tell(out, &account.user)
        }
        AccountCommand::Password {
            state,
            user,
            password_stdin,
        } => {
            let store = existing(state.state)?.store().await?;
            let password = NewSecret::get(password_stdin, input)?;
            let hash = passwords::hash(&password.secret)?;
            let mut tx = store.begin().await?;
            if !accounts::set_password(&mut tx, &user, &hash).await? {
                return Err(RunError::Account(format!("there is no account “{user}”")));
            }
            let line = Line::new(Actor::Server, "account.password_set", &user);
            let line = line.detail("command line");
            audit::append(&mut tx, clock.now(), line).await?;
            tx.commit().await.map_err(StoreError::from)?;
            store.close().await;
            password.tell(out, &user)
        }
    }
}

/// A password from standard input, or a made one that has to be told.
struct NewSecret {
    secret: Secret,
    made: bool,
}

impl NewSecret {
    fn get(from_input: bool, input: &mut impl std::io::Read) -> Result<Self, RunError> {
        const LONGEST: u64 = 4_096;
        if !from_input {
            return Ok(Self {
                secret: random::password(),
                made: true,
            });
        }
        let mut text = Zeroizing::new(String::new());
        input
            .take(LONGEST)
            .read_to_string(&mut text)
            .map_err(RunError::Stdio)?;
        Ok(Self {
            secret: Secret::new(text.trim_end_matches(['\r', '\n'])),
            made: false,
        })
    }

    fn tell(&self, out: &mut impl Write, user: &str) -> Result<(), RunError> {
        if self.made {
            tell_password(out, user, &self.secret)
        } else {
            say(out, &format!("account={user}"))
        }
    }
}
