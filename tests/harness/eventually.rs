//! Waiting for a state, with a limit: the one way in which tests wait. It looks at the level, never at an edge, and
//! says what it saw last when the limit is over, so that a failure names the state in which things got stuck.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// How long to wait between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// The limit for things that take moments on a quiet machine; generous, because machines aren't always quiet.
pub const SOON: Duration = Duration::from_secs(20);

/// The state was not reached within the limit.
#[derive(Debug, thiserror::Error)]
#[error("waited {limit:?} for {what}; last seen: {last}")]
pub struct NotReached {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub limit: Duration,
    /// The last state seen.
    pub last: String,
}

/// Asks `probe` again and again until it answers `Ok`; the `Err` it gives meanwhile is the state to report.
pub async fn eventually<T, S, P, F>(
    what: &str,
    limit: Duration,
    mut probe: P,
) -> Result<T, NotReached>
where
    S: Debug,
    P: FnMut() -> F,
    F: Future<Output = Result<T, S>>,
{
    let deadline = Instant::now() + limit;
    let mut last = "nothing: the first look did not finish".to_owned();
    loop {
        match timeout_at(deadline, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(state)) => last = format!("{state:?}"),
            Err(_) => {
                last.push_str(" (and the look after it did not finish)");
                return Err(NotReached {
                    what: what.to_owned(),
                    limit,
                    last,
                });
            }
        }
        if Instant::now() >= deadline {
            return Err(NotReached {
                what: what.to_owned(),
                limit,
                last,
            });
        }
        sleep(PAUSE).await;
    }
}

/// The same for a state that can be looked at without waiting.
pub async fn eventually_is<T, S: Debug>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<T, S>,
) -> Result<T, NotReached> {
    eventually(what, limit, || std::future::ready(probe())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_value_comes_back_as_soon_as_the_state_is_there() {
        let mut looks = 0;
        let value = eventually_is("three looks", SOON, || {
            looks += 1;
            if looks == 3 { Ok("there") } else { Err(looks) }
        })
        .await;
        assert_eq!(value.expect("reached"), "there");
        assert_eq!(looks, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_names_the_last_state_seen() {
        let limit = Duration::from_secs(1);
        let failed = eventually_is("the door", limit, || Err::<(), _>("ajar"))
            .await
            .expect_err("never opens");
        assert_eq!(
            failed.to_string(),
            "waited 1s for the door; last seen: \"ajar\""
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_never_finishes_is_cut_off_at_the_limit() {
        let failed = eventually(
            "an answer",
            Duration::from_secs(1),
            std::future::pending::<Result<(), ()>>,
        )
        .await
        .expect_err("never answers");
        assert!(failed.last.contains("did not finish"), "{failed}");
    }
}
