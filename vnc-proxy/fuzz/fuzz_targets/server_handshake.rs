//! Any VNC server, hostile ones included, while the handshake is played with it: bounded answers, no byte read too many, and the same
//! end in all slices. The first byte chooses version, password and slices.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_vnc_proxy::Secret;
use umbra_vnc_proxy::greeting::GreetingParser;
use umbra_vnc_proxy::server_handshake::{LoginError, ServerHandshake};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let line: &[u8; 12] = match choice & 3 {
        0 => b"RFB 003.003\n",
        1 => b"RFB 003.007\n",
        2 => b"RFB 003.008\n",
        _ => b"RFB 004.001\n",
    };
    let password = (choice & 4 != 0).then(|| Secret::new("password"));
    let slice = usize::from(choice >> 3) + 1;
    let whole = play(line, password.clone(), bytes, usize::MAX);
    let sliced = play(line, password, bytes, slice);
    assert_eq!(whole, sliced);
});

fn play(
    line: &[u8],
    password: Option<Secret>,
    bytes: &[u8],
    slice: usize,
) -> (Result<usize, LoginError>, Vec<u8>) {
    let Ok((Some(greeting), _)) = GreetingParser::new().feed(line) else {
        panic!("a greeting")
    };
    let mut out = Vec::new();
    let mut handshake = ServerHandshake::new(&greeting, password, &mut out);
    let mut taken = 0;
    for chunk in bytes.chunks(slice) {
        match handshake.feed(chunk, &mut out) {
            Ok(count) => taken += count,
            Err(error) => return (Err(error), out),
        }
        assert!(handshake.wants() <= 4096);
        if handshake.wants() == 0 {
            break;
        }
    }
    assert!(
        out.len() <= 12 + 1 + 16,
        "nothing but version, choice and response"
    );
    (Ok(taken), out)
}
