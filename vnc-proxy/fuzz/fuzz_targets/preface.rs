//! Any console's first words, and any device's answer: parsed the same in one piece and byte by byte, within the bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_vnc_proxy::answer::{ANSWER_MAX, AnswerParser};
use umbra_vnc_proxy::preface::{PASSWORD_MAX, Preface, PrefaceParser, TICKET_MAX};

fuzz_target!(|bytes: &[u8]| {
    let whole = PrefaceParser::new().feed(bytes);
    let mut parser = PrefaceParser::new();
    let sliced = bytes.iter().find_map(|byte| parser.push(*byte).transpose());
    match (whole, sliced) {
        (Ok((Some(whole), _)), Some(Ok(sliced))) => {
            assert_eq!(whole, sliced);
            match whole {
                Preface::Ticket { ticket, password } => {
                    assert!(!ticket.is_empty() && ticket.len() <= TICKET_MAX);
                    assert!(
                        !password.expose().is_empty() && password.expose().len() <= PASSWORD_MAX
                    );
                }
                Preface::LegacyPassword(password) => assert_eq!(password.expose().len(), 36),
            }
        }
        (Ok((None, taken)), None) => assert_eq!(taken, bytes.len()),
        (Err(whole), Some(Err(sliced))) => assert_eq!(whole.code(), sliced.code()),
        (whole, sliced) => panic!("{whole:?} in one piece, {sliced:?} byte by byte"),
    }

    let mut parser = AnswerParser::new();
    for byte in bytes {
        match parser.push(*byte) {
            Ok(None) => {}
            Ok(Some(answer)) => assert!(answer.to_line().len() <= ANSWER_MAX),
            Err(_) => break,
        }
    }
});
