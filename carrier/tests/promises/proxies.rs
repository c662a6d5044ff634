//! Proxies: when one is used, what it is asked, and what is made of everything that may answer there.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use umbra_carrier::io::Prefixed;
use umbra_carrier::proxy::{
    Credentials, NoProxy, Proxy, ProxyError, ProxyKind, ProxySettings, ProxySettingsError, through,
};

use crate::pki::LONG;

const PASSWORD: &str = "correct horse battery";

fn http(credentials: Option<Credentials>) -> Proxy {
    proxy(ProxyKind::Http, credentials)
}

fn socks(credentials: Option<Credentials>) -> Proxy {
    proxy(ProxyKind::Socks5, credentials)
}

fn proxy(kind: ProxyKind, credentials: Option<Credentials>) -> Proxy {
    Proxy {
        kind,
        host: "proxy.test".to_owned(),
        port: 3128,
        credentials,
    }
}

fn known() -> Option<Credentials> {
    Some(Credentials::new("ada", PASSWORD))
}

/// One line of a conversation: bytes that are expected, and the answer to them.
type Line<'a> = (&'a [u8], &'a [u8]);

type Tunnel = Result<Prefixed<DuplexStream>, ProxyError>;

/// Asks for `host` port 8443, with a proxy that keeps to the script and then stays silent or hangs up.
async fn talk(
    proxy: &Proxy,
    host: &str,
    script: &[Line<'_>],
    hang_up: bool,
) -> (Tunnel, Option<DuplexStream>) {
    let (near, mut far) = duplex(64 * 1024);
    let play = async {
        for (expected, answer) in script {
            let mut heard = vec![0; expected.len()];
            far.read_exact(&mut heard).await.unwrap();
            assert_eq!(
                String::from_utf8_lossy(&heard),
                String::from_utf8_lossy(expected)
            );
            far.write_all(answer).await.unwrap();
        }
        (!hang_up).then_some(far)
    };
    let (tunnel, far) = tokio::join!(through(near, proxy, host, 8443, LONG), play);
    if let Err(error) = &tunnel {
        let shown = format!("{error} {error:?} {proxy:?}");
        assert!(
            !shown.contains(PASSWORD) && !shown.contains("YWRh"),
            "{shown}"
        );
        assert!(error.to_string().contains("proxy.test:3128"), "{error}");
    }
    (tunnel, far)
}

const ASK: &[u8] =
    b"CONNECT gateway.test:8443 HTTP/1.1\r\nHost: gateway.test:8443\r\nUser-Agent: umbra\r\n\r\n";

/// What is made of an HTTP proxy's answer.
async fn answer(proxy: &Proxy, answer: &[u8], hang_up: bool) -> ProxyError {
    let (near, mut far) = duplex(64 * 1024);
    let play = async {
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            heard.push(far.read_u8().await.unwrap());
        }
        far.write_all(answer).await.unwrap();
        (!hang_up).then_some(far)
    };
    let (tunnel, _far) = tokio::join!(through(near, proxy, "gateway.test", 8443, LONG), play);
    let error = tunnel.expect_err("this is no tunnel");
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains(PASSWORD), "{shown}");
    assert!(
        error.to_string().contains("http://proxy.test:3128"),
        "{error}"
    );
    error
}

#[tokio::test(start_paused = true)]
async fn an_http_proxy_resolves_the_name_and_no_byte_behind_its_answer_is_lost() {
    for status in [
        "200 OK",
        "200 Connection established\r\nContent-Length: 5\r\nX: y",
        "204 ",
    ] {
        let reply = format!("HTTP/1.1 {status}\r\n\r\nearly");
        let (tunnel, far) = talk(
            &http(None),
            "gateway.test",
            &[(ASK, reply.as_bytes())],
            false,
        )
        .await;
        let (mut tunnel, mut far) = (tunnel.unwrap(), far.unwrap());
        let mut bytes = [0; 5];
        tunnel.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"early");
        tunnel.write_all(b"hello").await.unwrap();
        far.write_all(b"later").await.unwrap();
        far.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hello");
        tunnel.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"later");
    }
}

