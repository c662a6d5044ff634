//! Credentials as text, in the layout that administrators of the field know from their clipboard. The layout is fixed when
//! it is written; when it is read, indentation, line ends and the case of labels make no difference.

use std::fmt::Write as _;

use zeroize::Zeroizing;

use super::{Credentials, CredentialsError, DEFAULT_PORT, FILE_MAX, Gathered, quoted};

const RULE: &str = "----------------------------------------";
const KEY_LABEL: &str = "First-authentication key";

impl Credentials {
    /// The text for clipboard, mail or paper. It holds the key: treat it like one.
    pub fn to_text(&self) -> Zeroizing<String> {
        // Large enough from the start: text that grows is copied, and the copies with the key in them stay behind.
        let mut text = Zeroizing::new(String::with_capacity(512 + 512 * self.endpoints.len()));
        for endpoint in &self.endpoints {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{RULE}\n{RULE}");
            let _ = writeln!(text, "Host: {}\nPort: {}", endpoint.host, endpoint.port);
            let _ = writeln!(text, "Root Certificate Fingerprint");
            for (index, part) in endpoint.root_fingerprint.parts().iter().enumerate() {
                let _ = writeln!(text, "Part {}: {part}", index + 1);
            }
        }
        let _ = writeln!(text, "{RULE}\n{RULE}");
        let key = self.key.for_person();
        let _ = writeln!(text, "{KEY_LABEL}:\n{}\n{RULE}", key.reveal());
        text
    }

    /// Reads the text back, however lines are indented or ended.
    ///
    /// # Errors
    /// [`CredentialsError`], naming what is missing or wrong.
    pub fn from_text(text: &str) -> Result<Self, CredentialsError> {
        if text.len() > FILE_MAX {
            return Err(CredentialsError::TooLong);
        }
        let mut gathered = Gathered::default();
        let mut block: Option<Block<'_>> = None;
        let mut key_follows = false;
        let mut closed = false;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line.bytes().all(|b| b == b'-') {
                closed |= gathered.key.is_some();
                continue;
            }
            // A key that a person made up may look like anything.
            if std::mem::take(&mut key_follows) {
                gathered.key(line)?;
                continue;
            }
            let (label, value) = line
                .split_once(':')
                .map_or((line, ""), |(label, value)| (label.trim(), value.trim()));
            let label = label.to_ascii_lowercase();
            match label.as_str() {
                "host" => {
                    if let Some(block) = block.take() {
                        block.end(&mut gathered)?;
                    }
                    block = Some(Block::new(value));
                }
                "port" => {
                    let block = block.as_mut().ok_or(CredentialsError::Missing("Host"))?;
                    block.port = read_port(value)?;
                }
                "part 1" | "part 2" | "part 3" | "part 4" => {
                    let block = block.as_mut().ok_or(CredentialsError::Missing("Host"))?;
                    let index = usize::from(label.as_bytes()[5] - b'1');
                    block.parts[index] = value;
                }
                "first-authentication key" if value.is_empty() => key_follows = true,
                "first-authentication key" => gathered.key(value)?,
                _ => {}
            }
        }
        if let Some(block) = block.take() {
            block.end(&mut gathered)?;
        }
        let credentials = gathered.end(["Host:", "First-authentication key:"])?;
        // Part of a key would look like a key. A made one has its length; the end of any other is the rule below it.
        if closed || credentials.key.is_made() {
            Ok(credentials)
        } else {
            Err(CredentialsError::Truncated)
        }
    }
}

/// A port as it is written in a file.
pub(super) fn read_port(text: &str) -> Result<u16, CredentialsError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok(port),
        Ok(_) | Err(_) => Err(CredentialsError::Port(quoted(text))),
    }
}

/// What belongs to one host.
struct Block<'t> {
    host: &'t str,
    port: u16,
    parts: [&'t str; 4],
}

impl<'t> Block<'t> {
    fn new(host: &'t str) -> Self {
        Self {
            host,
            port: DEFAULT_PORT,
            parts: [""; 4],
        }
    }

    fn end(self, gathered: &mut Gathered) -> Result<(), CredentialsError> {
        const LABELS: [&str; 4] = ["Part 1:", "Part 2:", "Part 3:", "Part 4:"];
        let missing = self
            .parts
            .iter()
            .zip(LABELS)
            .find(|(part, _)| part.is_empty());
        if let Some((_, label)) = missing {
            return Err(CredentialsError::Missing(label));
        }
        gathered.endpoint(self.host, self.port, &self.parts.join("-"))
    }
}
