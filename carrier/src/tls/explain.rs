//! Why a chain was refused, in terms of its certificates. webpki says what is wrong but rarely with which certificate;
//! that is found out here, after the refusal. Nothing in here can make a refused chain a trusted one.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::error::TlsError;
use super::trust::read;
use crate::x509::{CertificateFacts, der};

/// A presented chain, for explaining what webpki found.
pub(super) struct Chain<'a> {
    pub(super) end: CertificateFacts,
    end_der: &'a CertificateDer<'a>,
    pub(super) others: &'a [CertificateDer<'a>],
}

impl<'a> Chain<'a> {
    pub(super) fn read(
        end: &'a CertificateDer<'a>,
        others: &'a [CertificateDer<'a>],
    ) -> Result<Self, TlsError> {
        Ok(Self {
            end: read(end)?,
            end_der: end,
            others,
        })
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "webpki's errors grow; unknown ones keep their text as source"
    )]
    pub(super) fn explain(
        &self,
        error: webpki::Error,
        roots: &[CertificateDer<'_>],
        name: &ServerName<'_>,
    ) -> TlsError {
        match error {
            webpki::Error::CertExpired { not_after, .. } => TlsError::Expired {
                subject: self.with_date(|facts| facts.not_after, not_after),
                not_after: seconds(not_after),
            },
            webpki::Error::CertNotValidYet { not_before, .. } => TlsError::NotYetValid {
                subject: self.with_date(|facts| facts.not_before, not_before),
                not_before: seconds(not_before),
            },
            webpki::Error::CertNotValidForName(_) => TlsError::WrongName {
                wanted: name.to_str().into_owned(),
                names: self.end.san.clone(),
            },
            webpki::Error::UnknownIssuer => self.explain_unknown_issuer(roots),
            webpki::Error::CaUsedAsEndEntity => TlsError::EndIsCa {
                subject: self.end.display_name(),
            },
            webpki::Error::EndEntityUsedAsCa => TlsError::NotCa {
                subject: self.first_non_ca(),
            },
            webpki::Error::PathLenConstraintViolated => TlsError::PathTooLong,
            webpki::Error::InvalidSignatureForPublicKey => TlsError::SignatureWrong,
            webpki::Error::SignatureAlgorithmMismatch
            | webpki::Error::UnsupportedSignatureAlgorithmContext(_)
            | webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
                TlsError::SignatureNotAccepted
            }
            webpki::Error::RequiredEkuNotFoundContext(_) | webpki::Error::EmptyEkuExtension => {
                TlsError::WrongPurpose {
                    subject: self.end.display_name(),
                }
            }
            webpki::Error::BadDer | webpki::Error::BadDerTime | webpki::Error::TrailingData(_) => {
                TlsError::CertificateUnreadable
            }
            other => {
                TlsError::CertificateRefused(Arc::new(rustls::Error::General(format!("{other:?}"))))
            }
        }
    }

    /// The presented certificate with this date; webpki reports the date only.
    fn with_date(&self, date: impl Fn(&CertificateFacts) -> i64, wanted: UnixTime) -> String {
        if date(&self.end) == seconds(wanted) {
            return self.end.display_name();
        }
        self.others
            .iter()
            .filter_map(|certificate| CertificateFacts::read(certificate).ok())
            .find(|facts| date(facts) == seconds(wanted))
            .unwrap_or_else(|| self.end.clone())
            .display_name()
    }

    fn explain_unknown_issuer(&self, roots: &[CertificateDer<'_>]) -> TlsError {
        let issuers = self.issuers();
        let top = issuers.last().copied().unwrap_or(self.end_der);
        let (Some(shape), Ok(facts)) = (der::shape(top), CertificateFacts::read(top)) else {
            return TlsError::UnknownRoot;
        };
        let known = |root: &CertificateDer<'_>| {
            der::shape(root).is_some_and(|root| root.subject == shape.issuer)
        };
        let is_root = shape.issuer == shape.subject || roots.iter().any(known);
        // A chain that ends below an unknown root, and presents an intermediate certificate, is simply of another root.
        let of_another_root = !self.presents_any(roots) && !issuers.is_empty();
        if is_root || of_another_root {
            TlsError::UnknownRoot
        } else {
            TlsError::IssuerMissing {
                issuer: facts.issuer,
            }
        }
    }

    /// Whether one of these roots is among the presented certificates: then the chain was meant to be complete.
    fn presents_any(&self, roots: &[CertificateDer<'_>]) -> bool {
        roots.iter().any(|root| {
            self.others
                .iter()
                .any(|other| other.as_ref() == root.as_ref())
        })
    }

    fn first_non_ca(&self) -> String {
        self.issuers()
            .into_iter()
            .filter_map(|certificate| CertificateFacts::read(certificate).ok())
            .find(|facts| facts.is_ca != Some(true))
            .unwrap_or_else(|| self.end.clone())
            .display_name()
    }

    /// The presented certificates above the end certificate, by names alone.
    fn issuers(&self) -> Vec<&'a CertificateDer<'a>> {
        let mut found: Vec<&CertificateDer<'_>> = Vec::new();
        let mut current = self.end_der;
        while let Some(shape) = der::shape(current) {
            let next = self.others.iter().find(|other| {
                der::shape(other).is_some_and(|other| other.subject == shape.issuer)
                    && !found.iter().any(|known| known.as_ref() == other.as_ref())
            });
            match next {
                Some(next) if shape.subject != shape.issuer => {
                    found.push(next);
                    current = next;
                }
                Some(_) | None => break,
            }
        }
        found
    }
}

fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}
