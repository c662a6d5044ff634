//! Operators' accounts. The last administrator cannot be removed.

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use umbra_protocol::api::{Account, NewAccount, NewPassword, Problem, Role};
use umbra_protocol::limits;

use super::Shared;
use super::auth::{Operator, forbid};
use super::body::{Json, Path};
use super::problem::Fault;
use crate::audit::{self, Line};
use crate::store::accounts;

/// Whether a text can be an account's name.
pub fn is_user_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
}

/// All accounts.
#[utoipa::path(get, path = "/api/v1/accounts", tag = "accounts", security(("token" = [])), responses(
    (status = 200, body = Vec<Account>), (status = 403, body = Problem)))]
pub(super) async fn list(State(server): Shared) -> Result<Json<Vec<Account>>, Fault> {
    let mut connection = server.store.read().await?;
    Ok(Json(accounts::list(&mut connection).await?))
}

/// Makes an account.
#[utoipa::path(post, path = "/api/v1/accounts", tag = "accounts", security(("token" = [])), request_body = NewAccount,
    responses((status = 201, body = Account), (status = 403, body = Problem), (status = 409, body = Problem),
    (status = 422, body = Problem)))]
pub(super) async fn add(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Json(wanted): Json<NewAccount>,
) -> Result<(StatusCode, Json<Account>), Fault> {
    let NewAccount {
        user,
        display_name,
        role,
        password,
    } = wanted;
    if !is_user_name(&user) {
        return Err(Fault::invalid(
            "An account's name has 1 to 64 letters, digits, dots and dashes.",
        ));
    }
    let display_name = display_name.trim().to_owned();
    if display_name.is_empty() || display_name.len() > limits::LABEL {
        return Err(Fault::invalid(format!(
            "A display name has 1 to {} bytes: people at the devices read it.",
            limits::LABEL
        )));
    }
    let hash = server.passwords.hash(password).await?;
    let account = Account {
        user,
        display_name: umbra_protocol::refusal::clip(display_name),
        role,
    };
    let now = server.clock.now();
    let mut tx = server.store.begin().await?;
    if !accounts::add(&mut tx, now, &account, &hash).await? {
        return Err(Fault::new(
            StatusCode::CONFLICT,
            "account_exists",
            format!("There is an account “{}” already.", account.user),
        ));
    }
    let line = Line::new(operator.actor(), "account.created", &account.user);
    audit::append(&mut tx, now, line.detail(accounts::role_word(role))).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(account)))
}

/// Removes an account and ends its log-ins.
#[utoipa::path(delete, path = "/api/v1/accounts/{user}", tag = "accounts", security(("token" = [])),
    params(("user" = String, Path, description = "Account name")),
    responses((status = 204), (status = 403, body = Problem), (status = 404, body = Problem),
    (status = 409, body = Problem)))]
pub(super) async fn remove(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Path(user): Path<String>,
) -> Result<StatusCode, Fault> {
    let mut tx = server.store.begin().await?;
    if !accounts::remove(&mut tx, &user).await? {
        return Err(Fault::unknown("account"));
    }
    if accounts::administrators(&mut tx).await? == 0 {
        // The transaction is dropped: nothing happened.
        return Err(Fault::new(
            StatusCode::CONFLICT,
            "last_administrator",
            "This is the last administrator's account: make another one first.",
        ));
    }
    let line = Line::new(operator.actor(), "account.removed", &user);
    audit::append(&mut tx, server.clock.now(), line).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sets a password and ends all log-ins of that account. Administrators set anybody's, all others their own.
#[utoipa::path(put, path = "/api/v1/accounts/{user}/password", tag = "accounts", security(("token" = [])),
    params(("user" = String, Path, description = "Account name")), request_body = NewPassword,
    responses((status = 204), (status = 403, body = Problem), (status = 404, body = Problem),
    (status = 422, body = Problem)))]
pub(super) async fn set_password(
    State(server): Shared,
    Extension(operator): Extension<Operator>,
    Path(user): Path<String>,
    Json(NewPassword { password }): Json<NewPassword>,
) -> Result<StatusCode, Fault> {
    let own = operator.user.eq_ignore_ascii_case(&user);
    if !own && operator.role != Role::Administrator {
        return Err(forbid(&server, &operator, "put", "password of another account").await);
    }
    let hash = server.passwords.hash(password).await?;
    let mut tx = server.store.begin().await?;
    if !accounts::set_password(&mut tx, &user, &hash).await? {
        return Err(Fault::unknown("account"));
    }
    let line = Line::new(operator.actor(), "account.password_set", &user);
    audit::append(&mut tx, server.clock.now(), line).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
