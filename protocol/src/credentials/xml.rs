//! Credentials as XML, the content of `icg.xml`. Only what the format needs is understood: no document type definition, no
//! entity of its own, a bounded number of elements. Unknown elements are of a newer version and ignored.

use std::fmt::Write as _;

use roxmltree::{Document, Node, ParsingOptions};
use zeroize::Zeroizing;

use super::text::read_port;
use super::{Credentials, CredentialsError, DEFAULT_PORT, FILE_MAX, Gathered, quoted};

/// The root element.
const ROOT: &str = "icg-credentials";
/// What this program writes. A file with another first number is refused, one with another second number read.
const VERSION: &str = "1.0";
/// Most elements and texts in one file; what this program writes has some twenty per gateway.
const NODES: u32 = 4_000;

impl Credentials {
    /// The content of `icg.xml`. It holds the key: treat it like one.
    pub fn to_xml(&self) -> Zeroizing<String> {
        // Large enough from the start: text that grows is copied, and the copies with the key in them stay behind.
        let mut xml = Zeroizing::new(String::with_capacity(1_024 + 1_024 * self.endpoints.len()));
        // Writing to a String cannot fail.
        let _ = writeln!(xml, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
        let _ = writeln!(xml, "<{ROOT} version=\"{VERSION}\">");
        for endpoint in &self.endpoints {
            let _ = writeln!(xml, "  <gateway>");
            let _ = write!(xml, "    <host>");
            escape_into(&mut xml, &endpoint.host);
            let _ = writeln!(xml, "</host>\n    <port>{}</port>", endpoint.port);
            let _ = writeln!(xml, "    <root-certificate-fingerprint>");
            for (index, part) in endpoint.root_fingerprint.parts().iter().enumerate() {
                let _ = writeln!(xml, "      <part number=\"{}\">{part}</part>", index + 1);
            }
            let _ = writeln!(xml, "    </root-certificate-fingerprint>\n  </gateway>");
        }
        let _ = write!(xml, "  <first-authentication-key>");
        escape_into(&mut xml, self.key.for_person().reveal());
        let _ = writeln!(xml, "</first-authentication-key>\n</{ROOT}>");
        xml
    }

    /// Reads the content of `icg.xml`.
    ///
    /// # Errors
    /// [`CredentialsError`], naming what is missing or wrong.
    pub fn from_xml(xml: &str) -> Result<Self, CredentialsError> {
        if xml.len() > FILE_MAX {
            return Err(CredentialsError::TooLong);
        }
        let options = ParsingOptions {
            allow_dtd: false,
            nodes_limit: NODES,
            ..ParsingOptions::default()
        };
        let document = Document::parse_with_options(xml.trim_start(), options).map_err(why)?;
        let root = document.root_element();
        if root.tag_name().name() != ROOT {
            return Err(CredentialsError::OtherXml(quoted(root.tag_name().name())));
        }
        let version = root
            .attribute("version")
            .ok_or(CredentialsError::Missing("version"))?;
        if version.split('.').next() != Some("1") {
            return Err(CredentialsError::Version(quoted(version)));
        }
        let mut gathered = Gathered::default();
        for node in root.children().filter(Node::is_element) {
            match node.tag_name().name() {
                "gateway" => gateway(node, &mut gathered)?,
                "first-authentication-key" => gathered.key(&text_of(node))?,
                _ => {}
            }
        }
        gathered.end(["<gateway>", "<first-authentication-key>"])
    }
}

fn gateway(node: Node<'_, '_>, gathered: &mut Gathered) -> Result<(), CredentialsError> {
    let child = |name: &str| {
        node.children()
            .find(|child| child.is_element() && child.tag_name().name() == name)
    };
    let host = child("host").ok_or(CredentialsError::Missing("<host>"))?;
    let port = match child("port") {
        Some(port) => read_port(text_of(port).trim())?,
        None => DEFAULT_PORT,
    };
    let fingerprint = child("root-certificate-fingerprint")
        .ok_or(CredentialsError::Missing("<root-certificate-fingerprint>"))?;
    const LABELS: [(&str, &str); 4] = [
        ("1", "<part number=\"1\">"),
        ("2", "<part number=\"2\">"),
        ("3", "<part number=\"3\">"),
        ("4", "<part number=\"4\">"),
    ];
    let mut parts = Vec::with_capacity(4);
    for (number, label) in LABELS {
        let part = fingerprint
            .children()
            .find(|part| {
                part.tag_name().name() == "part" && part.attribute("number") == Some(number)
            })
            .ok_or(CredentialsError::Missing(label))?;
        parts.push(text_of(part).trim().to_owned());
    }
    gathered.endpoint(text_of(host).trim(), port, &parts.join("-"))
}

/// All text directly in an element; comments and elements in between are skipped.
fn text_of(node: Node<'_, '_>) -> Zeroizing<String> {
    let texts = node
        .children()
        .filter(Node::is_text)
        .filter_map(|n| n.text());
    let size = texts.clone().map(str::len).sum();
    let mut all = Zeroizing::new(String::with_capacity(size));
    texts.for_each(|text| all.push_str(text));
    all
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a foreign, growing enum")]
fn why(error: roxmltree::Error) -> CredentialsError {
    use roxmltree::Error;
    match error {
        Error::DtdDetected => CredentialsError::Dtd,
        Error::NodesLimitReached => CredentialsError::TooMuch,
        Error::UnexpectedEndOfStream | Error::UnclosedRootNode => CredentialsError::Truncated,
        other => CredentialsError::Xml(quoted(&other.to_string())),
    }
}

/// The five characters that mean something in XML and HTML, written so that they mean themselves.
fn escape_into(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
}
