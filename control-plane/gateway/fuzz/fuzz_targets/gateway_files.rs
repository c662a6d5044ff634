//! What an administrator gives a gateway, and what proxies tell it: networks, forwarded addresses, and the keystore's certificates.
//! What holds: a network that reads is written so that it reads the same; nobody who is not a trusted proxy is believed about its
//! address; and every mistake in a keystore is a sentence without a character that moves a cursor.
#![no_main]

use std::net::IpAddr;
use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use umbra_gateway::addresses::{Network, Peer};
use umbra_gateway::config::Keystore;
use umbra_gateway::keystore::Keys;

/// A folder in memory, of this process.
fn folder() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
    base.join(format!("umbra-fuzz-keystore-{}", std::process::id()))
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else { return };
    if let Ok(text) = std::str::from_utf8(bytes) {
        match text.parse::<Network>() {
            Ok(network) => assert_eq!(network.to_string().parse::<Network>(), Ok(network)),
            Err(error) => assert!(!error.to_string().chars().any(char::is_control)),
        }
        let proxy: IpAddr = "192.0.2.1".parse().expect("an address");
        let stranger: IpAddr = "203.0.113.9".parse().expect("an address");
        let trusted: Vec<Network> = vec!["192.0.2.0/24".parse().expect("a network")];
        let believed = Peer::behind(proxy, &trusted, Some(text));
        assert!(believed.source.is_some() == (believed.address != proxy), "{believed:?}");
        assert!(believed.source.is_none() || !trusted[0].contains(believed.address), "a proxy is taken for a client");
        assert_eq!(Peer::behind(stranger, &trusted, Some(text)).address, stranger, "a stranger is believed");
    }
    if choice % 4 > 0 {
        return;
    }
    let folder = folder();
    std::fs::create_dir_all(&folder).expect("a folder");
    let files = Keystore { chain: folder.join("c"), key: folder.join("k"), servers: folder.join("s") };
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    for file in [&files.chain, &files.key, &files.servers] {
        std::fs::write(file, parts.next().unwrap_or_default()).expect("written");
    }
    if let Err(error) = Keys::load(&files) {
        assert!(!error.mistakes.is_empty());
        for mistake in error.mistakes {
            assert!(!mistake.chars().any(char::is_control), "{mistake:?}");
        }
    }
});
