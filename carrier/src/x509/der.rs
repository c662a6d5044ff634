//! The outer shape of a certificate, read without an opinion on what is in it: where the signed part, the public key and
//! the signature are. It never follows nesting deeper than that shape, so no input can make it recurse.

/// The parts of a certificate that signatures are about.
pub(crate) struct Shape<'a> {
    /// The signed part with its tag and length.
    pub signed: &'a [u8],
    /// The signature's algorithm: the content of the sequence, as `webpki` compares it.
    pub signature_algorithm: &'a [u8],
    /// The signature's bytes.
    pub signature: &'a [u8],
    /// The public key (SubjectPublicKeyInfo) with its tag and length.
    pub public_key: &'a [u8],
    /// The issuer's name with its tag and length.
    pub issuer: &'a [u8],
    /// The subject's name with its tag and length.
    pub subject: &'a [u8],
}

/// A public key: its algorithm (content of the sequence) and the bytes of the key.
pub(crate) struct PublicKey<'a> {
    pub algorithm: &'a [u8],
    pub bits: &'a [u8],
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const VERSION: u8 = 0xa0;

/// Reads the shape; `None` for anything that isn't one certificate and nothing behind it.
pub(crate) fn shape(der: &[u8]) -> Option<Shape<'_>> {
    let mut outer = Cursor(der);
    let certificate = outer.take(SEQUENCE)?;
    if !outer.0.is_empty() {
        return None;
    }
    let mut parts = Cursor(certificate.content);
    let signed = parts.take(SEQUENCE)?;
    let signature_algorithm = parts.take(SEQUENCE)?;
    let signature = bits(parts.take(BIT_STRING)?.content)?;
    if !parts.0.is_empty() {
        return None;
    }
    let mut fields = Cursor(signed.content);
    if fields.0.first() == Some(&VERSION) {
        fields.take(VERSION)?;
    }
    fields.take(INTEGER)?; // serial number
    fields.take(SEQUENCE)?; // signature algorithm once more
    let issuer = fields.take(SEQUENCE)?;
    fields.take(SEQUENCE)?; // validity
    let subject = fields.take(SEQUENCE)?;
    let public_key = fields.take(SEQUENCE)?;
    Some(Shape {
        signed: signed.whole,
        signature_algorithm: signature_algorithm.content,
        signature,
        public_key: public_key.whole,
        issuer: issuer.whole,
        subject: subject.whole,
    })
}

/// Reads a SubjectPublicKeyInfo.
pub(crate) fn public_key(spki: &[u8]) -> Option<PublicKey<'_>> {
    let mut outer = Cursor(spki);
    let mut parts = Cursor(outer.take(SEQUENCE)?.content);
    let algorithm = parts.take(SEQUENCE)?.content;
    let bits = bits(parts.take(BIT_STRING)?.content)?;
    Some(PublicKey { algorithm, bits })
}

/// The bytes of a bit string without unused bits.
fn bits(content: &[u8]) -> Option<&[u8]> {
    match content.split_first() {
        Some((0, bytes)) => Some(bytes),
        Some((_, _)) | None => None,
    }
}

struct Element<'a> {
    whole: &'a [u8],
    content: &'a [u8],
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    /// The next element, if it has this tag and is wholly there.
    fn take(&mut self, tag: u8) -> Option<Element<'a>> {
        let (&found, rest) = self.0.split_first()?;
        if found != tag {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (length, content_and_rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            // At most three bytes of length: a certificate is never larger than 64 KiB here.
            let count = usize::from(first & 0x7f);
            if count == 0 || count > 3 || rest.len() < count {
                return None;
            }
            let (length_bytes, rest) = rest.split_at(count);
            (
                length_bytes
                    .iter()
                    .fold(0, |sum, &byte| (sum << 8) | usize::from(byte)),
                rest,
            )
        };
        if content_and_rest.len() < length {
            return None;
        }
        let (content, after) = content_and_rest.split_at(length);
        let whole = &self.0[..self.0.len() - after.len()];
        self.0 = after;
        Some(Element { whole, content })
    }
}
