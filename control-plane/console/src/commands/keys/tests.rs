//! What is handed over, byte for byte, and with the worst that anybody could have typed into it.

use std::path::PathBuf;

use umbra_protocol::Fingerprint;
use umbra_protocol::Secret;
use umbra_protocol::credentials::{Credentials, Endpoint};

use super::mail::{Address, Envelope};
use super::*;

const NOW: i64 = 1_772_348_709;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../protocol/golden/credentials"
    ))
    .join(name)
}

fn credentials(name: &str) -> Credentials {
    let bytes = std::fs::read(golden(name)).expect("the golden file is there");
    Credentials::read(&bytes).expect("reads")
}

fn kept(key: &str, tag: &str) -> Kept {
    Kept {
        server: "ums.example.com:8443".into(),
        id: KeyId::from_bytes([0xa5; 8]),
        key: Secret::new(key),
        kind: KeyKind::Bound,
        units: vec!["00E0C51C9C32".parse().expect("a unit ID")],
        tag: tag.into(),
        made_at: NOW,
        expires_at: Some(NOW + 86_400),
    }
}

/// Compares with a golden file; `UMBRA_WRITE_GOLDEN=1` writes it anew.
fn same(name: &str, written: &str) {
    if std::env::var_os("UMBRA_WRITE_GOLDEN").is_some() {
        std::fs::write(golden(name), written).expect("the file can be written");
    }
    let kept = std::fs::read_to_string(golden(name)).expect("the golden file is there");
    assert_eq!(kept, written, "{name}");
}

fn qr_of(page: &str) -> String {
    let (_, path) = page.split_once(" d=\"").expect("a code");
    let (path, _) = path.split_once('"').expect("its end");
    let black: std::collections::HashSet<(usize, usize)> = path
        .split('z')
        .filter(|step| !step.is_empty())
        .flat_map(|step| {
            let number = |text: &str| text.parse::<usize>().expect("a number");
            let step = step.trim_start_matches('M');
            let (x, rest) = step.split_once(' ').expect("a place");
            let (y, rest) = rest.split_once('h').expect("a run");
            let (run, back) = rest.split_once("v1h-").expect("its way back");
            assert_eq!(run, back);
            let (x, y, run) = (number(x), number(y), number(run));
            (x..x + run).map(move |x| (x, y))
        })
        .collect();
    let size = black
        .iter()
        .map(|(x, _)| x + 1)
        .max()
        .expect("something black");
    let grid = rqrr::SimpleGrid::from_func(size, |x, y| black.contains(&(x, y)));
    let (_, text) = rqrr::Grid::new(grid).decode().expect("a QR code");
    text
}

#[test]
fn page_table_and_e_mail_are_the_golden_files() {
    let credentials = credentials("icg.xml");
    let key = kept("ABCDE-FGHJK-MNPQR-STVWX", "floor 3");
    same("icg.html", &page::of(&credentials, Some(&key)));
    same(
        "keys.csv",
        &sheet::of(&[key.clone(), key], &credentials.endpoints),
    );
    let to = Address::parse_all("anna@example.com;bob@example.org").expect("addresses");
    let from = Address::parse("it@example.com").expect("an address");
    let envelope = Envelope {
        from: Some(&from),
        to: &to,
        at: NOW,
        key: KeyId::from_bytes([0xa5; 8]),
    };
    let mail = mail::of(&credentials, &envelope);
    assert!(mail.split("\r\n").all(|line| !line.contains(['\r', '\n'])));
    same("icg.eml", &mail.replace("\r\n", "\n"));
}

#[test]
fn the_page_is_told_from_a_file_for_devices() {
    let page = page::of(&credentials("icg.xml"), None);
    let error = Credentials::read(page.as_bytes()).expect_err("a page");
    assert!(error.to_string().contains("take icg.xml"), "{error}");
}

