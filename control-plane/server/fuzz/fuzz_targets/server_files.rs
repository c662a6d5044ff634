//! What lies in the server's folder and what an administrator imports: certificates, keys, the ticket key. The input is the chain, the
//! key and the ticket key, each behind a zero byte. What holds: it is used or refused; what was imported is what the server starts
//! with; and neither a sentence nor a finding holds a character that moves a cursor, or a piece of a key.
#![no_main]

use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use umbra_server::ca::{self, CaFiles};
use umbra_server::import::{Import, as_json, as_text, import};

/// A folder in memory, of this process.
fn folder() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
    base.join(format!("umbra-fuzz-server-{}", std::process::id()))
}

fn told(sentence: &str, key: &[u8]) {
    assert!(!sentence.chars().any(|c| c.is_control() && c != '\n'), "{sentence:?}");
    let key = String::from_utf8_lossy(key);
    let shown = |line: &str| line.len() > 24 && !line.starts_with("-----") && sentence.contains(line);
    assert!(!key.lines().any(shown), "a piece of the key is shown: {sentence}");
}

fuzz_target!(|data: &[u8]| {
    let folder = folder();
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let (chain, key, ticket) = (folder.join("chain"), folder.join("key"), folder.join("ticket.key"));
    for file in [&chain, &key, &ticket] {
        std::fs::write(file, parts.next().unwrap_or_default()).expect("written");
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).expect("closed");
    }
    let secret = data.split(|byte| *byte == 0).nth(1).unwrap_or_default();
    let hosts = ["ums.test".to_owned()];
    let files = CaFiles::in_folder(&folder);
    let wish = Import { chain, key, hosts: &hosts, devices: 0, replace_root: false };
    let mut findings = Vec::new();
    let now = 1_800_000_000;
    let imported = import(&files, &wish, now, &mut |found| findings = found.to_vec());
    told(&as_text(&findings), secret);
    assert!(serde_json::from_str::<serde_json::Value>(&as_json(&findings, &imported)).is_ok());
    match imported {
        Ok((root, _)) => match ca::open(&files, &hosts, now) {
            Ok(authority) => assert_eq!(authority.root_fingerprint, root),
            // The ticket key has nothing to do with the chain.
            Err(error) => told(&error.to_string(), secret),
        },
        Err(error) => told(&error.to_string(), secret),
    }
});
