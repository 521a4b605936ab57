//! Who may ask: only this machine, only with the token, never a web page of somebody else's.

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use ouisync_api::error::{ErrorBody, ErrorKind};

use super::{answer::Refusal, routes::Api};

/// Time for a request that doesn't wait for something by its nature.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// Checks host, origin and token before anything else is looked at.
pub(super) async fn check(State(api): State<Api>, request: Request, next: Next) -> Response {
    match admit(&api, request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// Gives up on a request that takes too long.
pub(super) async fn limit(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refusal::new(ErrorBody::new(
            ErrorKind::TimedOut,
            format!("not done within {} seconds", REQUEST_LIMIT.as_secs()),
            "Look at the daemon's log and try again.",
        ))
        .into_response(),
    }
}

/// Ends waiting requests when the daemon stops.
pub(super) async fn until_stopping(
    State(api): State<Api>,
    request: Request,
    next: Next,
) -> Response {
    tokio::select! {
        response = next.run(request) => response,
        () = api.stopping.cancelled() => Refusal::new(ErrorBody::new(
            ErrorKind::Unavailable,
            "the daemon is shutting down",
            "Start it again with 'ouisync serve'.",
        ))
        .into_response(),
    }
}

fn admit(api: &Api, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    let forbidden = |message: &str| {
        Refusal::with_status(
            StatusCode::FORBIDDEN,
            ErrorBody::new(
                ErrorKind::Unauthorized,
                message,
                "Ask from this machine, as localhost.",
            ),
        )
    };
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts
        .next()
        .and_then(|host| host.to_str().ok())
        .ok_or_else(|| forbidden("the request names no host"))?;
    if hosts.next().is_some() || !is_local(host) {
        return Err(forbidden(
            "the request is for another host than this machine",
        ));
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let own = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.strip_prefix("http://"))
            .is_some_and(|origin| origin == host);
        if !own {
            return Err(forbidden("the request comes from a page of another origin"));
        }
    }
    if let Some(site) = headers.get("sec-fetch-site")
        && site != "same-origin"
        && site != "none"
    {
        return Err(forbidden("the request comes from a page of another site"));
    }
    if path == "/v1/health" {
        return Ok(());
    }
    let mut shown = headers.get_all(header::AUTHORIZATION).iter();
    let token = shown
        .next()
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if shown.next().is_some() || !token.is_some_and(|token| api.token.matches(token)) {
        return Err(Refusal::new(ErrorBody::new(
            ErrorKind::Unauthorized,
            "the token is missing or wrong",
            "Send 'Authorization: Bearer TOKEN' with the content of api.token in the daemon's home.",
        )));
    }
    Ok(())
}

/// A `Host` of this machine's own names, with or without a port: a name that an attacker's DNS points here is refused.
fn is_local(host: &str) -> bool {
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|own| {
        host.strip_prefix(own).is_some_and(|rest| {
            rest.is_empty()
                || rest
                    .strip_prefix(':')
                    .is_some_and(|port| port.parse::<u16>().is_ok())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_names_are_local() {
        for host in [
            "localhost",
            "localhost:80",
            "127.0.0.1:5000",
            "[::1]",
            "[::1]:9",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.2",
            "localhost:",
            "localhost:x",
            "::1",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
