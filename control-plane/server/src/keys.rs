//! Making first-authentication keys. The text of a key leaves this module once, towards the administrator; what stays
//! is a verifier.

use umbra_protocol::api::{KeyKind, MadeKey, NewKeys};
use umbra_protocol::first_auth::{FirstAuthKey, KeyError, ROUNDS, Verifier};
use umbra_protocol::limits;

use crate::random;
use crate::store::keys::NewKey;

/// Most keys of one request.
const MOST: u32 = 1_000;
/// Most units of one bound key.
const MOST_UNITS: usize = 10_000;

/// What is wrong with a request for keys.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRequestError {
    /// None, or too many.
    #[error("count is a number from 1 to {MOST}")]
    Count,
    /// A bound key without units, or another kind with some.
    #[error("units are needed for a bound key ({MOST_UNITS} at most), and belong to no other kind")]
    Units,
    /// A made-up text for a key that is not for mass deployment, or for several keys.
    #[error("only one key for mass deployment can be chosen; all others are random")]
    Chosen,
    /// A quota for a key that is not for mass deployment, or none at all.
    #[error("a quota is at least 1 and belongs to a key for mass deployment")]
    Quota,
    /// An end that is already there, or beyond all calendars.
    #[error("a key's time is at least one second and at most a hundred years")]
    Expiry,
    /// A tag that is too long.
    #[error("a tag has at most {} bytes", limits::LABEL)]
    Tag,
    /// The chosen key is too weak.
    #[error("the chosen key cannot be used: {0}")]
    Weak(#[from] KeyError),
}

/// A key with what is stored of it.
#[derive(Debug)]
pub struct Made {
    /// For the administrator.
    pub made: MadeKey,
    /// For the database.
    pub stored: NewKey,
}

/// Checks a request and makes its keys. Takes tens of milliseconds per key.
pub fn make(request: &NewKeys, salt: &[u8; 16], now: i64) -> Result<Vec<Made>, KeyRequestError> {
    check(request)?;
    let chosen = request
        .chosen
        .as_ref()
        .map(|text| FirstAuthKey::chosen(text.reveal()))
        .transpose()?;
    let expires_at = request
        .expires_in_seconds
        .map(|seconds| now.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX)));
    let quota = match request.kind {
        KeyKind::OneTime => Some(1),
        KeyKind::Bound => u32::try_from(request.units.len()).ok(),
        KeyKind::Mass => request.quota,
    };
    let texts: Vec<FirstAuthKey> = match chosen {
        Some(key) => vec![key],
        None => (0..request.count)
            .map(|_| FirstAuthKey::from_random(&random::bytes()))
            .collect(),
    };
    let verifiers = stretch_all(&texts, salt);
    Ok(texts
        .iter()
        .zip(verifiers)
        .map(|(text, verifier)| Made {
            made: MadeKey {
                id: verifier.key_id(),
                key: text.for_person(),
            },
            stored: NewKey {
                verifier,
                kind: request.kind,
                units: request.units.clone(),
                expires_at,
                quota,
                tag: request.tag.clone(),
            },
        })
        .collect())
}

/// On two threads: a thousand keys take a while.
fn stretch_all(texts: &[FirstAuthKey], salt: &[u8; 16]) -> Vec<Verifier> {
    let stretch = |texts: &[FirstAuthKey]| -> Vec<Verifier> {
        texts
            .iter()
            .map(|text| text.stretch(salt, ROUNDS).verifier())
            .collect()
    };
    let (first, second) = texts.split_at(texts.len() / 2);
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| stretch(first));
        let second = stretch(second);
        let mut all = beside.join().unwrap_or_else(|_| stretch(first));
        all.extend(second);
        all
    })
}

fn check(request: &NewKeys) -> Result<(), KeyRequestError> {
    const HUNDRED_YEARS: u64 = 100 * 366 * 24 * 60 * 60;
    let NewKeys {
        kind,
        count,
        units,
        chosen,
        expires_in_seconds,
        quota,
        tag,
    } = request;
    if !(1..=MOST).contains(count) {
        return Err(KeyRequestError::Count);
    }
    let bound = *kind == KeyKind::Bound;
    if bound == units.is_empty() || units.len() > MOST_UNITS {
        return Err(KeyRequestError::Units);
    }
    if bound {
        let different: std::collections::HashSet<&str> =
            units.iter().map(|unit| unit.as_str()).collect();
        if different.len() != units.len() {
            return Err(KeyRequestError::Units);
        }
    }
    let mass = *kind == KeyKind::Mass;
    if chosen.is_some() && (!mass || *count != 1) {
        return Err(KeyRequestError::Chosen);
    }
    if quota.is_some_and(|quota| !mass || quota == 0) {
        return Err(KeyRequestError::Quota);
    }
    if expires_in_seconds.is_some_and(|seconds| !(1..=HUNDRED_YEARS).contains(&seconds)) {
        return Err(KeyRequestError::Expiry);
    }
    if tag.len() > limits::LABEL {
        return Err(KeyRequestError::Tag);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use umbra_protocol::Secret;

    use super::*;

    fn request(kind: KeyKind) -> NewKeys {
        NewKeys {
            kind,
            count: 1,
            units: Vec::new(),
            chosen: None,
            expires_in_seconds: None,
            quota: None,
            tag: String::new(),
        }
    }

    #[test]
    fn made_keys_are_found_again_by_what_the_device_computes() {
        let mut wanted = request(KeyKind::OneTime);
        wanted.count = 3;
        let made = make(&wanted, &[7; 16], 0).expect("made");
        assert_eq!(made.len(), 3);
        for one in &made {
            let typed = FirstAuthKey::parse(one.made.key.reveal()).expect("a key");
            assert_eq!(typed.stretch(&[7; 16], ROUNDS).key_id(), one.made.id);
            assert_eq!(one.stored.quota, Some(1));
        }
        assert_ne!(made[0].made.id, made[1].made.id);
    }

    #[test]
    fn requests_that_make_no_sense_are_refused_each_with_its_reason() {
        let refuse = |change: fn(&mut NewKeys), kind| {
            let mut wanted = request(kind);
            change(&mut wanted);
            make(&wanted, &[7; 16], 0).expect_err("refused")
        };
        use KeyKind::{Bound, Mass, OneTime};
        assert_eq!(refuse(|k| k.count = 0, OneTime), KeyRequestError::Count);
        assert_eq!(refuse(|k| k.count = 1_001, OneTime), KeyRequestError::Count);
        assert_eq!(refuse(|_| (), Bound), KeyRequestError::Units);
        let chosen: fn(&mut NewKeys) = |k| k.chosen = Some(Secret::new("correct horse"));
        assert_eq!(refuse(chosen, OneTime), KeyRequestError::Chosen);
        assert_eq!(refuse(|k| k.quota = Some(0), Mass), KeyRequestError::Quota);
        assert_eq!(
            refuse(|k| k.quota = Some(5), OneTime),
            KeyRequestError::Quota
        );
        assert_eq!(
            refuse(|k| k.expires_in_seconds = Some(0), Mass),
            KeyRequestError::Expiry
        );
        assert_eq!(
            refuse(|k| k.chosen = Some(Secret::new("short")), Mass),
            KeyRequestError::Weak(KeyError::TooShort)
        );
    }
}
