//! Just enough HTTP to configure syncthing over its REST interface.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, bail};
use serde_json::Value;

/// A REST server on loopback.
pub(super) struct Rest {
    pub(super) port: u16,
    pub(super) key: String,
}

impl Rest {
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.request("GET", path, "")
    }

    pub(super) fn put(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        self.request("PUT", path, &body.to_string()).map(|_| ())
    }

    fn request(&self, method: &str, path: &str, body: &str) -> anyhow::Result<Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        // HTTP/1.0: the answer ends with the connection and is never chunked.
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nX-API-Key: {}\r\nContent-Length: {}\r\n\r\n{body}",
            self.key,
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        let status = head.split_whitespace().nth(1).unwrap_or_default();
        if status != "200" {
            bail!("{method} {path}: {status} {body}");
        }
        Ok(serde_json::from_str(body).unwrap_or(Value::Null))
    }
}
