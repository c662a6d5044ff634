use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use umbra_protocol::gateway::{
    FromGateway, RendezvousEnded, RendezvousReady, TunnelEnd, TunnelSide, Withdraw,
};

use crate::lab::{Lab, Server, end_of, refused, rendezvous, talk, token, within};
use TunnelSide::{Console, Device};

async fn opened(server: &mut Server, number: u8, seconds: u32) {
    let request = rendezvous(number, seconds);
    server.say(request).await;
    let ready = RendezvousReady { id: request.id };
    assert_eq!(server.heard().await, ready.into());
}

async fn ended(server: &mut Server) -> RendezvousEnded {
    match server.heard().await {
        FromGateway::RendezvousEnded(ended) => ended,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn two_ends_are_joined_whoever_comes_first_and_the_server_hears_how_much_it_was() {
    let lab = Lab::start().await;
    let mut server = lab.server().await;
    for (number, first) in [(1, Device), (2, Console)] {
        opened(&mut server, number, 30).await;
        let mut one = lab.tunnel(&token(number, first), first).await.unwrap();
        // What the first one says early waits for the second one.
        one.write_all(b"early").await.unwrap();
        one.flush().await.unwrap();
        let second = first.other();
        let mut two = lab.tunnel(&token(number, second), second).await.unwrap();
        let mut early = [0; 5];
        within("the early bytes", two.read_exact(&mut early))
            .await
            .unwrap();
        assert_eq!(&early, b"early");
        talk(&mut one, &mut two).await;
        two.shutdown().await.unwrap();
        assert_eq!(end_of(&mut one).await.code, 1000);
        let ended = ended(&mut server).await;
        let (to_first, to_second) = match first {
            Device => (ended.bytes_to_device, ended.bytes_to_console),
            Console => (ended.bytes_to_console, ended.bytes_to_device),
        };
        assert_eq!((to_first, to_second), (8, 13));
        let closed = match second {
            Device => TunnelEnd::ClosedByDevice,
            Console => TunnelEnd::ClosedByConsole,
        };
        assert_eq!(ended.code, closed);
    }
    lab.until_metric("umbra_gateway_bytes_in_tunnels_total", 42)
        .await;
}

#[tokio::test]
async fn much_arrives_whole_in_both_directions_at_once() {
    let lab = Lab::start().await;
    let mut server = lab.server().await;
    opened(&mut server, 1, 30).await;
    let device = lab.tunnel(&token(1, Device), Device).await.unwrap();
    let console = lab.tunnel(&token(1, Console), Console).await.unwrap();
    let much: Vec<u8> = (0..500_000_u32).flat_map(u32::to_be_bytes).collect();
    let (mut device_in, mut device_out) = tokio::io::split(device);
    let (mut console_in, mut console_out) = tokio::io::split(console);
    within("all bytes", async {
        let mut there = vec![0; much.len()];
        let mut back = vec![0; much.len()];
        let send = async {
            device_out.write_all(&much).await.unwrap();
            device_out.flush().await.unwrap();
        };
        let reply = async {
            console_out.write_all(&much).await.unwrap();
            console_out.flush().await.unwrap();
        };
        tokio::join!(
            send,
            reply,
            async { console_in.read_exact(&mut there).await.unwrap() },
            async { device_in.read_exact(&mut back).await.unwrap() }
        );
        assert!(there == much && back == much);
    })
    .await;
}

#[tokio::test]
async fn a_token_that_is_used_twice_late_on_the_wrong_side_or_made_up_opens_nothing() {
    let lab = Lab::start().await;
    let mut server = lab.server().await;
    opened(&mut server, 1, 30).await;
    let try_it = async |token: &str, side| refused(lab.tunnel(token, side).await).0;
    assert_eq!(try_it("made-up", Device).await, "tunnel_unknown");
    assert_eq!(
        try_it(&token(1, Device), Console).await,
        "tunnel_wrong_side"
    );
    let mut device = lab.tunnel(&token(1, Device), Device).await.unwrap();
    assert_eq!(try_it(&token(1, Device), Device).await, "tunnel_used");
    let mut console = lab.tunnel(&token(1, Console), Console).await.unwrap();
    assert_eq!(try_it(&token(1, Device), Device).await, "tunnel_used");
    assert_eq!(try_it(&token(1, Console), Console).await, "tunnel_used");
    talk(&mut device, &mut console).await;
    opened(&mut server, 2, 1).await;
    assert_eq!(ended(&mut server).await.code, TunnelEnd::Expired);
    assert_eq!(try_it(&token(2, Device), Device).await, "tunnel_expired");
    assert_eq!(
        lab.metric("umbra_gateway_rejected_total{code=\"tunnel_used\"}")
            .await,
        3
    );
}

#[tokio::test]
async fn an_end_that_stays_alone_is_sent_away_and_its_tokens_are_spent() {
    let lab = Lab::start().await;
    let mut server = lab.server().await;
    opened(&mut server, 1, 1).await;
    let mut device = lab.tunnel(&token(1, Device), Device).await.unwrap();
    let closed = end_of(&mut device).await;
    assert_eq!(
        (closed.code, closed.code_word()),
        (1008, Some("tunnel_expired"))
    );
    assert_eq!(ended(&mut server).await.code, TunnelEnd::Expired);
    let late = lab.tunnel(&token(1, Console), Console).await;
    assert_eq!(refused(late).0, "tunnel_expired");
}

#[tokio::test]
async fn an_end_that_gives_up_waiting_ends_the_rendezvous() {
    let lab = Lab::start().await;
    let mut server = lab.server().await;
    opened(&mut server, 1, 30).await;
    let device = lab.tunnel(&token(1, Device), Device).await.unwrap();
    drop(device);
    assert_eq!(ended(&mut server).await.code, TunnelEnd::ConnectionLost);
    let late = lab.tunnel(&token(1, Console), Console).await;
    assert_eq!(refused(late).0, "tunnel_expired");
}

#[tokio::test]
async fn a_server_withdraws_what_waits_and_what_runs() {
    let lab = Lab::start().await;
    let mut server = lab.server().await;
    for number in [1, 2] {
        opened(&mut server, number, 30).await;
        let mut device = lab.tunnel(&token(number, Device), Device).await.unwrap();
        let mut console = match number {
            1 => None,
            _ => Some(lab.tunnel(&token(number, Console), Console).await.unwrap()),
        };
        if let Some(console) = &mut console {
            talk(&mut device, console).await;
        }
        let id = rendezvous(number, 30).id;
        server.say(Withdraw { id }).await;
        let closed = end_of(&mut device).await;
        assert_eq!((closed.code, closed.code_word()), (1008, Some("withdrawn")));
        let ended = ended(&mut server).await;
        assert_eq!(ended.code, TunnelEnd::Withdrawn);
        assert_eq!(ended.bytes_to_device > 0, console.is_some());
    }
}

#[tokio::test]
async fn a_lost_uplink_spares_a_running_tunnel_and_the_next_one_hears_of_its_end() {
    let lab = Lab::start().await;
    let mut server = lab.server().await;
    opened(&mut server, 1, 30).await;
    opened(&mut server, 2, 30).await;
    let mut device = lab.tunnel(&token(1, Device), Device).await.unwrap();
    let mut console = lab.tunnel(&token(1, Console), Console).await.unwrap();
    talk(&mut device, &mut console).await;
    let mut alone = lab.tunnel(&token(2, Device), Device).await.unwrap();
    server.cut();
    assert_eq!(
        end_of(&mut alone).await.code_word(),
        Some("connection_lost")
    );
    talk(&mut device, &mut console).await;
    let mut server = lab.server().await;
    device.shutdown().await.unwrap();
    let ended = ended(&mut server).await;
    assert_eq!(
        (ended.id, ended.code),
        (rendezvous(1, 30).id, TunnelEnd::ClosedByDevice)
    );
}

#[tokio::test]
async fn an_end_that_does_not_read_holds_the_other_one_back() {
    let lab = Lab::start().await;
    let mut server = lab.server().await;
    opened(&mut server, 1, 30).await;
    let mut device = lab.tunnel(&token(1, Device), Device).await.unwrap();
    let mut console = lab.tunnel(&token(1, Console), Console).await.unwrap();
    talk(&mut device, &mut console).await;
    let mut sent = 0_usize;
    while let Ok(written) = timeout(Duration::from_secs(2), async {
        device.write_all(&[1; 16 * 1024]).await?;
        device.flush().await
    })
    .await
    {
        written.unwrap();
        sent += 16 * 1024;
        assert!(sent < 100_000_000, "nothing holds the sender back");
    }
    assert!(sent > 0);
}

#[tokio::test]
async fn a_silent_tunnel_ends_after_its_idle_limit() {
    let lab = Lab::timed(|timing| timing.tunnel_idle = Duration::from_millis(400)).await;
    let mut server = lab.server().await;
    opened(&mut server, 1, 30).await;
    let mut device = lab.tunnel(&token(1, Device), Device).await.unwrap();
    let mut console = lab.tunnel(&token(1, Console), Console).await.unwrap();
    talk(&mut device, &mut console).await;
    let closed = end_of(&mut device).await;
    assert_eq!((closed.code, closed.code_word()), (1008, Some("idle")));
    assert_eq!(ended(&mut server).await.code, TunnelEnd::Idle);
}
