//! A client that seals its records itself, and so says what no TLS library would, before the handshake and after it, while this end reads,
//! writes and says farewell in any order. What is heard is what was said under the right keys, in order, and nothing after a broken rule.
#![no_main]

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, RootCertStore, ServerConfig,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use umbra_tls_stream::ServerStream;

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Kind {
    Cipher,
    Alert,
    Handshake,
    Data,
    Other(u8),
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Cipher => 20,
            Self::Alert => 21,
            Self::Handshake => 22,
            Self::Data => 23,
            Self::Other(number) => number,
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Message {
    KeyUpdate(u8),
    Finished,
    Other(u8, Vec<u8>),
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        let (kind, content): (u8, &[u8]) = match self {
            Self::KeyUpdate(wish) => (24, &[*wish]),
            Self::Finished => (20, &[]),
            Self::Other(kind, content) => (*kind, content),
        };
        let length = (content.len() as u32).to_be_bytes();
        [&[kind, length[1], length[2], length[3]][..], content].concat()
    }
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// Bytes on the wire as they are.
    Raw(Vec<u8>),
    /// A record, sealed in order.
    Record(Kind, Vec<u8>),
    /// Handshake messages: so many bytes of them in one record, the others in another one, or in none.
    Handshake(Vec<Message>, u8, bool),
    Read(u8),
    Write(u16),
    Flush,
    Shutdown,
}

impl Step {
    /// The records that it sends, by content type.
    fn records(&self) -> Vec<(u8, Vec<u8>)> {
        match self {
            Self::Record(kind, content) => vec![(kind.number(), content.clone())],
            Self::Handshake(messages, first, rest) => {
                let bytes: Vec<u8> = messages.iter().flat_map(Message::bytes).collect();
                let (one, other) = bytes.split_at(bytes.len().min(usize::from(*first)));
                let mut records = vec![(22, one.to_vec())];
                if *rest {
                    records.push((22, other.to_vec()));
                }
                records
            }
            Self::Raw(_) | Self::Read(_) | Self::Write(_) | Self::Flush | Self::Shutdown => {
                Vec::new()
            }
        }
    }
}

#[derive(Arbitrary, Debug)]
struct Run {
    after_handshake: bool,
    /// Whether this end reads after each step.
    eager: bool,
    steps: Vec<Step>,
}

const ROOM: usize = 1 << 20;

struct Configs {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

fn configs() -> &'static Configs {
    static CONFIGS: OnceLock<Configs> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec!["device.test".to_owned()])
            .expect("a certificate");
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let mut provider = default_provider();
        provider.cipher_suites = vec![cipher_suite::TLS13_AES_256_GCM_SHA384];
        let provider = Arc::new(provider);
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a root");
        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.enable_secret_extraction = true;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("they fit");
        server.send_tls13_tickets = 0;
        Configs {
            client: Arc::new(client),
            server: Arc::new(server),
        }
    })
}

/// Nothing here waits for time or for anybody else: one look is enough.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

struct Client {
    wire: DuplexStream,
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Client {
    fn raw(&mut self, bytes: &[u8]) {
        now(self.wire.write_all(bytes));
    }

    fn send(&mut self, kind: u8, content: &[u8]) {
        let mut nonce = self.iv;
        for (byte, count) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= count;
        }
        self.sequence += 1;
        let mut record = [content, &[kind]].concat();
        let length = (record.len() as u16 + 16).to_be_bytes();
        let header = [23, 3, 3, length[0], length[1]];
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(nonce, Aad::from(header), &mut record)
            .expect("sealed");
        self.raw(&header);
        self.raw(&record);
    }
}

/// An honest handshake.
fn open() -> (Client, ServerStream<DuplexStream>) {
    let configs = configs();
    let (mut wire, device) = duplex(ROOM);
    let name = ServerName::try_from("device.test").expect("a name");
    let mut client = ClientConnection::new(Arc::clone(&configs.client), name).expect("a client");
    let mut accepting = Box::pin(ServerStream::accept(device, Arc::clone(&configs.server)));
    let stream = loop {
        let mut said = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut said).expect("in memory");
        }
        now(wire.write_all(&said));
        let accepted = now(accepting.as_mut());
        let mut told = vec![0; 64 * 1024];
        if let Some(Ok(count)) = now(wire.read(&mut told)) {
            let mut told = &told[..count];
            while !told.is_empty() {
                client.read_tls(&mut told).expect("in memory");
                client.process_new_packets().expect("an honest server");
            }
        }
        if let Some(accepted) = accepted {
            break accepted.expect("an honest client");
        }
    };
    let secrets = client.dangerous_extract_secrets().expect("allowed");
    let (sequence, ConnectionTrafficSecrets::Aes256Gcm { key, iv }) = secrets.tx else {
        unreachable!("the only suite");
    };
    let key = UnboundKey::new(&AES_256_GCM, key.as_ref()).expect("32 bytes");
    let client = Client {
        wire,
        key: LessSafeKey::new(key),
        iv: iv.as_ref().try_into().expect("12 bytes"),
        sequence,
    };
    (client, stream)
}

fn strange_handshake(steps: &[Step]) {
    let (mut wire, device) = duplex(ROOM);
    let mut accepting = Box::pin(ServerStream::accept(device, Arc::clone(&configs().server)));
    for step in steps {
        if let Step::Raw(bytes) = step {
            now(wire.write_all(bytes));
        }
        for (kind, content) in step.records() {
            let length = (content.len() as u16).to_be_bytes();
            now(wire.write_all(&[kind, 3, 3, length[0], length[1]]));
            now(wire.write_all(&content));
        }
        if now(accepting.as_mut()).is_some() {
            return;
        }
    }
}

/// What was said and heard so far.
#[derive(Default)]
struct Talk {
    said: Vec<u8>,
    heard: Vec<u8>,
    failed: bool,
}

impl Talk {
    fn read(&mut self, stream: &mut ServerStream<DuplexStream>, room: u8) {
        let mut part = vec![0; usize::from(room) + 1];
        match now(stream.read(&mut part)) {
            Some(Ok(count)) => {
                assert!(
                    count == 0 || !self.failed,
                    "heard after the rules were broken"
                );
                self.heard.extend_from_slice(&part[..count]);
            }
            Some(Err(_)) => self.failed = true,
            None => {}
        }
        let (said, heard) = (&self.said, &self.heard);
        assert!(said.starts_with(heard), "{heard:?} instead of {said:?}");
    }
}

fuzz_target!(|run: Run| {
    if !run.after_handshake {
        return strange_handshake(&run.steps);
    }
    let (mut client, mut stream) = open();
    let mut talk = Talk::default();
    for step in &run.steps {
        for (kind, content) in step.records() {
            if kind == 23 {
                talk.said.extend_from_slice(&content);
            }
            client.send(kind, &content);
        }
        match step {
            Step::Raw(bytes) => client.raw(bytes),
            Step::Record(..) | Step::Handshake(..) => {}
            Step::Read(room) => talk.read(&mut stream, *room),
            Step::Write(length) => {
                now(stream.write(&vec![7; usize::from(*length)]));
            }
            Step::Flush => {
                now(stream.flush());
            }
            Step::Shutdown => {
                now(stream.shutdown());
                // Whoever reads on and finds a broken rule meets an assertion of the TLS library, which is there while debugging only: an alert
                // after a farewell.
                return;
            }
        }
        if run.eager {
            talk.read(&mut stream, 31);
        }
    }
});
