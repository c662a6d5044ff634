//! What the device itself, the network or a server has to say: an English sentence, which logs and command lines show as it is, and
//! where it is known what it means, a code with values, by which the catalogue says the same in the person's language. The values
//! are strangers' texts: they are never shown without being made printable.

use umbra_protocol::RefusalCode;

use crate::catalogue::{self, Language};
use crate::text::{fill, printable};

/// Something to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// In English: what happened, and what helps.
    sentence: String,
    /// What it means, where that is known, with the values that its text has places for.
    meaning: Option<Box<Meaning>>,
}

/// A code with its values.
type Meaning = (Code, Vec<(&'static str, String)>);

impl Report {
    /// Something whose meaning is known. What the code has places for has to be there.
    pub fn new(code: Code, values: &[(&'static str, &str)], sentence: impl Into<String>) -> Self {
        for place in code.places() {
            debug_assert!(
                values.iter().any(|(name, _)| name == place),
                "{code:?} lacks {place}"
            );
        }
        let values = values
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        Self {
            sentence: sentence.into(),
            meaning: Some(Box::new((code, values))),
        }
    }

    /// The English sentence.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    /// What it means, where that is known.
    pub fn code(&self) -> Option<Code> {
        self.meaning.as_ref().map(|meaning| meaning.0)
    }

    /// Fit to be shown in this language, and whether it is in it. What the catalogue has no words for stays English.
    pub fn shown(&self, language: Language) -> (String, bool) {
        let text = self
            .meaning
            .as_ref()
            .and_then(|meaning| Some((catalogue::wording(language, meaning.0)?, &meaning.1)));
        match text {
            Some((text, values)) => {
                let values: Vec<(&str, &str)> = values
                    .iter()
                    .map(|(name, value)| (*name, value.as_str()))
                    .collect();
                (printable(&fill(text, &values)), true)
            }
            None => (printable(&self.sentence), language == Language::En),
        }
    }
}

/// The English sentence: for logs and command lines.
impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl From<String> for Report {
    /// Something whose meaning is not known.
    fn from(sentence: String) -> Self {
        Self {
            sentence,
            meaning: None,
        }
    }
}

impl From<&str> for Report {
    fn from(sentence: &str) -> Self {
        sentence.to_owned().into()
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $id:literal $([$($place:literal),*])?;)*) => {
        /// What can be meant. A code that a language has no text for does not compile.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
            /// The server or the gateway refused, with this code.
            Refusal(RefusalCode),
        }

        impl Code {
            /// All but refusals, which are [`RefusalCode::ALL`].
            pub const OWN: &'static [Code] = &[$(Code::$variant,)*];

            /// A word that never changes.
            pub fn id(self) -> &'static str {
                match self {
                    $(Code::$variant => $id,)*
                    Code::Refusal(code) => code.as_str(),
                }
            }

            /// The values that its text may show.
            pub fn places(self) -> &'static [&'static str] {
                match self {
                    $(Code::$variant => &[$($($place),*)?],)*
                    Code::Refusal(_) => &[],
                }
            }
        }
    };
}

impl Code {
    /// The one with this word.
    pub fn parse(id: &str) -> Option<Self> {
        let own = Self::OWN.iter().copied();
        let refusals = RefusalCode::ALL.iter().copied().map(Code::Refusal);
        own.chain(refusals).find(|code| code.id() == id)
    }
}

