//! Logging in and out. Guessing is slowed down by source and account, costs the guesser as much for accounts that do
//! not exist, and is written down.

use std::time::Instant;

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use umbra_protocol::Secret;
use umbra_protocol::api::{LoggedIn, Login, Problem};

use super::auth::Operator;
use super::body::Json;
use super::problem::Fault;
use super::{Peer, Shared};
use crate::audit::{self, Actor, Line};
use crate::random;
use crate::store::accounts;
use crate::throttle::Source;

/// How long a log-in lasts.
const LIFETIME: u32 = 12 * 60 * 60;

/// Logs an operator in.
#[utoipa::path(post, path = "/api/v1/login", tag = "accounts", request_body = Login, responses(
    (status = 200, body = LoggedIn), (status = 401, body = Problem), (status = 429, body = Problem)))]
pub(super) async fn login(
    State(server): Shared,
    Extension(Peer(address)): Extension<Peer>,
    Json(Login { user, password }): Json<Login>,
) -> Result<Json<LoggedIn>, Fault> {
    let source = Source::from(address);
    // Long names are nobody's; they shall not fill the table.
    let name: String = user.chars().take(64).collect::<String>().to_lowercase();
    let now = Instant::now();
    let pair = (source, name.clone());
    let wait = server
        .logins
        .check(&pair, now)
        .and(server.logins_of_source.check(&source, now));
    if let Err(seconds) = wait {
        let line = Line::new(Actor::Account(name.clone()), "login", address).refused("throttled");
        server.note_stranger(line).await;
        return Err(Fault::new(
            StatusCode::TOO_MANY_REQUESTS,
            "throttled",
            format!("Too many wrong passwords: try again in {seconds} seconds."),
        )
        .retry_after(seconds));
    }
    // Counted before the password is checked, so that many guesses at once do not all get in.
    server.logins.fail(&pair, now);
    server.logins_of_source.fail(&source, now);
    let found = {
        let mut connection = server.store.read().await?;
        accounts::find(&mut connection, &name).await?
    };
    let hash = found.as_ref().map(|found| found.password.clone());
    let fits = server.passwords.check(password, hash).await?;
    let Some(found) = found.filter(|_| fits) else {
        let line =
            Line::new(Actor::Account(name.clone()), "login", address).refused("wrong_password");
        server.note_stranger(line).await;
        return Err(Fault::new(
            StatusCode::UNAUTHORIZED,
            "wrong_password",
            "The account name or the password is wrong.",
        ));
    };
    let token = Secret::new(random::hex::<32>());
    let now = server.clock.now();
    let account = found.account;
    let mut tx = server.store.begin().await?;
    let hash = random::digest(token.reveal());
    let until = now + i64::from(LIFETIME);
    accounts::add_token(&mut tx, now, &account.user, &hash, until).await?;
    let line = Line::new(Actor::Account(account.user.clone()), "login", address);
    audit::append(&mut tx, now, line).await?;
    tx.commit().await?;
    server.logins.forgive(&pair);
    server.logins_of_source.forgive(&source);
    Ok(Json(LoggedIn {
        token,
        display_name: account.display_name,
        role: account.role,
        expires_in_seconds: LIFETIME,
    }))
}

/// Ends this log-in.
#[utoipa::path(post, path = "/api/v1/logout", tag = "accounts", security(("token" = [])), responses(
    (status = 204), (status = 401, body = Problem)))]
pub(super) async fn logout(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
) -> Result<StatusCode, Fault> {
    let mut tx = server.store.begin().await?;
    accounts::end_token(&mut tx, &operator.token_hash).await?;
    let line = Line::new(operator.actor(), "logout", &operator.user);
    audit::append(&mut tx, server.clock.now(), line).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
