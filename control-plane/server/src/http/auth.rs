//! Who asks, and whether they may: looked up in the table of routes before any handler runs.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use umbra_protocol::api::Role;

use super::problem::Fault;
use super::{Access, ROUTES};
use crate::audit::{self, Actor, Line};
use crate::random;
use crate::server::Server;
use crate::store::accounts;

/// The account that asks.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    pub(super) user: String,
    pub(super) display_name: String,
    pub(super) role: Role,
    pub(super) token_hash: String,
}

impl Operator {
    pub(super) fn actor(&self) -> Actor {
        Actor::Account(self.user.clone())
    }
}

pub(super) async fn authorise(
    State(server): State<Arc<Server>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Fault> {
    let path = request.extensions().get::<MatchedPath>();
    let method = request.method().as_str();
    // HEAD is answered by what answers GET.
    let method = if method == "HEAD" { "GET" } else { method };
    let route = path.and_then(|path| {
        ROUTES
            .iter()
            .find(|route| route.path == path.as_str() && route.method.eq_ignore_ascii_case(method))
    });
    let Some(route) = route else {
        // A known path with another method: its fallback answers, and does nothing else.
        return Ok(next.run(request).await);
    };
    if route.access == Access::Anyone {
        return Ok(next.run(request).await);
    }
    let operator = who(
        &server,
        request.headers().get(header::AUTHORIZATION).cloned(),
    )
    .await?;
    if !route.access.allows(operator.role) {
        return Err(forbid(&server, &operator, route.method, route.path).await);
    }
    request.extensions_mut().insert(operator);
    Ok(next.run(request).await)
}

async fn who(server: &Server, header: Option<HeaderValue>) -> Result<Operator, Fault> {
    let refused = || {
        Fault::new(
            StatusCode::UNAUTHORIZED,
            "not_logged_in",
            "You are not logged in, or your log-in has ended: log in again.",
        )
    };
    let token = header
        .as_ref()
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(refused)?;
    let token_hash = random::digest(token);
    let mut connection = server.store.read().await?;
    let account = accounts::by_token(&mut connection, server.clock.now(), &token_hash)
        .await?
        .ok_or_else(refused)?;
    Ok(Operator {
        user: account.user,
        display_name: account.display_name,
        role: account.role,
        token_hash,
    })
}

/// Refuses what the role does not allow, and writes that down.
pub(super) async fn forbid(
    server: &Server,
    operator: &Operator,
    action: &str,
    subject: &str,
) -> Fault {
    let fault = Fault::new(
        StatusCode::FORBIDDEN,
        "forbidden",
        format!(
            "Your account has the role “{}”, which does not allow this: ask an administrator.",
            accounts::role_word(operator.role)
        ),
    );
    let line = Line::new(
        operator.actor(),
        "api.refused",
        format!("{action} {subject}"),
    )
    .refused("forbidden");
    let written = async {
        let mut tx = server.store.begin().await?;
        audit::append(&mut tx, server.clock.now(), line).await?;
        tx.commit().await.map_err(crate::store::StoreError::from)
    };
    match written.await {
        Ok(()) => fault,
        Err(error) => error.into(),
    }
}
