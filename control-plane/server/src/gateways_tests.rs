use super::*;

fn gateway(row: i64, name: &str, roots: Vec<String>) -> Arc<GatewayOnFile> {
    Arc::new(GatewayOnFile {
        row,
        name: name.into(),
        internal: HostPort::new("192.0.2.5", 8443).expect("an address"),
        external: HostPort::new("gw.example.com", 443).expect("an address"),
        hosts: Vec::new(),
        limit: None,
        roots,
        certificate_until: None,
    })
}

fn known(gateways: Vec<Arc<GatewayOnFile>>) -> Gateways {
    Gateways {
        wanted: watch::Sender::new(Arc::new(Wanted {
            gateways,
            connections: None,
        })),
        uplinks: Mutex::default(),
        open: Mutex::default(),
    }
}

fn whom() -> ForWhom {
    ForWhom {
        session: SessionId::from_bytes([7; 16]),
        device: Row(3),
    }
}

fn uplink(number: u64) -> UplinkId {
    UplinkId { row: 1, number }
}

fn ended(id: RendezvousId) -> RendezvousEnded {
    RendezvousEnded {
        id,
        code: TunnelEnd::Expired,
        sentence: "Nobody came.".into(),
        bytes_to_device: 0,
        bytes_to_console: 0,
    }
}