#[test]
fn the_code_on_the_page_holds_the_text_or_the_first_way_of_many() {
    let two = credentials("icg.xml");
    assert_eq!(qr_of(&page::of(&two, None)), *two.to_text());
    let chosen = credentials("chosen-key.xml");
    assert_eq!(qr_of(&page::of(&chosen, None)), *chosen.to_text());
    let many = Credentials {
        endpoints: two.endpoints.iter().cycle().take(40).cloned().collect(),
        key: two.key.clone(),
    };
    let page = page::of(&many, None);
    let coded = Credentials::from_text(&qr_of(&page)).expect("reads");
    assert_eq!(coded.endpoints, [two.endpoints[0].clone()]);
    assert!(page.contains("the first of the 40 ways"));
}

#[test]
fn the_page_asks_for_nothing_and_runs_nothing_whatever_it_is_given() {
    let nasty = "</p><script>alert(1)</script><img src=//evil.example onerror='x'>\"&\u{202e}";
    let credentials = Credentials {
        endpoints: vec![Endpoint {
            host: nasty.into(),
            port: 1,
            root_fingerprint: Fingerprint::from_bytes([1; 32]),
        }],
        key: FirstAuthKey::parse("</p><script>alert(2)</script>&amp;").expect("a key"),
    };
    let page = page::of(&credentials, Some(&kept("x", nasty)));
    let lower = page.to_ascii_lowercase();
    for forbidden in [
        "<script", "<img", "<link", "<iframe", "url(", "@import", "\u{202e}",
    ] {
        assert!(!lower.contains(forbidden), "{forbidden}");
    }
    assert_eq!(
        page.matches("http").count(),
        page.matches("http://www.w3.org/2000/svg").count() + 1
    );
    assert!(page.contains("http-equiv"));
    assert!(
        page.contains("&lt;SCRIP-T&gt;AL") || page.contains("&lt;/P&gt;"),
        "the key as text"
    );
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
}

#[test]
fn no_cell_of_a_table_is_taken_for_a_formula_and_keys_stay_what_they_are() {
    for (key, tag) in [
        (
            "=1+1CMDCALC-XYZ",
            "=HYPERLINK(\"http://evil.example\",\"x\")",
        ),
        ("@SUMABCDEFGH", "+49 30"),
        ("+ABCDEFGHIJKL", "-1"),
        ("AB\"C,D;EFGHIJKL", "@x, \"y\"\r\nz"),
    ] {
        let sheet = sheet::of(&[kept(key, tag)], &[]);
        let line = sheet.split("\r\n").nth(1).expect("a line");
        let cells = cells(line);
        assert_eq!(cells.len(), 10, "{line}");
        for cell in &cells {
            assert!(!cell.starts_with(['=', '+', '-', '@']), "{cell}");
        }
        let read = FirstAuthKey::parse(&cells[1]).expect("a key");
        assert_eq!(read, FirstAuthKey::parse(key).expect("a key"));
        assert_eq!(sheet.lines().count(), 2, "one line per key: {sheet:?}");
    }
}

/// The cells of a line, read as RFC 4180 has them.
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut quoted) = (vec![String::new()], false);
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        let cell = cells.last_mut().expect("one at least");
        match (c, quoted) {
            ('"', true) if rest.peek() == Some(&'"') => {
                rest.next();
                cell.push('"');
            }
            ('"', _) => quoted = !quoted,
            (',', false) => cells.push(String::new()),
            (c, _) => cell.push(c),
        }
    }
    cells
}

#[test]
fn a_draft_names_no_sender_and_the_attachment_reads_back() {
    use base64::Engine as _;
    let credentials = credentials("chosen-key.xml");
    let envelope = Envelope {
        from: None,
        to: &[],
        at: NOW,
        key: KeyId::from_bytes([1; 8]),
    };
    let mail = mail::of(&credentials, &envelope);
    let (head, body) = mail.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("X-Unsent: 1") && !head.contains("From:") && !head.contains("To:"));
    let parts: Vec<&str> = body.split("--=_umbra_0101010101010101").collect();
    assert_eq!(parts.len(), 4, "{body}");
    let (_, encoded) = parts[2]
        .split_once("base64\r\n\r\n")
        .expect("an attachment");
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(encoded.replace("\r\n", ""))
        .expect("base64");
    assert_eq!(Credentials::read(&bytes).as_ref(), Ok(&credentials));
    assert_eq!(Credentials::from_text(parts[1]).as_ref(), Ok(&credentials));
}
