//! The interface over real connections, with a fake device behind it.

mod fake;
mod past;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use ouisync_api::{
    client::{Client, ClientError},
    data::{CreateRequest, JoinRequest, Role},
    error::ErrorKind,
    event::Event,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use self::fake::Fake;
use super::{
    connections::{Connections, MAX_CONNECTIONS},
    routes::{Api, MAX_BODY, router},
};
use crate::home::Token;

const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

struct Server {
    address: SocketAddr,
    fake: Arc<Fake>,
    stopping: CancellationToken,
    connections: Connections,
    document: serde_json::Value,
}

impl Server {
    async fn start() -> Self {
        let fake = Arc::new(Fake::new());
        let stopping = CancellationToken::new();
        let token = Token::parse(TOKEN).unwrap();
        let (router, document) = router(Api {
            service: fake.clone(),
            token,
            stopping: stopping.clone(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Connections::new(router, stopping.clone());
        connections.listen(listener);
        Self {
            address,
            fake,
            stopping,
            connections,
            document: serde_json::to_value(document).unwrap(),
        }
    }

    fn client(&self) -> Client {
        Client::at(self.address, TOKEN.to_owned())
    }

    /// Sends raw text; gives the status and the rest.
    async fn raw(&self, text: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer))
            .await
            .unwrap()
            .unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0);
        (status, answer)
    }

    async fn get(&self, path: &str, headers: &str) -> u16 {
        self.raw(&format!(
            "GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n"
        ))
        .await
        .0
    }
}

fn kind(error: &ClientError) -> ErrorKind {
    error.body().kind
}

#[tokio::test]
async fn only_the_token_opens_and_only_health_needs_none() {
    let server = Server::start().await;
    let host = "Host: localhost\r\n";
    assert_eq!(server.get("/v1/health", host).await, 200);
    assert_eq!(server.get("/v1/device", host).await, 401);
    assert_eq!(server.get("/v1/nowhere", host).await, 401);
    let wrong = TOKEN.replace('0', "1");
    assert_eq!(
        server
            .get(
                "/v1/device",
                &format!("{host}Authorization: Bearer {wrong}\r\n")
            )
            .await,
        401
    );
    assert_eq!(
        server
            .get(
                "/v1/device",
                &format!("{host}Authorization: Basic {TOKEN}\r\n")
            )
            .await,
        401
    );
    let twice = format!("{host}Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer {TOKEN}\r\n");
    assert_eq!(server.get("/v1/device", &twice).await, 401);
    assert_eq!(
        server
            .get(
                "/v1/device",
                &format!("{host}Authorization: Bearer {TOKEN}\r\n")
            )
            .await,
        200
    );
    assert_eq!(
        server
            .get(
                "/v1/nowhere",
                &format!("{host}Authorization: Bearer {TOKEN}\r\n")
            )
            .await,
        404
    );
    let error = Client::at(server.address, wrong)
        .device()
        .await
        .unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Unauthorized);
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    let server = Server::start().await;
    let own = format!("Authorization: Bearer {TOKEN}\r\n");
    let status = async |headers: &str| server.get("/v1/device", &format!("{own}{headers}")).await;
    assert_eq!(status("Host: evil.example\r\n").await, 403);
    assert_eq!(status("Host: localhost.evil.example\r\n").await, 403);
    assert_eq!(status("Host: localhost\r\nHost: localhost\r\n").await, 403);
    assert_eq!(status("").await, 403);
    assert_eq!(status("Host: 127.0.0.1:4000\r\n").await, 200);
    assert_eq!(status("Host: [::1]:4000\r\n").await, 200);
    assert_eq!(
        status("Host: 127.0.0.1:4000\r\nOrigin: http://127.0.0.1:4000\r\n").await,
        200
    );
    assert_eq!(
        status("Host: 127.0.0.1:4000\r\nOrigin: http://127.0.0.1:5000\r\n").await,
        403
    );
    assert_eq!(
        status("Host: 127.0.0.1:4000\r\nOrigin: https://evil.example\r\n").await,
        403
    );
    assert_eq!(status("Host: localhost\r\nOrigin: null\r\n").await, 403);
    assert_eq!(
        status("Host: localhost\r\nSec-Fetch-Site: cross-site\r\n").await,
        403
    );
    assert_eq!(
        status("Host: localhost\r\nSec-Fetch-Site: same-origin\r\n").await,
        200
    );
}

