//! A small device for tests in network namespaces: `peer SEED [ADDRESS]...`.
//!
//! Listens on UDP port 4400 with discovery on, dials the addresses until they answer, keeps a conversation going on every
//! connection, and prints a line for each thing that happens: `ready`, `lan`, `connected`, `accepted`, `heard`.

use std::time::Duration;

use bytes::Bytes;
use ouisync_net::{
    address::DeviceAddress,
    connection::Connection,
    endpoint::{Endpoint, NetOptions},
    key::DeviceKey,
    lan::LanEvent,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[allow(clippy::print_stdout)]
fn say(line: String) {
    println!("{line}");
}

async fn talk(mut connection: Connection) {
    let mut pause = tokio::time::interval(Duration::from_millis(250));
    let mut heard = false;
    loop {
        tokio::select! {
            _ = pause.tick() => {
                if connection.control_sender.send(Bytes::from_static(b"hello")).await.is_err() {
                    return;
                }
            }
            message = connection.control_receiver.recv(100) => match message {
                Ok(Some(_)) if heard => {}
                Ok(Some(_)) => {
                    heard = true;
                    let address = connection.handle.remote_address();
                    say(format!("heard {} {address:?}", connection.peer()));
                }
                _ => return,
            },
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let seed: u8 = arguments.next().ok_or("peer SEED [ADDRESS]...")?.parse()?;
    let key = DeviceKey::from_bytes([seed; 32]);
    let listen = Some("0.0.0.0:4400".parse()?);
    let endpoint = Endpoint::bind(NetOptions {
        key,
        listen,
        lan: true,
    })
    .await?;
    for address in arguments {
        let (address, endpoint): (DeviceAddress, _) = (address.parse()?, endpoint.clone());
        tokio::spawn(async move {
            loop {
                match endpoint.connect(&address).await {
                    Ok(connection) => {
                        say(format!("connected {}", connection.peer()));
                        talk(connection).await;
                    }
                    Err(error) => {
                        say(format!("failed {error}"));
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                }
            }
        });
    }
    let mut lan = endpoint.lan_events();
    tokio::spawn(async move {
        while let Some(event) = lan.recv().await {
            match event {
                LanEvent::Seen { device, sockets } => say(format!("lan {device} {sockets:?}")),
                LanEvent::Gone { device } => say(format!("gone {device}")),
            }
        }
    });
    say(format!(
        "ready {} {:?}",
        endpoint.device(),
        endpoint.addresses()
    ));
    while let Some(connection) = endpoint.accept().await {
        say(format!("accepted {}", connection.peer()));
        tokio::spawn(talk(connection));
    }
    Ok(())
}