#[tokio::test(start_paused = true)]
async fn an_http_proxy_gets_addresses_in_brackets_and_credentials_only_where_configured() {
    let ask =
        b"CONNECT [2001:db8::1]:8443 HTTP/1.1\r\nHost: [2001:db8::1]:8443\r\nUser-Agent: umbra\r\n\
        Proxy-Authorization: Basic YWRhOmNvcnJlY3QgaG9yc2UgYmF0dGVyeQ==\r\n\r\n";
    let script: [Line<'_>; 1] = [(ask, b"HTTP/1.0 200 OK\r\n\r\n")];
    talk(&http(known()), "2001:db8::1", &script, false)
        .await
        .0
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_refusals_of_an_http_proxy_are_told_apart() {
    let cases = [
        (
            "407 Proxy Authentication Required",
            None,
            "proxy_credentials",
            "none are configured",
        ),
        (
            "407 Proxy Authentication Required",
            known(),
            "proxy_credentials",
            "doesn't accept",
        ),
        (
            "403 Forbidden",
            None,
            "proxy_refused",
            "gateway.test:8443 (HTTP status 403)",
        ),
        ("405 Method Not Allowed", None, "proxy_refused", "405"),
        ("302 Found", None, "proxy_refused", "302"),
        (
            "502 Bad Gateway",
            None,
            "proxy_target_unreachable",
            "can't reach gateway.test:8443",
        ),
        (
            "504 Gateway Timeout",
            None,
            "proxy_target_unreachable",
            "504",
        ),
        (
            "101 Switching Protocols",
            None,
            "proxy_garbage",
            "isn't a proxy",
        ),
    ];
    for (status, credentials, code, words) in cases {
        let reply = format!("HTTP/1.1 {status}\r\nRetry-After: 9\r\nContent-Length: 3\r\n\r\nno!");
        let error = answer(&http(credentials), reply.as_bytes(), false).await;
        assert_eq!(error.code(), code, "{status}");
        assert!(error.to_string().contains(words), "{error}");
        let delay = (code == "proxy_target_unreachable").then_some(Duration::from_secs(9));
        assert_eq!(error.retry_after(), delay);
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_else_answers_is_no_proxy() {
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(20_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(200));
    for reply in [
        "SSH-2.0-x\r\n",
        "\x15\x03\x01\0\x02",
        "HTTP/1.1\r\n\r\n",
        &endless,
        &many,
    ] {
        let error = answer(&http(None), reply.as_bytes(), false).await;
        assert_eq!(error.code(), "proxy_garbage", "{reply:.40}");
    }
    for reply in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\n"] {
        let error = answer(&http(None), reply.as_bytes(), true).await;
        assert_eq!(error.code(), "proxy_closed", "{reply}");
        let error = answer(&http(None), reply.as_bytes(), false).await;
        assert_eq!(error.code(), "proxy_timeout", "{reply}");
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_that_can_not_be_said_are_told_and_not_sent() {
    let long = "x".repeat(256);
    let cases = [
        (ProxyKind::Http, "a:b", "c"),
        (ProxyKind::Http, "a", "b\r\nX: y"),
        (ProxyKind::Socks5, long.as_str(), "b"),
        (ProxyKind::Socks5, "a", long.as_str()),
        (ProxyKind::Socks5, "", "b"),
    ];
    for (kind, user, password) in cases {
        let proxy = proxy(kind, Some(Credentials::new(user, password)));
        let script: &[Line<'_>] = match kind {
            ProxyKind::Http => &[],
            ProxyKind::Socks5 => &[(&[5, 2, 0, 2], &[5, 2])],
        };
        let (tunnel, far) = talk(&proxy, "gateway.test", script, false).await;
        let error = tunnel.expect_err("they can't be said");
        assert!(
            matches!(error, ProxyError::CredentialsUnusable { .. }),
            "{error:?}"
        );
        let mut more = Vec::new();
        far.unwrap().read_to_end(&mut more).await.unwrap();
        assert!(more.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_host_never_reaches_a_proxy() {
    for host in ["", "a b", "a\r\nX: y", "a/b", "a@b", "[::1]"] {
        for proxy in [http(None), socks(None)] {
            let (near, mut far) = duplex(1024);
            let error = through(near, &proxy, host, 1, LONG)
                .await
                .expect_err("no host");
            assert_eq!(error.code(), "bad_address");
            let mut sent = Vec::new();
            far.read_to_end(&mut sent).await.unwrap();
            assert!(sent.is_empty());
        }
    }
    let long = format!("{}.test", "x".repeat(300));
    let (near, _far) = duplex(1024);
    let error = through(near, &socks(None), &long, 1, LONG)
        .await
        .expect_err("too long");
    assert_eq!(error.code(), "bad_address");
}

const GREET: &[u8] = &[5, 1, 0];
const GREET_KNOWN: &[u8] = &[5, 2, 0, 2];
const CONNECT_NAME: &[u8] = b"\x05\x01\x00\x03\x0cgateway.test\x20\xfb";

#[tokio::test(start_paused = true)]
async fn a_socks_proxy_resolves_the_name_and_every_form_of_its_answer_is_read_to_its_exact_end() {
    let answers: [&[u8]; 3] = [
        b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50early",
        b"\x05\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x50early",
        b"\x05\x00\x00\x03\x03a.b\x00\x50early",
    ];
    for answer in answers {
        let script: [Line<'_>; 2] = [(GREET, &[5, 0]), (CONNECT_NAME, answer)];
        let (tunnel, _far) = talk(&socks(None), "gateway.test", &script, false).await;
        let mut bytes = [0; 5];
        tunnel.unwrap().read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"early");
    }
}

#[tokio::test(start_paused = true)]
async fn a_socks_proxy_gets_addresses_as_addresses() {
    let done: &[u8] = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50";
    let v4: &[u8] = b"\x05\x01\x00\x01\xc0\x00\x02\x01\x20\xfb";
    let v6: &[u8] =
        b"\x05\x01\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x20\xfb";
    for (host, request) in [("192.0.2.1", v4), ("2001:db8::1", v6)] {
        let script: [Line<'_>; 2] = [(GREET, &[5, 0]), (request, done)];
        talk(&socks(None), host, &script, false).await.0.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_socks_proxy_gets_credentials_only_if_it_asks_for_them() {
    let done: &[u8] = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50";
    let password: &[u8] = b"\x01\x03ada\x15correct horse battery";
    let script: [Line<'_>; 3] = [
        (GREET_KNOWN, &[5, 2]),
        (password, &[1, 0]),
        (CONNECT_NAME, done),
    ];
    talk(&socks(known()), "gateway.test", &script, false)
        .await
        .0
        .unwrap();
    let script: [Line<'_>; 2] = [(GREET_KNOWN, &[5, 0]), (CONNECT_NAME, done)];
    talk(&socks(known()), "gateway.test", &script, false)
        .await
        .0
        .unwrap();

    let script: [Line<'_>; 2] = [(GREET_KNOWN, &[5, 2]), (password, &[1, 1])];
    let (tunnel, _far) = talk(&socks(known()), "gateway.test", &script, false).await;
    let error = tunnel.expect_err("refused");
    assert!(
        matches!(error, ProxyError::CredentialsRefused { .. }),
        "{error:?}"
    );
    let script: [Line<'_>; 1] = [(GREET, &[5, 0xff])];
    let (tunnel, _far) = talk(&socks(None), "gateway.test", &script, false).await;
    let error = tunnel.expect_err("refused");
    assert!(
        matches!(error, ProxyError::CredentialsNeeded { .. }),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_refusals_of_a_socks_proxy_are_told_apart() {
    for reply in 1..=255_u8 {
        let code = match reply {
            1 | 3..=6 => "proxy_target_unreachable",
            _ => "proxy_refused",
        };
        let answer = [5, reply, 0, 1, 0, 0, 0, 0, 0, 0];
        let script: [Line<'_>; 2] = [(GREET, &[5, 0]), (CONNECT_NAME, &answer)];
        let (tunnel, _far) = talk(&socks(None), "gateway.test", &script, false).await;
        let error = tunnel.expect_err("refused");
        assert_eq!(error.code(), code, "{reply}");
        assert!(error.to_string().contains("gateway.test:8443"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_socks_proxy_that_breaks_the_rules_or_off_is_told() {
    let garbage: [&[Line<'_>]; 5] = [
        &[(GREET, b"HTTP/1.1 400 Bad Request\r\n")],
        &[(GREET, &[4, 0])],
        // A method that wasn't offered.
        &[(GREET, &[5, 2])],
        &[(GREET, &[5, 0]), (CONNECT_NAME, &[4, 0, 0, 1])],
        &[(GREET, &[5, 0]), (CONNECT_NAME, &[5, 0, 0, 2])],
    ];
    for script in garbage {
        let (tunnel, _far) = talk(&socks(None), "gateway.test", script, false).await;
        assert_eq!(
            tunnel.expect_err("garbage").code(),
            "proxy_garbage",
            "{script:?}"
        );
    }
    let broken_off: [&[Line<'_>]; 4] = [
        &[(GREET, &[])],
        &[(GREET, &[5])],
        &[(GREET, &[5, 0]), (CONNECT_NAME, &[5, 0])],
        &[(GREET, &[5, 0]), (CONNECT_NAME, &[5, 0, 0, 3, 200, 1, 2])],
    ];
    for script in broken_off {
        for (hang_up, code) in [(true, "proxy_closed"), (false, "proxy_timeout")] {
            let (tunnel, _far) = talk(&socks(None), "gateway.test", script, hang_up).await;
            assert_eq!(tunnel.expect_err("broken off").code(), code, "{script:?}");
        }
    }
}

#[test]
fn no_proxy_means_what_it_means_everywhere() {
    let cases = [
        ("example.com", "example.com", 443, true),
        ("example.com", "EXAMPLE.com.", 443, true),
        ("example.com", "a.b.example.com", 443, true),
        ("example.com", "badexample.com", 443, false),
        ("example.com", "example.com.evil", 443, false),
        (".example.com", "example.com", 443, true),
        (".example.com", "a.example.com", 443, true),
        ("*.example.com", "a.example.com", 443, true),
        ("a, b  c", "c", 443, true),
        ("a,,b", "", 443, false),
        ("*", "anything", 443, true),
        ("*", "192.0.2.1", 443, true),
        ("a,*", "b", 443, true),
        ("192.0.2.1", "192.0.2.1", 443, true),
        ("192.0.2.1", "192.0.2.10", 443, false),
        ("192.0.2.1", "::ffff:192.0.2.1", 443, true),
        ("192.0.2.0/24", "192.0.2.255", 443, true),
        ("192.0.2.0/24", "192.0.3.0", 443, false),
        ("192.0.2.0/24", "name.test", 443, false),
        ("10.0.0.0/8", "10.255.0.1", 443, true),
        ("0.0.0.0/0", "8.8.8.8", 443, true),
        ("0.0.0.0/0", "2001:db8::1", 443, false),
        ("2001:db8::/32", "2001:db8:1::1", 443, true),
        ("[2001:db8::]/32", "2001:db8:1::1", 443, true),
        ("2001:db8::/32", "2001:db9::1", 443, false),
        ("2001:db8::1", "[2001:db8::1]", 443, true),
        ("fe80::1", "fe80::1%eth0", 443, true),
        ("192.0.2.0/33", "192.0.2.0", 443, false),
        ("192.0.2.0/x", "192.0.2.0", 443, false),
        ("example.com:443", "a.example.com", 443, true),
        ("example.com:443", "example.com", 8443, false),
        ("192.0.2.1:443", "192.0.2.1", 443, true),
        ("[2001:db8::1]:443", "2001:db8::1", 443, true),
        ("[2001:db8::1]:443", "2001:db8::1", 444, false),
        ("example.com:x", "example.com", 443, false),
        (".", "example.com", 443, false),
        ("", "example.com", 443, false),
        // This machine itself.
        ("", "localhost", 443, true),
        ("", "a.localhost", 443, true),
        ("", "127.3.2.1", 443, true),
        ("", "::1", 443, true),
        ("", "notlocalhost", 443, false),
    ];
    for (list, host, port, covered) in cases {
        assert_eq!(
            NoProxy::parse(list).covers(host, port),
            covered,
            "{list:?} {host:?} {port}"
        );
    }
    let told = NoProxy::parse("").with_loopback_proxied();
    assert!(!told.covers("localhost", 443) && !told.covers("127.0.0.1", 443));
}

fn environment(values: &[(&str, &str)]) -> Result<ProxySettings, ProxySettingsError> {
    let values: BTreeMap<&str, &str> = values.iter().copied().collect();
    ProxySettings::from_environment(|name| values.get(name).map(|value| (*value).to_owned()))
}

#[test]
fn the_environment_names_the_proxy_and_its_exceptions() {
    let name = |values: &[(&str, &str)]| {
        let settings = environment(values).unwrap();
        settings.proxy_for("gateway.test", 443).map(Proxy::name)
    };
    let some = |name: &str| Some(name.to_owned());
    assert_eq!(name(&[]), None);
    assert_eq!(name(&[("https_proxy", "")]), None);
    assert_eq!(name(&[("http_proxy", "http://wrong:1")]), None);
    assert_eq!(
        name(&[("https_proxy", "p.test:3128")]),
        some("http://p.test:3128")
    );
    assert_eq!(
        name(&[("HTTPS_PROXY", "http://p.test:3128/")]),
        some("http://p.test:3128")
    );
    assert_eq!(
        name(&[("https_proxy", "http://p.test")]),
        some("http://p.test:80")
    );
    assert_eq!(
        name(&[("all_proxy", "socks5h://p.test")]),
        some("socks5://p.test:1080")
    );
    assert_eq!(
        name(&[("ALL_PROXY", "SOCKS5://[2001:db8::1]:9")]),
        some("socks5://[2001:db8::1]:9")
    );
    let both = [
        ("https_proxy", "a.test:1"),
        ("HTTPS_PROXY", "b.test:2"),
        ("all_proxy", "c.test:3"),
    ];
    assert_eq!(name(&both), some("http://a.test:1"));
    let exceptions = [("https_proxy", "a.test:1"), ("no_proxy", "x.test,.test")];
    assert_eq!(name(&exceptions), None);
    let capital = [
        ("https_proxy", "a.test:1"),
        ("no_proxy", " "),
        ("NO_PROXY", "gateway.test"),
    ];
    assert_eq!(name(&capital), None);
}

#[test]
fn credentials_of_the_environment_are_unescaped_and_never_shown() {
    let settings =
        environment(&[("https_proxy", "http://a%40b:p%3a%C3%BC/w@p.test:3128")]).unwrap();
    let expected = Credentials::new("a@b", "p:ü/w");
    assert_eq!(settings.proxy().unwrap().credentials, Some(expected));
    assert!(!format!("{settings:?}").contains("p:ü"));
    let settings = environment(&[("https_proxy", "http://ada:p@ss@p.test:3128")]).unwrap();
    let expected = Credentials::new("ada", "p@ss");
    assert_eq!(settings.proxy().unwrap().credentials, Some(expected));
    let settings = environment(&[("https_proxy", "http://ada@p.test:3128")]).unwrap();
    assert_eq!(
        settings.proxy().unwrap().credentials,
        Some(Credentials::new("ada", ""))
    );
    let bad = [
        "https://ada:secret@p.test:3128",
        "socks4://ada:secret@p.test",
        "http://ada:secret%@p.test",
        "http://ada:secret%zz@p.test",
        "http://ada:secret%ff@p.test",
        "http://ada:secret@p.test/path",
        "http://ada:secret@:3128",
        "http://ada:secret@p.test:99999",
        "http://ada:secret@",
    ];
    for url in bad {
        let error = environment(&[("HTTPS_PROXY", url)]).expect_err(url);
        let shown = format!("{error} {error:?}");
        assert!(
            shown.contains("HTTPS_PROXY") && !shown.contains("secret"),
            "{shown}"
        );
    }
}
