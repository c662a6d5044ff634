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
use rustls::{ClientConfig, ClientConnection, ConnectionTrafficSecrets, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use umbra_tls_stream::ServerStream;

#[derive(Arbitrary, Debug)]
enum Step {
    /// Bytes on the wire as they are.
    Raw(Vec<u8>),
    /// A record of this content type, sealed in order.
    Record(u8, Vec<u8>),
    /// A handshake message, whole.
    Handshake(u8, Vec<u8>),
    /// Data, whole.
    Data(Vec<u8>),
    Read(u8),
    Write(u16),
    Flush,
    Shutdown,
}

#[derive(Arbitrary, Debug)]
struct Run {
    after_handshake: bool,
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
        let bytes = match step {
            Step::Raw(bytes) | Step::Data(bytes) => bytes.clone(),
            Step::Record(kind, content) => {
                let length = (content.len() as u16).to_be_bytes();
                [&[*kind, 3, 3, length[0], length[1]][..], content].concat()
            }
            Step::Handshake(kind, content) => {
                let whole = message(*kind, content);
                let length = (whole.len() as u16).to_be_bytes();
                [&[22, 3, 1, length[0], length[1]][..], &whole].concat()
            }
            Step::Read(_) | Step::Write(_) | Step::Flush | Step::Shutdown => Vec::new(),
        };
        now(wire.write_all(&bytes));
        if now(accepting.as_mut()).is_some() {
            return;
        }
    }
}

fn message(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u32).to_be_bytes();
    [&[kind, length[1], length[2], length[3]][..], content].concat()
}

fuzz_target!(|run: Run| {
    if !run.after_handshake {
        return strange_handshake(&run.steps);
    }
    let (mut client, mut stream) = open();
    let (mut said, mut heard) = (Vec::new(), Vec::new());
    let mut failed = false;
    for step in &run.steps {
        match step {
            Step::Raw(bytes) => client.raw(bytes),
            Step::Record(kind, content) => {
                if *kind == 23 {
                    said.extend_from_slice(content);
                }
                client.send(*kind, content);
            }
            Step::Handshake(kind, content) => client.send(22, &message(*kind, content)),
            Step::Data(content) => {
                said.extend_from_slice(content);
                client.send(23, content);
            }
            Step::Read(room) => {
                let mut part = vec![0; usize::from(*room) + 1];
                match now(stream.read(&mut part)) {
                    Some(Ok(count)) => {
                        assert!(count == 0 || !failed, "heard after the rules were broken");
                        heard.extend_from_slice(&part[..count]);
                    }
                    Some(Err(_)) => failed = true,
                    None => {}
                }
            }
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
        assert!(said.starts_with(&heard), "{heard:?} instead of {said:?}");
    }
});
