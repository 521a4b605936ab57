//! Requests about the past over real connections.

use std::time::Duration;

use ouisync_api::{
    error::ErrorKind,
    history::{ContentRequest, HistoryRequest, Phase, RestoreRequest, Selection},
};

use super::{Server, TOKEN, kind};

fn selection(path: &str) -> Selection {
    Selection {
        path: Some(path.to_owned()),
        ..Selection::default()
    }
}

fn content(path: &str) -> ContentRequest {
    ContentRequest {
        selection: selection(path),
    }
}

#[tokio::test]
async fn a_question_travels_as_a_query() {
    let server = Server::start().await;
    let request = HistoryRequest {
        path: Some("ä b/c&d=e".to_owned()),
        limit: Some(7),
        ..HistoryRequest::default()
    };
    let found = server.client().history("No tes", &request).await.unwrap();
    assert_eq!(found.path, "ä b/c&d=e");
    let asked = server.fake.calls().pop().unwrap();
    assert_eq!(asked, format!("history No tes {request:?}"));
    let wrong = server
        .get(
            "/v1/folders/N/history?nonsense=1",
            &format!(
                "Host: localhost\r\nAuthorization: Bearer {}\r\n",
                super::TOKEN
            ),
        )
        .await;
    assert_eq!(wrong, 400);
}

#[tokio::test]
async fn long_work_tells_its_progress_and_how_it_ended() {
    let server = Server::start().await;
    let client = server.client();
    let mut told = Vec::new();
    let working = client.find_version("N", &content("a")).await.unwrap();
    let found = working
        .outcome(|phase, done, total| told.push((phase, done, total)))
        .await
        .unwrap();
    assert_eq!((found.path.as_str(), found.size), ("a", 5));
    assert!(told.is_empty() || told == [(Phase::Fetching, 1, 2)]);
    let request = RestoreRequest {
        selection: selection("missing"),
        ..RestoreRequest::default()
    };
    let working = client.restore("N", &request).await.unwrap();
    let error = working.outcome(|_, _, _| {}).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::NotFound);
}

#[tokio::test]
async fn work_stops_when_nobody_waits_for_it() {
    let server = Server::start().await;
    let request = RestoreRequest {
        selection: selection("endless"),
        ..RestoreRequest::default()
    };
    let working = server.client().restore("N", &request).await.unwrap();
    server.fake.checking.notified().await;
    drop(working);
    tokio::time::timeout(
        Duration::from_secs(20),
        server.fake.check_stopped.notified(),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn who_wants_the_outcome_alone_is_waited_for() {
    let server = Server::start().await;
    let body = r#"{"path":"a"}"#;
    let length = body.len();
    let (status, answer) = server
        .raw(&format!(
            "POST /v1/folders/N/fetch HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn content_that_ends_early_is_not_taken_for_whole() {
    let server = Server::start().await;
    let client = server.client();
    let mut whole = client.content("N", &content("a")).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(part) = whole.next().await.unwrap() {
        bytes.extend_from_slice(&part);
    }
    assert_eq!(bytes, b"hello");
    // The connection may break before the answer has begun.
    let failed = match client.content("N", &content("torn")).await {
        Err(_) => true,
        Ok(mut torn) => loop {
            match torn.next().await {
                Ok(Some(_)) => {}
                Ok(None) => break false,
                Err(_) => break true,
            }
        },
    };
    assert!(failed);
    let error = client
        .content("N", &content("missing"))
        .await
        .err()
        .unwrap();
    assert_eq!(kind(&error), ErrorKind::NotFound);
}
