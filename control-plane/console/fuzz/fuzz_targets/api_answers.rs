//! Whatever answers as the management API, and what is shown of it. What holds: it reads or it does not; what reads writes back to the
//! same value; a problem is a sentence of one line; and neither a text nor a document that is shown moves a cursor.
#![no_main]

use hyper::StatusCode;
use hyper::body::Bytes;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use umbra_console::api::fuzzing::problem;
use umbra_console::api::http::Answer;
use umbra_console::text::{columns, iso, printable, printable_json, relative};
use umbra_protocol::api::{
    Account, AuditEntry, CommandInfo, Device, DeviceSettings, Gateway, KeyInfo, KeyUse, LoggedIn, MadeKey, SessionOffer, Policy,
    ServerCredentials, SessionInfo,
};

/// What reads writes back to a document that reads and writes the same.
fn back<T: DeserializeOwned + Serialize>(data: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(data) {
        let written = serde_json::to_vec(&value).expect("writes");
        let again: T = serde_json::from_slice(&written).expect("what was written reads");
        assert_eq!(serde_json::to_vec(&again).expect("writes"), written);
    }
}

fn moves_a_cursor(text: &str) -> bool {
    text.chars().any(|c| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, bytes)) = data.split_first() else { return };
    back::<Account>(bytes);
    back::<Vec<AuditEntry>>(bytes);
    back::<CommandInfo>(bytes);
    back::<Vec<Device>>(bytes);
    back::<DeviceSettings>(bytes);
    back::<Gateway>(bytes);
    back::<KeyInfo>(bytes);
    back::<KeyUse>(bytes);
    back::<LoggedIn>(bytes);
    back::<Vec<MadeKey>>(bytes);
    back::<SessionOffer>(bytes);
    back::<Policy>(bytes);
    back::<ServerCredentials>(bytes);
    back::<SessionInfo>(bytes);
    let status = StatusCode::from_u16(400 + u16::from(choice)).unwrap_or(StatusCode::BAD_REQUEST);
    let problem = problem(&Answer { status, content_type: String::new(), body: Bytes::copy_from_slice(bytes) });
    assert!(!problem.detail.chars().any(char::is_control) && !problem.code.chars().any(char::is_control));
    if let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) {
        let document = serde_json::to_string_pretty(&value).expect("writes");
        let shown = printable_json(&document);
        assert!(!moves_a_cursor(&shown), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).ok(), Some(value), "it means something else");
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let shown = printable(text);
        assert!(!moves_a_cursor(&shown) && !shown.contains('\n'), "{shown:?}");
        assert!(columns(&shown) <= 2 * shown.chars().count());
    }
    if let Some((seconds, rest)) = bytes.split_first_chunk::<8>() {
        let seconds = i64::from_be_bytes(*seconds);
        let now = rest.first_chunk::<8>().map_or(0, |now| i64::from_be_bytes(*now));
        assert!(!iso(seconds).is_empty() && !relative(seconds, now).is_empty());
    }
});
