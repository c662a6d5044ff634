//! Errors with their causes, for people. Our own errors are sentences already; below them stand those of the system, the
//! resolver and the TLS library, whose words are for programmers. Here, and nowhere else, they become ours: what happened,
//! without numbers and names of types. The words themselves are never lost; they are in the log at its level `debug`.

use std::error::Error;
use std::io;
use std::sync::Arc;

use crate::tls::TlsError;

/// An error and its causes as clauses, outermost first; none repeats what stands before it.
pub fn clauses(error: &(dyn Error + 'static)) -> Vec<String> {
    let mut clauses: Vec<String> = Vec::new();
    let mut next = Some(error);
    let mut translated = false;
    while let Some(error) = next {
        let told = clause(error);
        translated |= told.as_deref() != Some(error.to_string().as_str());
        if let Some(told) = told.filter(|told| !told.is_empty())
            && clauses.last().is_none_or(|last| !last.ends_with(&told))
        {
            clauses.push(told);
        }
        next = error.source();
    }
    if translated {
        tracing::debug!(words = in_their_words(error), "the causes, word for word");
    }
    clauses
}

/// An error with its causes as one clause, to be written behind something else.
pub fn clause_of(error: &(dyn Error + 'static)) -> String {
    clauses(error).join(": ")
}

/// An error with its causes as one sentence.
pub fn sentence(error: &(dyn Error + 'static)) -> String {
    let text = clause_of(error);
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    let mut sentence = first.unwrap_or_default() + letters.as_str();
    if !sentence.ends_with('.') {
        sentence.push('.');
    }
    sentence
}

/// All causes as they are, for whoever looks for the cause in a program.
fn in_their_words(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}

/// One error without its causes; nothing where what stands before it says all that helps.
fn clause(error: &(dyn Error + 'static)) -> Option<String> {
    // What several hold is the same error.
    if let Some(shared) = error.downcast_ref::<Arc<io::Error>>() {
        return of_system(shared);
    }
    if let Some(system) = error.downcast_ref::<io::Error>() {
        return of_system(system);
    }
    if error.is::<rustls::Error>() || error.is::<Arc<rustls::Error>>() {
        // Every variant of ours that holds one says what it means.
        return None;
    }
    Some(error.to_string())
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the system's kinds of error grow; others keep their text"
)]
fn of_system(error: &io::Error) -> Option<String> {
    if let Some(inner) = error.get_ref() {
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return Some(TlsError::from(tls.clone()).to_string());
        }
        if let Some(system) = inner.downcast_ref::<io::Error>() {
            return of_system(system);
        }
        return of_resolver(&inner.to_string());
    }
    let told = match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens there, or a firewall refuses it",
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => "the other side broke the connection off",
        io::ErrorKind::UnexpectedEof => "it ended too early",
        io::ErrorKind::TimedOut => "nobody answered in time",
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable => "no route leads there",
        io::ErrorKind::AddrInUse => "another program uses this address and port",
        _ => {
            let text = error.to_string();
            let told = text.split(" (os error ").next().unwrap_or_default();
            return Some(told.to_owned());
        }
    };
    Some(told.to_owned())
}

/// What the standard library makes of the resolver's words, which have no kind of their own.
fn of_resolver(text: &str) -> Option<String> {
    let Some(said) = text.strip_prefix("failed to lookup address information") else {
        return Some(text.to_owned());
    };
    if said.contains("Temporary failure") || said.contains("Try again") {
        return Some("no name server answers".to_owned());
    }
    // That a name can't be found is said before.
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

    use super::*;
    use crate::names::System;
    use crate::tcp;

    #[derive(Debug, thiserror::Error)]
    #[error("the gateway cannot be reached")]
    struct Outer(#[source] io::Error);

    fn told(error: io::Error) -> String {
        sentence(&Outer(error))
    }

    #[test]
    fn what_the_system_says_becomes_what_happened() {
        let errno = |number| told(io::Error::from_raw_os_error(number));
        assert_eq!(
            errno(111),
            "The gateway cannot be reached: nothing listens there, or a firewall refuses it."
        );
        assert_eq!(
            errno(104),
            "The gateway cannot be reached: the other side broke the connection off."
        );
        assert_eq!(
            errno(113),
            "The gateway cannot be reached: no route leads there."
        );
        assert_eq!(
            errno(2),
            "The gateway cannot be reached: No such file or directory."
        );
    }

    #[test]
    fn what_the_tls_library_says_becomes_our_reason() {
        let rustls = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let through = told(io::Error::other(rustls.clone()));
        assert_eq!(
            through,
            "The gateway cannot be reached: a certificate in the chain breaks the rules for certificates."
        );
        let own = sentence(&TlsError::from(rustls));
        assert_eq!(
            own,
            "A certificate in the chain breaks the rules for certificates."
        );
        let broken = TlsError::from(rustls::Error::DecryptError);
        assert!(broken.source().is_some(), "the words are kept for the log");
        assert!(
            !sentence(&broken).contains("decrypt"),
            "{}",
            sentence(&broken)
        );
    }

    #[test]
    fn our_own_words_inside_of_the_systems_errors_stay_and_nothing_is_said_twice() {
        let own = io::Error::other(TlsError::WrongService);
        assert_eq!(
            told(own),
            "The gateway cannot be reached: what answers there speaks TLS, but isn't the service that was expected."
        );
        let twice = io::Error::other("the gateway cannot be reached");
        assert_eq!(told(twice), "The gateway cannot be reached.");
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_told_without_the_resolvers_words() {
        let deadline = std::time::Duration::from_secs(20);
        let error = tcp::connect("does-not-exist.invalid", 443, &System, deadline)
            .await
            .unwrap_err();
        let told = sentence(&error);
        assert!(
            told.starts_with("The name “does-not-exist.invalid” can't be found"),
            "{told}"
        );
        assert!(!told.contains("lookup"), "{told}");
        assert_eq!(
            of_resolver("failed to lookup address information: Name or service not known"),
            None
        );
        assert_eq!(
            of_resolver(
                "failed to lookup address information: Temporary failure in name resolution"
            )
            .as_deref(),
            Some("no name server answers")
        );
    }
}