/// Answers the first order as a gateway would.
async fn opened(orders: &mut mpsc::Receiver<Order>) -> OpenRendezvous {
    match orders.recv().await.expect("an order") {
        Order::Open(open) => open,
        Order::Withdraw(_) => panic!("withdrawn before it was opened"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_learns_hashes_and_each_end_its_own_token() {
    let gateways = known(vec![gateway(1, "dmz", Vec::new())]);
    let (sender, mut orders) = mpsc::channel(4);
    gateways.attached(uplink(1), 0, "0.1.0".into(), sender);
    let answer = async {
        let open = opened(&mut orders).await;
        gateways.ready(2, open.id);
        gateways.ready(1, open.id);
        open
    };
    let (meeting, open) = tokio::join!(gateways.meet(1, whom()), answer);
    let meeting = meeting.expect("ready");
    assert_ne!(meeting.device, meeting.console);
    assert_eq!(meeting.device.reveal().len(), 43, "32 bytes");
    assert_eq!(open.device, token_hash(meeting.device.reveal()));
    assert_eq!(open.console, token_hash(meeting.console.reveal()));
    assert_eq!(gateways.ended(2, &ended(open.id)), None, "not its own");
    assert_eq!(gateways.ended(1, &ended(open.id)), Some(whom()));
    assert_eq!(gateways.ended(1, &ended(open.id)), None, "told once");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_does_not_answer_or_refuses_or_is_lost_gives_no_rendezvous() {
    let gateways = known(vec![gateway(1, "dmz", Vec::new())]);
    assert_eq!(
        gateways.meet(1, whom()).await.expect_err("no uplink"),
        MeetingError::NotAttached
    );
    let (sender, mut orders) = mpsc::channel(4);
    gateways.attached(uplink(1), 0, "0.1.0".into(), sender);
    let silent = gateways.meet(1, whom()).await.expect_err("silence");
    assert_eq!(silent, MeetingError::NoAnswer);
    let open = opened(&mut orders).await;
    assert_eq!(orders.recv().await, Some(Order::Withdraw(open.id)));
    let refuse = async {
        let open = opened(&mut orders).await;
        assert_eq!(gateways.ended(1, &ended(open.id)), None);
    };
    let (refused, ()) = tokio::join!(gateways.meet(1, whom()), refuse);
    assert_eq!(
        refused.expect_err("refused"),
        MeetingError::Refused("Nobody came.".into())
    );
    let lose = async {
        opened(&mut orders).await;
        let (news, waiting) = gateways.detached(uplink(1), 9, "The uplink was lost.");
        assert!(news);
        assert_eq!(waiting, []);
    };
    let (lost, ()) = tokio::join!(gateways.meet(1, whom()), lose);
    assert_eq!(
        lost.expect_err("lost"),
        MeetingError::Refused("The uplink was lost.".into())
    );
    assert!(gateways.open().is_empty(), "nothing is remembered");
    assert!(
        !gateways.detached(uplink(1), 9, "The uplink was lost.").0,
        "old news"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_uplink_names_the_sessions_that_waited_and_a_withdrawn_one_is_withdrawn_there() {
    let gateways = known(vec![gateway(1, "dmz", Vec::new())]);
    let (sender, mut orders) = mpsc::channel(4);
    gateways.attached(uplink(1), 5, "0.1.0".into(), sender);
    for round in 0..2 {
        let answer = async {
            let open = opened(&mut orders).await;
            gateways.ready(1, open.id);
            open.id
        };
        let (meeting, id) = tokio::join!(gateways.meet(1, whom()), answer);
        meeting.expect("ready");
        if round == 0 {
            gateways.withdraw(whom().session);
            assert_eq!(orders.recv().await, Some(Order::Withdraw(id)));
        }
    }
    assert_eq!(gateways.detached(uplink(1), 9, "Gone.").1, [whom()]);
    let status = gateways.status(1);
    assert!(!status.attached);
    assert_eq!(status.since, Some(9));
    assert_eq!(status.trouble.as_deref(), Some("Gone."));
}

#[tokio::test(start_paused = true)]
async fn the_newer_of_two_uplinks_counts_once_it_stands_and_the_older_one_until_then() {
    let gateways = known(vec![gateway(1, "dmz", Vec::new())]);
    let (sender, mut orders) = mpsc::channel(4);
    gateways.attached(uplink(1), 5, "0.1.0".into(), sender);
    let answer = async {
        let open = opened(&mut orders).await;
        gateways.ready(1, open.id);
    };
    let (meeting, ()) = tokio::join!(gateways.meet(1, whom()), answer);
    meeting.expect("ready");

    let (news, waiting) = gateways.detached(uplink(2), 6, "Nobody is there.");
    assert!(news);
    assert_eq!(waiting, [], "it is open at the older one");
    let status = gateways.status(1);
    assert!(status.attached, "the older one stands");
    assert_eq!(status.since, Some(5));
    let trouble = status.trouble.expect("a sentence");
    assert!(trouble.ends_with(": Nobody is there."), "{trouble}");

    let (newer, mut newer_orders) = mpsc::channel(4);
    gateways.attached(uplink(2), 7, "0.1.0".into(), newer);
    let (news, waiting) = gateways.detached(uplink(1), 8, "Replaced.");
    assert!(!news);
    assert_eq!(waiting, [whom()]);
    let status = gateways.status(1);
    assert_eq!((status.attached, status.since), (true, Some(7)));
    assert_eq!(status.trouble, None);
    gateways.order(1, Order::Withdraw(RendezvousId::from_bytes([1; 16])));
    assert!(newer_orders.try_recv().is_ok());
    assert!(orders.try_recv().is_err());
    assert!(gateways.detached(uplink(2), 9, "Gone.").0);
    assert!(!gateways.status(1).attached);
}

#[test]
fn consoles_inside_hear_the_internal_address_first_and_others_the_external_one() {
    let gateway = gateway(1, "dmz", Vec::new());
    let first = |console: &str| {
        let all = addresses_for(&gateway, console.parse().expect("an address"));
        assert_eq!(all.len(), 2);
        all[0].clone()
    };
    for inside in [
        "127.0.0.1",
        "::ffff:10.1.2.3",
        "192.168.7.7",
        "fd00::1",
        "192.0.2.77",
    ] {
        assert_eq!(first(inside), "192.0.2.5:8443", "{inside}");
    }
    for outside in ["203.0.113.9", "192.0.3.5", "2001:db8::1"] {
        assert_eq!(first(outside), "gw.example.com:443", "{outside}");
    }
}

#[test]
fn a_gateway_with_one_address_is_named_once() {
    let mut one = (*gateway(1, "dmz", Vec::new())).clone();
    one.external = one.internal.clone();
    let console = "203.0.113.9".parse().expect("an address");
    assert_eq!(addresses_for(&one, console), ["192.0.2.5:8443"]);
}

#[test]
fn a_device_hears_first_of_the_gateway_that_it_came_through_and_never_of_more_than_fit() {
    let large = "x".repeat(4 * 1024);
    let gateways = known(vec![
        gateway(1, "a", vec![large.clone()]),
        gateway(2, "b", vec![large]),
        gateway(3, "c", Vec::new()),
    ]);
    let roots = |first| -> Vec<usize> {
        let all = gateways.connectors(first);
        all.iter().map(|connector| connector.roots.len()).collect()
    };
    assert_eq!(roots(None), [1, 0], "the second large one does not fit");
    assert_eq!(roots(Some("c")), [0, 1]);
}

#[test]
fn the_smaller_limit_holds() {
    let limit = |own, all| {
        let mut one = (*gateway(1, "dmz", Vec::new())).clone();
        one.limit = own;
        let wanted = Wanted {
            gateways: Vec::new(),
            connections: all,
        };
        wanted.limit_of(&one)
    };
    assert_eq!(limit(None, None), None);
    assert_eq!(limit(Some(5), None), Some(5));
    assert_eq!(limit(None, Some(7)), Some(7));
    assert_eq!(limit(Some(5), Some(7)), Some(5));
    assert_eq!(limit(Some(9), Some(7)), Some(7));
}
