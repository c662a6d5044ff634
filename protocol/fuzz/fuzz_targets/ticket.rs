//! Whatever is presented as a ticket: nothing verifies without the key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_protocol::hello::TicketKey;
use umbra_protocol::ticket;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // A valid public key whose private half was thrown away.
    let ed25519 = "78ff3480a282aac34d1bb775d2bbdc5bfddc7bf673a92396af6fa1c0b5057d11".to_owned();
    let key = TicketKey { kid: "0011223344556677".into(), ed25519 };
    assert!(ticket::verify(text, &[key]).is_err());
});