codes! {
    /// DNS does not know the name.
    NameNotFound = "name_not_found" ["host"];
    /// DNS did not say in time.
    NameTimeout = "name_timeout" ["host"];
    /// Nothing listens there.
    TcpRefused = "tcp_refused" ["place"];
    /// No path leads there.
    TcpUnreachable = "tcp_unreachable" ["place"];
    /// Nothing can be reached there, for whatever reason.
    Unreachable = "unreachable" ["place"];
    /// Nothing answered in time.
    TcpTimeout = "timeout" ["place"];
    /// The proxy can't be reached.
    ProxyUnreachable = "proxy_unreachable" ["proxy"];
    /// The proxy does not take the configured user name and password, or needs some.
    ProxyCredentials = "proxy_credentials" ["proxy"];
    /// The proxy does not allow it.
    ProxyRefused = "proxy_refused" ["proxy"];
    /// The proxy does not get there.
    ProxyTargetUnreachable = "proxy_target_unreachable" ["proxy"];
    /// It is no proxy.
    ProxyGarbage = "proxy_garbage" ["proxy"];
    /// The proxy ended the connection.
    ProxyClosed = "proxy_closed" ["proxy"];
    /// The proxy took too long.
    ProxyTimeout = "proxy_timeout" ["proxy"];
    /// It is no address.
    BadAddress = "bad_address" ["place"];
    /// Whatever is there says nothing.
    TlsSilent = "silent" ["place"];
    /// Whatever is there closes at once.
    TlsClosed = "closed" ["place"];
    /// Whatever is there does not speak TLS.
    NotTls = "not_tls" ["place"];
    /// It is another service.
    WrongService = "wrong_service" ["place"];
    /// TLS comes to nothing.
    Tls = "tls" ["place"];

    /// Too many or no certificates.
    ChainLength = "chain-length";
    /// A certificate can't be read.
    ChainUnreadable = "readable";
    /// They are in the wrong order.
    ChainOrder = "chain-order";
    /// One is missing.
    ChainIncomplete = "chain-complete";
    /// One has nothing to do with the others.
    ChainUnrelated = "unrelated";
    /// The root is another one.
    ChainRoot = "root-fingerprint";
    /// The clock is wrong.
    ChainClock = "clock";
    /// The CA flag is wrong.
    ChainCaFlag = "ca-flag" ["subject"];
    /// The key usage is wrong.
    ChainKeyUsage = "key-usage" ["subject"];
    /// There are too many below one.
    ChainPathLength = "path-length" ["subject"];
    /// The server's own is a CA certificate.
    ChainEnd = "end-certificate" ["subject"];
    /// It has its issuer's name.
    ChainNames = "distinct-names" ["subject"];
    /// Old X.509.
    ChainVersion = "version" ["subject"];
    /// It has a part that nobody knows.
    ChainExtensions = "critical-extensions" ["subject"];
    /// A signature is wrong.
    ChainSignature = "signature" ["subject"];
    /// It is signed in a way that is not accepted.
    ChainAlgorithm = "signature-algorithm" ["subject"];
    /// Its key is too weak, or of an unknown kind.
    ChainKey = "public-key" ["subject"];
    /// It is not valid now.
    ChainValidity = "validity" ["subject"];
    /// It ends soon.
    ChainLifetime = "lifetime" ["subject"];
    /// It is for something else.
    ChainPurpose = "purpose" ["subject"];
    /// It names no host.
    ChainNoHost = "alternative-names" ["subject"];
    /// It names other hosts.
    ChainHost = "host" ["subject", "host"];
    /// A CA does not allow its name.
    ChainConstraints = "name-constraints" ["subject"];
    /// It is refused for another reason.
    ChainRefused = "verification";
    /// There is no root to compare.
    NoRoot = "root-not-presented";
    /// The file with additional public authorities can't be used.
    BundleFile = "ca_file";
    /// Dates were not looked at.
    ClockDoubtful = "clock_doubtful" ["date"];

    /// It is no gateway, or something lets no WebSocket pass.
    GatewayNone = "not_websocket" ["place"];
    /// The gateway says no.
    GatewayRefused = "refused_by_gateway" ["place"];
    /// The gateway's certificate is not trusted.
    GatewayCertificate = "gateway_certificate" ["place"];
    /// TLS with the gateway comes to nothing.
    GatewayTls = "gateway_tls" ["place"];
    /// The gateway ended it.
    GatewayClosed = "gateway_closed" ["place"];
    /// The connection to the gateway broke.
    GatewayLost = "connection_failed" ["place"];
    /// Something on the way opens TLS.
    GatewayOtherRoot = "gateway_other_root" ["place"];
    /// The settings of the proxy can't be used.
    Settings = "proxy_settings";
    /// The server behind the gateway says nothing.
    ServerSilent = "server_silent" ["place"];
    /// The server behind the gateway can't be spoken with.
    ServerFailed = "server_failed" ["place"];

    /// DNS took too long as a whole.
    DnsLate = "dns_late";
    /// No DNS server is known.
    DnsNone = "dns_none";
    /// No DNS server answered.
    DnsSilent = "dns_silent" ["servers"];
    /// A DNS server answers nonsense.
    DnsGarbage = "dns_garbage" ["server"];
    /// A DNS server does not want to.
    DnsRefused = "dns_refused" ["server", "word"];
    /// Aliases in a circle.
    DnsCircle = "dns_circle" ["name"];
    /// Too many aliases.
    DnsEndless = "dns_endless" ["name"];
    /// No name for DNS.
    DnsName = "dns_name" ["name"];
    /// The domain has no record.
    RecordNone = "record_none" ["domain"];
    /// It is no domain.
    NoDomain = "no_domain" ["domain"];
    /// It is no e-mail address.
    NoMail = "no_mail" ["text"];
    /// A record is empty.
    RecordEmpty = "record_empty" ["domain"];
    /// A record is too long.
    RecordTooLong = "record_too_long" ["domain"];
    /// A record is no text.
    RecordNotText = "record_not_text" ["domain"];
    /// A record is no secure web address.
    RecordNotHttps = "record_not_https" ["domain"];
    /// A record has another path.
    RecordPath = "record_path" ["domain"];
    /// A record holds more than an address.
    RecordExtra = "record_extra" ["domain"];
    /// A record names no usable address.
    RecordAddress = "record_address" ["domain"];
    /// Option 224 can't be used.
    DhcpUnusable = "dhcp_unusable" ["file"];

    /// A file can't be read.
    FileUnreadable = "file_unreadable" ["file"];
    /// A file is too long.
    FileTooLong = "file_too_long" ["file"];
    /// A file is empty.
    FileEmpty = "file_empty" ["file"];
    /// A file is no text.
    FileNotText = "file_not_text" ["file"];
    /// A file is the page for people.
    FileHtml = "file_html" ["file"];
    /// A file ends in the middle.
    FileTruncated = "file_truncated" ["file"];
    /// A file is damaged.
    FileDamaged = "file_damaged" ["file"];
    /// A file is something else, or made by somebody else.
    FileForeign = "file_foreign" ["file"];
    /// A file is of a newer form.
    FileVersion = "file_version" ["file"];
    /// Something is missing in a file.
    FileLacks = "file_lacks" ["file"];
    /// The address in a file is none.
    FileAddress = "file_address" ["file"];
    /// The fingerprint in a file is none.
    FileFingerprint = "file_fingerprint" ["file"];
    /// The key in a file is none, or there are two.
    FileKey = "file_key" ["file"];

    /// The typed key is none.
    KeyForm = "key_form";
    /// The root is another one.
    WrongFingerprint = "wrong_fingerprint";
    /// The certificate is for other names.
    WrongName = "wrong_name";
    /// The certificate is not valid now.
    CertificateDates = "certificate_dates";
    /// No public authority vouches for it.
    NotPublic = "not_public";
    /// A fingerprint is needed.
    FingerprintRequired = "fingerprint_required";
    /// The server took too long.
    TimedOut = "timed_out";
    /// The connection broke.
    ConnectionLost = "connection_lost";
    /// The server does not know the key either.
    ServerNotProven = "server_not_proven";
    /// The server breaks the rules.
    Protocol = "protocol";
    /// The server's roots can't be used.
    BadRoots = "bad_roots";
    /// It could not be written down.
    NotStored = "not_stored";
    /// The device's disk can't be written.
    Disk = "disk";
    /// The agent can't be spoken to.
    Agent = "agent";
    /// The device's own files are in disorder.
    DeviceFiles = "device_files";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn all() -> impl Iterator<Item = Code> {
        let refusals = RefusalCode::ALL.iter().copied();
        Code::OWN
            .iter()
            .copied()
            .chain(refusals.map(Code::Refusal))
            .chain([Code::Refusal(RefusalCode::Unknown)])
    }

    #[test]
    fn every_code_has_german_words_that_show_only_what_it_has_values_for() {
        let mut texts = HashSet::new();
        for code in all() {
            let text = catalogue::wording(Language::De, code).expect("German has a text");
            assert!(text.ends_with('.') && text.trim() == text, "{code:?}");
            assert!(!text.contains("  ") && !text.contains('”'), "{code:?}");
            // All of its places are used, and no others.
            let used: HashSet<&str> = text
                .split('{')
                .skip(1)
                .filter_map(|rest| rest.split_once('}'))
                .map(|(name, _)| name)
                .collect();
            let known: HashSet<&str> = code.places().iter().copied().collect();
            assert_eq!(used, known, "{code:?}");
            texts.insert(text);
        }
        assert!(texts.len() > Code::OWN.len(), "each says something else");
    }

    #[test]
    fn every_word_stands_for_one_code_and_is_found_again() {
        for code in all() {
            if code != Code::Refusal(RefusalCode::Unknown) {
                assert_eq!(Code::parse(code.id()), Some(code));
            }
        }
        assert_eq!(Code::parse("something_newer"), None);
    }

    #[test]
    fn a_report_is_told_in_the_language_that_has_words_for_it_and_otherwise_in_english() {
        let known = Report::new(
            Code::NameNotFound,
            &[("host", "gw\u{1b}.example.com")],
            "DNS knows no gw.example.com.",
        );
        let (text, is_worded) = known.shown(Language::De);
        assert!(is_worded && text.contains("gw\u{fffd}.example.com"));
        assert!(!text.contains("DNS knows"), "{text}");
        assert_eq!(
            known.shown(Language::En),
            ("DNS knows no gw.example.com.".to_owned(), true)
        );
        let unknown = Report::from("Something new.");
        assert_eq!(
            unknown.shown(Language::De),
            ("Something new.".to_owned(), false)
        );
    }
}
