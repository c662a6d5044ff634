//! Credentials as they come out of editors, mails, sticks, and the hands of people who mean no good.

use super::*;

fn credentials() -> Credentials {
    let endpoint = |host: &str, byte| Endpoint {
        host: host.into(),
        port: 8443,
        root_fingerprint: Fingerprint::from_bytes([byte; 32]),
    };
    Credentials {
        endpoints: vec![
            endpoint("ums.example.com", 0xab),
            endpoint("10.0.0.1", 0x01),
        ],
        key: FirstAuthKey::parse("ABCDEFGHJKMNPQRSTVWX").expect("a key"),
    }
}

fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    let marked = std::iter::once('\u{feff}')
        .chain(text.chars())
        .collect::<String>();
    marked.encode_utf16().flat_map(unit).collect()
}

#[test]
fn the_text_has_the_fields_layout_and_reads_back() {
    let text = credentials().to_text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[2..6],
        [
            "Host: ums.example.com",
            "Port: 8443",
            "Root Certificate Fingerprint",
            "Part 1: ABABABABABABABAB"
        ]
    );
    assert!(text.contains("First-authentication key:\nABCDE-FGHJK-MNPQR-STVWX\n"));
    assert_eq!(Credentials::from_text(&text), Ok(credentials()));
    assert_eq!(
        Credentials::from_text(&text.replace('\n', "\r\n  ")),
        Ok(credentials())
    );
}

#[test]
fn both_forms_are_recognised_in_every_encoding_with_every_line_end() {
    let wanted = credentials();
    for form in [wanted.to_text(), wanted.to_xml()] {
        let mangled = [
            form.to_string(),
            form.replace('\n', "\r\n"),
            form.replace('\n', "\n\t  "),
            format!("\n\r\n  {}", &*form),
            form.trim_end().to_owned(),
        ];
        for text in &mangled {
            let bytes = [
                text.as_bytes().to_vec(),
                [b"\xef\xbb\xbf", text.as_bytes()].concat(),
                utf16(text, u16::to_le_bytes),
                utf16(text, u16::to_be_bytes),
            ];
            for bytes in bytes {
                assert_eq!(Credentials::read(&bytes).as_ref(), Ok(&wanted), "{text:?}");
            }
        }
    }
}

#[test]
fn keys_that_people_made_up_survive_both_forms() {
    for key in [
        "R&D <2026> \"keys\" 'n' more",
        "Host:ums.example",
        "First-authentication key: x",
        "]]>&amp;<!--x--></first-authentication-key>",
        "<?xml?><!DOCTYPE html>",
    ] {
        let wanted = Credentials {
            key: FirstAuthKey::parse(key).expect("a key"),
            ..credentials()
        };
        let (text, xml) = (wanted.to_text(), wanted.to_xml());
        assert_eq!(
            Credentials::read(text.as_bytes()).as_ref(),
            Ok(&wanted),
            "{key}"
        );
        assert_eq!(
            Credentials::read(xml.as_bytes()).as_ref(),
            Ok(&wanted),
            "{key}"
        );
    }
}

#[test]
fn what_is_missing_is_named() {
    let text = credentials().to_text();
    let without = |label: &str| {
        let kept: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with(label))
            .collect();
        Credentials::from_text(&kept.join("\n")).expect_err("something is missing")
    };
    assert_eq!(without("Part 2"), CredentialsError::Missing("Part 2:"));
    assert_eq!(without("Host"), CredentialsError::Missing("Host"));
    assert_eq!(
        without("First").to_string(),
        "the credentials lack “First-authentication key:”: copy them again, from the first line to the last"
    );
    let no_port: String = text
        .lines()
        .filter(|l| !l.starts_with("Port"))
        .fold(String::new(), |all, line| all + line + "\n");
    assert_eq!(Credentials::from_text(&no_port), Ok(credentials()));
    assert_eq!(Credentials::read(b""), Err(CredentialsError::Empty));
    assert_eq!(
        Credentials::read(b"\xef\xbb\xbf \r\n"),
        Err(CredentialsError::Empty)
    );
    assert_eq!(
        Credentials::read(b"hello"),
        Err(CredentialsError::Missing("Host:"))
    );

    let xml = credentials().to_xml();
    for (piece, missing) in [
        ("<host>ums.example.com</host>", "<host>"),
        (
            "<part number=\"3\">ABABABABABABABAB</part>",
            "<part number=\"3\">",
        ),
        (" version=\"1.0\">", "version"),
        (
            "<first-authentication-key>ABCDE-FGHJK-MNPQR-STVWX</first-authentication-key>",
            "<first-authentication-key>",
        ),
    ] {
        let end = if piece.starts_with(" version") {
            ">"
        } else {
            ""
        };
        let damaged = xml.replacen(piece, end, 1);
        assert_ne!(damaged, *xml, "{piece}");
        assert_eq!(
            Credentials::read(damaged.as_bytes()),
            Err(CredentialsError::Missing(missing))
        );
    }
}

