//! Server-sent events as bytes: a parser without I/O.
//!
//! Follows the HTML standard's event stream format as far as a machine's peer needs it: `data` lines, comments, LF or
//! CRLF. `event`, `id` and `retry` are skipped.

use thiserror::Error;

/// Most bytes of one event.
pub const MAX_EVENT: usize = 1 << 20;

/// An event is longer than [`MAX_EVENT`].
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("an event is longer than {MAX_EVENT} bytes")]
pub struct EventTooLong;

/// Cuts a stream of bytes into events.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
}

impl Parser {
    /// Takes the next bytes; gives the data of the events that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, EventTooLong> {
        let mut events = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                if self.line.len() + self.data.len() >= MAX_EVENT {
                    return Err(EventTooLong);
                }
                self.line.push(byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if line.is_empty() {
                if std::mem::take(&mut self.has_data) {
                    events.push(std::mem::take(&mut self.data));
                }
            } else if let Some(rest) = line.strip_prefix(b"data:") {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data
                    .extend_from_slice(rest.strip_prefix(b" ").unwrap_or(rest));
            }
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_whatever_the_cuts() {
        let stream = b": hello\n\ndata: {\"a\":1}\n\nevent: x\r\ndata:two\r\ndata: lines\r\n\r\nid: 5\n\ndata: unfinished\n";
        let expected = [b"{\"a\":1}".to_vec(), b"two\nlines".to_vec()];
        for size in 1..stream.len() {
            let mut parser = Parser::default();
            let events: Vec<_> = stream
                .chunks(size)
                .flat_map(|part| parser.push(part).unwrap())
                .collect();
            assert_eq!(events, expected, "in parts of {size}");
        }
    }

    #[test]
    fn endless_lines_are_refused() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(&vec![b'x'; MAX_EVENT + 1]), Err(EventTooLong));
    }
}
