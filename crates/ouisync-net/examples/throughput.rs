//! Measures bulk throughput between two endpoints of this process over loopback.
//!
//! `cargo run --release -p ouisync-net --example throughput [MIB]` prints MB/s and CPU seconds per GB (both ends).

use std::time::Instant;

use bytes::Bytes;
use ouisync_model::id::PackId;
use ouisync_net::{
    address::DeviceAddress,
    bulk::{BulkHeader, FRAME_LENGTH, MAX_RECORD_FRAMES},
    endpoint::{Endpoint, NetOptions},
    key::DeviceKey,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// User and system time of this process in seconds (clock ticks are 1/100 s on Linux).
fn cpu_seconds() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mib: usize = std::env::args()
        .nth(1)
        .map_or(Ok(1024), |text| text.parse())?;
    let listen = Some("127.0.0.1:0".parse()?);
    let options = |seed| NetOptions {
        key: DeviceKey::from_bytes([seed; 32]),
        listen,
        lan: false,
    };
    let receiver = Endpoint::bind(options(1)).await?;
    let sender = Endpoint::bind(options(2)).await?;
    let address = DeviceAddress::new(receiver.device(), receiver.addresses());
    let accepting = receiver.clone();
    let receiving = tokio::spawn(async move {
        let mut connection = accepting.accept().await.ok_or("closed")?;
        let mut total = 0;
        while total < mib << 20 {
            let (_, payload) = connection.bulk_receiver.recv().await?.ok_or("finished")?;
            total += payload.len();
        }
        connection
            .control_sender
            .send(Bytes::from_static(b"done"))
            .await?;
        connection.handle.closed().await;
        Ok::<_, Failure>(())
    });
    let mut connection = sender.connect(&address).await?;
    let (start, cpu) = (Instant::now(), cpu_seconds()?);
    let header = BulkHeader {
        channel: 1,
        pack: PackId::from_bytes([0; 32]),
        first_frame: 0,
        frames: MAX_RECORD_FRAMES,
    };
    let length = MAX_RECORD_FRAMES as usize * FRAME_LENGTH;
    for number in 0..(mib << 20) / length {
        let payload = vec![number as u8; length];
        connection
            .bulk_sender
            .send(header, Bytes::from(payload))
            .await?;
    }
    connection.control_receiver.recv(64).await?;
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    let bytes = (mib << 20) as f64;
    eprintln!(
        "{mib} MiB: {wall:.2} s, {:.0} MB/s, {:.2} CPU-s/GB, sent {:.1} MB, rtt {:?}",
        bytes / 1e6 / wall,
        cpu / (bytes / 1e9),
        connection.handle.traffic().sent as f64 / 1e6,
        connection.handle.rtt(),
    );
    drop(connection);
    sender.close().await;
    receiving.await?
}
