//! The loop around `accept`. Its errors are passing weather (a caller that left, no free file descriptor): they cost a pause,
//! never the listener.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tracing::{debug, warn};

/// How long to wait for better weather, for example for a file descriptor to become free.
const PAUSE: Duration = Duration::from_millis(200);

/// Hands each caller over until shutdown resolves. `TCP_NODELAY` is set: keystrokes must not wait for company.
pub async fn accept_forever(
    listener: &TcpListener,
    shutdown: impl Future<Output = ()>,
    mut on_caller: impl FnMut(TcpStream, SocketAddr),
) {
    let mut shutdown = pin!(shutdown);
    let mut bad_weather = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                bad_weather = false;
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "a caller left at once");
                }
                on_caller(stream, from);
            }
            Err(error) if concerns_one_caller(&error) => {
                debug!(%error, "a caller left before it was accepted")
            }
            Err(error) => {
                // Said once for a spell of bad weather, not five times a second.
                if !bad_weather {
                    warn!(%error, "can't accept connections at the moment; trying again");
                }
                bad_weather = true;
                tokio::select! {
                    biased;
                    () = &mut shutdown => return,
                    () = sleep(PAUSE) => {}
                }
            }
        }
    }
}

fn concerns_one_caller(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    [
        ConnectionAborted,
        ConnectionRefused,
        ConnectionReset,
        Interrupted,
    ]
    .contains(&error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn callers_are_handed_over_until_shutdown() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let mut stop = Some(stop);
        let mut callers = 0;
        let accepting = accept_forever(
            &listener,
            async { drop(stopped.await) },
            |_stream, _from| {
                callers += 1;
                if callers == 3 {
                    drop(stop.take());
                }
            },
        );
        let calling = async {
            for _ in 0..3 {
                TcpStream::connect(address).await.expect("connected");
            }
        };
        tokio::join!(accepting, calling);
        assert_eq!(callers, 3);
    }

    #[test]
    fn running_out_of_descriptors_concerns_the_listener_not_one_caller() {
        assert!(!concerns_one_caller(&io::Error::from_raw_os_error(24)));
        assert!(concerns_one_caller(&io::Error::from(
            io::ErrorKind::ConnectionAborted
        )));
    }
}
