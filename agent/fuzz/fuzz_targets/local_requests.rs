//! What somebody on the device says: on the control socket, to the program that acts as root, to the assistant; and what they are
//! answered. What holds: it reads or it does not; what reads writes back to the same value; a refusal shows nothing that moves a
//! cursor and no secret.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_agent::control::fuzzing::read_request;
use umbra_agent::control::wire::{Request, Response};
use umbra_agent::hands::fuzzing::{read_answer, read_wish};
use umbra_agent::setup::sticks::fuzzing::media;

fuzz_target!(|data: &[u8]| {
    match read_request(data) {
        Ok(request) => {
            let written = serde_json::to_vec(&request).expect("writes");
            assert_eq!(read_request(&written).as_ref(), Ok(&request));
            if let Request::RegistrySet { words, .. } = &request {
                let shown = format!("{request:?}");
                assert!(words.iter().all(|word| word.reveal().len() < 12 || !shown.contains(word.reveal())));
            }
        }
        Err(failure) => assert!(!failure.sentence.chars().any(char::is_control), "{:?}", failure.sentence),
    }
    if let Ok(response) = serde_json::from_slice::<Response>(data) {
        let written = serde_json::to_vec(&response).expect("writes");
        assert_eq!(serde_json::from_slice::<Response>(&written).ok(), Some(response));
    }
    let _ = read_wish(data);
    if let Ok(sentence) = read_answer(data) {
        assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
    }
    if let Ok(text) = std::str::from_utf8(data) {
        for medium in media(text) {
            assert!(medium.is_absolute(), "{}", medium.display());
        }
    }
});
