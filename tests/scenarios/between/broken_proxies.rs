//! Proxies that answer with anything but a tunnel. The device says which proxy it is and what came, tries again, and is
//! back as soon as the proxy is a proxy.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::ensure;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use umbra_tests::fault_proxy::FaultProxy;
use umbra_tests::front::{SquidConfig, own_names, squid};
use umbra_tests::netns::isolate;
use umbra_tests::scratch::scenario;

use super::site::{HOST, Site, cause, wait_for_code};

/// Reads one request and gives always the same answer; then hangs up.
pub(crate) struct Parrot {
    pub(crate) address: SocketAddr,
    task: AbortHandle,
}

impl Parrot {
    pub(crate) async fn start(answer: &'static [u8]) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    match client.read_buf(&mut request).await {
                        Ok(count) if count > 0 => {}
                        Ok(_) | Err(_) => break,
                    }
                }
                // Whoever has gone misses it.
                let _ = client.write_all(answer).await;
                let _ = client.shutdown().await;
            }
        });
        Ok(Self {
            address,
            task: task.abort_handle(),
        })
    }
}

impl Drop for Parrot {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_proxy_that_answers_wrongly_is_named_with_what_it_did_and_tried_again() {
    scenario(async |scratch| {
        isolate()?;
        let names = own_names(scratch)?;
        names.set_hosts(&[(HOST, Ipv4Addr::LOCALHOST.into())])?;
        let site = Site::named(scratch).await?;
        let parrots = [
            (
                &b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Negotiate\r\nContent-Length: 0\r\n\r\n"[..],
                "proxy_credentials",
            ),
            (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "proxy_target_unreachable"),
            (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "proxy_refused"),
            (b"220 mail.example.com ESMTP\r\n\r\n", "proxy_garbage"),
            (b"", "proxy_closed"),
            // The end right behind the tunnel's beginning.
            (b"HTTP/1.1 200 Connection established\r\n\r\n", "gateway_tls"),
            // Something else than TLS behind it.
            (
                b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 400 Bad Request\r\n\r\n",
                "gateway_tls",
            ),
        ];
        // A real proxy, at an address that stays while it is another that answers there.
        let proxy = SocketAddr::from((Ipv4Addr::LOCALHOST, 3128));
        let config = SquidConfig::default();
        let _squid = squid(scratch, &names, "squid", &config, proxy).await?;
        let line = FaultProxy::start(proxy).await?;
        let mut config = site.device_config();
        config
            .set_text("umbra.proxy.mode", "manual")
            .set_text("umbra.proxy.host", "127.0.0.1")
            .set("umbra.proxy.port", &line.address().port().to_string())
            // squid has no name server here.
            .set("system.remotemanager.reconnect_interval", "1");
        let mut device = site.new_device(1, config, None).await?;
        site.set_gateway("--external", &site.gateway.internal().to_string()).await?;
        let at = site.gateway.internal().to_string();
        let name = site.take_on_at(&device, &at).await?;
        for (answer, code) in parrots {
            device.kill();
            let parrot = Parrot::start(answer).await?;
            line.set_upstream(parrot.address);
            device.start()?;
            device.wait_until_up().await?;
            let status = wait_for_code(&device, code).await?;
            let before = line.counts().accepted;
            let sentence = cause(&status);
            let about = if code == "gateway_tls" { at.clone() } else { line.address().to_string() };
            ensure!(sentence.contains(&about), "{code}: {status}");
            // It does not give up.
            umbra_tests::eventually::eventually_is(
                "another attempt",
                umbra_tests::eventually::SOON,
                || match line.counts().accepted {
                    more if more > before => Ok(()),
                    same => Err(same),
                },
            )
            .await?;
        }
        line.set_upstream(proxy);
        device.wait_until_online().await?;
        site.wait_for_way(&name, Some(site.gateway.name())).await?;
        Ok(())
    })
    .await;
}