#[test]
fn a_file_that_ends_anywhere_in_the_middle_is_never_taken() {
    let wanted = credentials();
    let xml = wanted.to_xml();
    let complete = xml.trim_end().len();
    for end in 0..complete {
        let error = Credentials::read(&xml.as_bytes()[..end]).expect_err("cut");
        assert!(!error.to_string().contains("ABCDE"), "{error}");
    }
    let error = Credentials::read(&xml.as_bytes()[..complete - 5]).expect_err("cut");
    assert_eq!(error, CredentialsError::Truncated);
    let text = wanted.to_text();
    let key_ends = text.find("STVWX").expect("there") + 5;
    for end in 0..key_ends {
        assert!(Credentials::read(&text.as_bytes()[..end]).is_err(), "{end}");
    }
    // A key that was made is known to be whole by its length, whatever comes after it. One that was made up is not.
    assert_eq!(
        Credentials::read(&text.as_bytes()[..key_ends]),
        Ok(wanted.clone())
    );
    let chosen = Credentials {
        key: FirstAuthKey::parse("correct horse battery").expect("a key"),
        ..wanted
    };
    let chosen_text = chosen.to_text();
    let rule = chosen_text.trim_end().rfind('\n').expect("a last line");
    for end in 0..rule + 2 {
        assert!(
            Credentials::read(&chosen_text.as_bytes()[..end]).is_err(),
            "{end}"
        );
    }
    assert_eq!(Credentials::read(chosen_text.as_bytes()), Ok(chosen));
    let utf16 = utf16(&text, u16::to_le_bytes);
    assert_eq!(
        Credentials::read(&utf16[..utf16.len() - 1]),
        Err(CredentialsError::NotText)
    );
}

#[test]
fn xml_brings_no_definitions_and_no_expansion() {
    let xml = credentials().to_xml();
    let (head, body) = xml.split_once('\n').expect("a declaration");
    let laughs: String = (1..10).fold("<!ENTITY l0 'lol'>".into(), |all: String, n| {
        all + &format!("<!ENTITY l{n} '{}'>", format!("&l{};", n - 1).repeat(10))
    });
    for dtd in [
        format!("<!DOCTYPE icg-credentials [{laughs}]>"),
        "<!DOCTYPE x SYSTEM \"file:///etc/passwd\">".to_owned(),
        "<!DOCTYPE x [<!ENTITY h SYSTEM \"http://evil.example/\">]>".to_owned(),
    ] {
        let with = format!("{head}\n{dtd}\n{body}").replace("ums.example.com", "&l9;");
        assert_eq!(
            Credentials::read(with.as_bytes()),
            Err(CredentialsError::Dtd),
            "{dtd}"
        );
    }
    let entity = xml.replace("ums.example.com", "&ums;");
    let error = Credentials::read(entity.as_bytes()).expect_err("no such entity");
    assert!(matches!(error, CredentialsError::Xml(_)), "{error}");
    let known = xml.replace("ums.example.com", "&#117;&#x6d;s.example.com");
    assert_eq!(Credentials::read(known.as_bytes()), Ok(credentials()));
}

#[test]
fn xml_is_bounded_in_depth_and_count() {
    let xml = credentials().to_xml();
    let deep = format!("{}{}", "<a>".repeat(8_000), "</a>".repeat(8_000));
    let wide = "<a/>".repeat(10_000);
    for more in [deep, wide] {
        let large = xml.replace("<gateway>", &format!("{more}<gateway>"));
        let error = Credentials::read(&large.as_bytes()[..large.len().min(FILE_MAX)]);
        assert_eq!(error, Err(CredentialsError::TooMuch));
    }
    let gateway = &xml[xml.find("  <gateway>").expect("there")..];
    let gateway = &gateway[..gateway.find("</gateway>").expect("there") + 11];
    let many =
        |count: usize| xml.replacen("  <gateway>", &(gateway.repeat(count) + "  <gateway>"), 1);
    let all = Credentials::read(many(98).as_bytes()).expect("a hundred");
    assert_eq!(all.endpoints.len(), ENDPOINTS_MAX);
    assert_eq!(
        Credentials::read(many(99).as_bytes()),
        Err(CredentialsError::TooMany)
    );
}

#[test]
fn ten_megabytes_are_told_apart_without_being_read() {
    let text = credentials().to_text();
    let mut large = text.as_bytes().to_vec();
    large.resize(10 * 1024 * 1024, b' ');
    let error = Credentials::read(&large).expect_err("too long");
    assert_eq!(error, CredentialsError::TooLong);
    assert!(error.to_string().contains("64 KiB"), "{error}");
    let page = [b"<!DOCTYPE html>", large.as_slice()].concat();
    assert_eq!(Credentials::read(&page), Err(CredentialsError::Html));
    large.truncate(FILE_MAX);
    assert_eq!(Credentials::read(&large), Ok(credentials()));
    assert_eq!(
        Credentials::from_xml(&"<".repeat(FILE_MAX + 1)),
        Err(CredentialsError::TooLong)
    );
}