#[tokio::test]
async fn bodies_are_limited_and_wrong_ones_explained() {
    let server = Server::start().await;
    let post = async |body: &str, kind: &str| {
        let length = body.len();
        server
            .raw(&format!(
                "POST /v1/connect HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
            ))
            .await
    };
    assert_eq!(
        post(r#"{"address":"a@127.0.0.1:1"}"#, "application/json")
            .await
            .0,
        200
    );
    let (status, answer) = post(r#"{"adress":"typo"}"#, "application/json").await;
    assert_eq!(status, 422);
    assert!(
        answer.contains(r#""kind":"invalid""#) && answer.contains("adress"),
        "{answer}"
    );
    assert_eq!(post("{", "application/json").await.0, 400);
    assert_eq!(
        post(r#"{"address":"a@127.0.0.1:1"}"#, "text/plain").await.0,
        415
    );
    let long = format!(r#"{{"address":"{}"}}"#, "x".repeat(MAX_BODY));
    assert_eq!(post(&long, "application/json").await.0, 413);
}

#[tokio::test]
async fn every_route_is_in_the_document_and_answers() {
    let server = Server::start().await;
    let paths = server.document["paths"].as_object().unwrap();
    let mut count = 0;
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(operation["responses"].is_object(), "{method} {path}");
            let real = path.replace("{folder}", "Notes").replace("{member}", "Bob");
            let method = method.to_uppercase();
            let head = format!(
                "{method} {real} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n"
            );
            let (status, _) = server.raw(&format!("{head}\r\n")).await;
            assert!(
                status == 401 || path == "/v1/health",
                "{method} {path} without a token: {status}"
            );
            if path != "/v1/events" {
                let (status, answer) = server
                    .raw(&format!("{head}Authorization: Bearer {TOKEN}\r\n\r\n"))
                    .await;
                // The device of these tests doesn't know every folder; a missing route says something else.
                let asked = answer.contains("there is no such folder");
                assert!(
                    asked || !matches!(status, 404 | 405 | 500 | 0),
                    "{method} {path}: {status} {answer}"
                );
            }
            count += 1;
        }
    }
    // The routes of the source, counted where they are written.
    let sources = [
        include_str!("routes.rs"),
        include_str!("past.rs"),
        include_str!("retention.rs"),
        include_str!("directory.rs"),
        include_str!("conflicts.rs"),
    ];
    let attributes: usize = sources
        .iter()
        .map(|source| source.matches("#[utoipa::path(").count())
        .sum();
    assert_eq!(count, attributes);
    assert!(
        server.document["components"]["schemas"]["FolderStatus"]["properties"]["missing_bytes"]
            .is_object()
    );
    assert_eq!(server.client().openapi().await.unwrap(), server.document);
}

#[tokio::test]
async fn requests_reach_the_device_and_answers_come_back() {
    let server = Server::start().await;
    let client = server.client();
    assert_eq!(client.device().await.unwrap().name, "fake");
    assert!(client.health().await.unwrap().ok);
    let folder = client
        .create(&CreateRequest {
            name: "Nötes/..?#%".into(),
            path: Some("/n".into()),
        })
        .await
        .unwrap();
    assert_eq!(folder.name, "Nötes/..?#%");
    assert_eq!(
        client.status("Nötes/..?#%").await.unwrap().name,
        "Nötes/..?#%"
    );
    client
        .set_role("Notes", "Bob's laptop", Role::Reader)
        .await
        .unwrap();
    client.remove_member("Notes", "../x").await.unwrap();
    assert_eq!(
        server.fake.calls(),
        [
            "create",
            "status Nötes/..?#%",
            "role Notes Bob's laptop reader",
            "remove Notes ../x"
        ]
    );
    let error = client.status("missing").await.unwrap_err();
    assert_eq!(
        (kind(&error), error.body().hint.is_empty()),
        (ErrorKind::NotFound, false)
    );
    let error = client
        .wait("slow", Some(Duration::from_millis(10)))
        .await
        .unwrap_err();
    assert_eq!(kind(&error), ErrorKind::TimedOut);
    client.wait("Notes", None).await.unwrap();
}

#[tokio::test]
async fn a_check_reports_and_stops_with_its_reader() {
    let server = Server::start().await;
    let client = server.client();
    let mut seen = Vec::new();
    let outcome = client
        .verify(None)
        .await
        .unwrap()
        .outcome(|done, total| seen.push((done, total)))
        .await
        .unwrap();
    assert!(outcome.ok && outcome.packs == 3);
    assert!(seen.contains(&(5, 10)), "{seen:?}");
    let error = client
        .verify(Some("missing"))
        .await
        .unwrap()
        .outcome(|_, _| {})
        .await
        .unwrap_err();
    assert_eq!(kind(&error), ErrorKind::NotFound);
    let checking = client.verify(Some("endless")).await.unwrap();
    server.fake.checking.notified().await;
    drop(checking);
    tokio::time::timeout(
        Duration::from_secs(20),
        server.fake.check_stopped.notified(),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn an_abandoned_wait_ends() {
    let server = Server::start().await;
    let client = server.client();
    let waiting = tokio::spawn(async move { client.wait("slow", None).await });
    server.fake.waiting.notified().await;
    waiting.abort();
    tokio::time::timeout(Duration::from_secs(20), server.fake.wait_dropped.notified())
        .await
        .unwrap();
}

#[tokio::test]
async fn events_arrive_and_end_with_the_daemon() {
    let server = Server::start().await;
    let mut events = server.client().events().await.unwrap();
    server.fake.tell(Event::FolderChanged {
        folder: "00".into(),
    });
    server.fake.tell(Event::Warning {
        folder: None,
        message: "two\nlines".into(),
    });
    assert_eq!(
        events.next().await.unwrap(),
        Some(Event::FolderChanged {
            folder: "00".into()
        })
    );
    assert_eq!(
        events.next().await.unwrap(),
        Some(Event::Warning {
            folder: None,
            message: "two\nlines".into()
        })
    );
    let client = server.client();
    let waiting = tokio::spawn(async move { client.wait("slow", None).await });
    server.fake.waiting.notified().await;
    server.stopping.cancel();
    assert_eq!(events.next().await.unwrap(), Some(Event::Stopping));
    assert_eq!(events.next().await.unwrap(), None);
    assert_eq!(
        kind(&waiting.await.unwrap().unwrap_err()),
        ErrorKind::Unavailable
    );
    assert!(server.connections.finish(Duration::from_secs(20)).await);
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"GET /v1/health HTTP/1.1\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let server = Server::start().await;
    let mut idle = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        idle.push(TcpStream::connect(server.address).await.unwrap());
    }
    let error = server.client().device().await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Unavailable, "{error}");
    assert!(!error.body().hint.is_empty());
    // As soon as somebody goes there is a place again.
    idle.truncate(MAX_CONNECTIONS / 2);
    let begun = std::time::Instant::now();
    while let Err(error) = server.client().device().await {
        assert_eq!(kind(&error), ErrorKind::Unavailable, "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}

#[tokio::test]
async fn links_and_passphrases_are_taken_from_bodies_only() {
    let server = Server::start().await;
    for (path, methods) in server.document["paths"].as_object().unwrap() {
        for operation in methods.as_object().unwrap().values() {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                // Names, places in a folder, times and numbers: nothing of it opens anything.
                let plain = ["folder", "member", "path", "since", "until", "limit"];
                assert!(
                    plain.contains(&parameter["name"].as_str().unwrap()),
                    "{path}"
                );
            }
        }
    }
    let request = JoinRequest {
        link: "x".into(),
        path: None,
        name: None,
        timeout_seconds: None,
    };
    assert_eq!(
        server.client().join(&request).await.unwrap().role,
        Some(Role::Safe)
    );
}