#[test]
fn the_page_for_people_and_other_files_are_told_apart() {
    for page in [
        "<!DOCTYPE html>\n<html><body>Host: x</body></html>",
        "\u{feff}<HTML lang=de>",
        "<!-- saved --><!doctype HTML>",
    ] {
        let error = Credentials::read(page.as_bytes()).expect_err("a page");
        assert_eq!(error, CredentialsError::Html, "{page}");
        assert!(error.to_string().contains("icg.xml"), "{error}");
    }
    let other = Credentials::read(b"<?xml version=\"1.0\"?><config\xc2\xa0/>");
    assert!(matches!(other, Err(CredentialsError::Xml(_))), "{other:?}");
    assert_eq!(
        Credentials::read(b"<config/>"),
        Err(CredentialsError::OtherXml("config".into()))
    );
    for bytes in [
        &b"\x89PNG\r\n\x1a\n\0\0"[..],
        b"\xff\xd8\xff\xe0",
        b"Host: x\0",
        b"\xff\xfe\x00\xd8",
    ] {
        assert_eq!(
            Credentials::read(bytes),
            Err(CredentialsError::NotText),
            "{bytes:?}"
        );
    }
}

#[test]
fn what_is_newer_is_read_as_far_as_it_is_known_or_refused_in_words() {
    let xml = credentials().to_xml();
    let newer = xml
        .replace(
            "version=\"1.0\">",
            "version=\"1.7\" made-by=\"x\">\n  <site><host>evil.example</host></site>",
        )
        .replace(
            "<gateway>",
            "<!-- dmz --><gateway priority=\"1\"><name>dmz</name>",
        );
    assert_eq!(Credentials::read(newer.as_bytes()), Ok(credentials()));
    let error = Credentials::read(
        xml.replace("version=\"1.0\">", "version=\"2.0\">")
            .as_bytes(),
    );
    let error = error.expect_err("too new");
    assert_eq!(error, CredentialsError::Version("2.0".into()));
    assert!(error.to_string().contains("update this program"), "{error}");
}

#[test]
fn hosts_ports_fingerprints_and_keys_that_are_none_are_named_and_shown_safely() {
    let text = credentials().to_text();
    let wrong = |from: &str, to: &str| {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, *text, "{from}");
        Credentials::read(changed.as_bytes()).expect_err(to)
    };
    let error = wrong("ums.example.com", "um\u{455}.example.com").to_string();
    assert!(error.contains("xn--um-foc.example.com"), "{error}");
    let error = wrong("ums.example.com", "ums\u{1b}[2J\u{202e}.example").to_string();
    assert!(!error.contains(['\u{1b}', '\u{202e}']), "{error}");
    for host in [
        "https://ums.example.com",
        "ums:8443",
        "a b",
        "-oProxyCommand=x",
        "../x",
    ] {
        assert!(
            matches!(wrong("ums.example.com", host), CredentialsError::Host(_)),
            "{host}"
        );
    }
    for port in ["0", "65536", "+8443", "8443x", "", "８４４３"] {
        let error = wrong("Port: 8443", &format!("Port: {port}"));
        assert!(matches!(error, CredentialsError::Port(_)), "{port}");
    }
    let error = wrong("Part 3: ABAB", "Part 3: GBAB").to_string();
    assert!(
        error.contains("part 3") && error.contains("GBAB"),
        "{error}"
    );
    assert_eq!(
        wrong("ABCDE-FGHJK-MNPQR-STVWX", "ä"),
        CredentialsError::Key(KeyError::NotAscii)
    );
    let rule = "First-authentication key: ABCDE-FGHJK-MNPQR-STVWY\nFirst-";
    assert_eq!(wrong("First-", rule), CredentialsError::TwoKeys);
}

#[test]
fn hand_copied_text_is_read_with_its_small_mistakes() {
    let text = credentials()
        .to_text()
        .replace("Host:", "HOST :")
        .replace(
            "Part 1: ABABABABABABABAB",
            "part 1:  ab:ab:ab:ab ab ab ab ab",
        )
        .replace("0101010101010101", "OlOlOlOlOlOlOlOl")
        .replace(
            "key:\nABCDE-FGHJK-MNPQR-STVWX",
            "key: abcde fghjk mnpqr stvwx ",
        )
        .replace("--------\n", "\n");
    assert_eq!(Credentials::read(text.as_bytes()), Ok(credentials()));
}
