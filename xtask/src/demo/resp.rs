//! A blocking client of the Redis protocol (RESP2), with pipelining.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a node may take to accept a connection; on one machine it does so
/// at once or not at all.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// How long an answer may take. Longer than any election, so that what runs
/// into it is a fault.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// Limits on what a node may answer: far more than the demo asks for.
const LINE_BYTES_MAX: u64 = 64 << 10;
const BULK_BYTES_MAX: u64 = 64 << 20;
const ARRAY_ELEMENTS_MAX: u64 = 1 << 20;
const DEPTH_MAX: usize = 4;

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Reply {
    /// No value, or no array.
    Nil,
    /// A short text such as `OK`.
    Simple(String),
    /// An error: its code, a space, a text.
    Error(String),
    /// A number.
    Integer(i64),
    /// Bytes, which are text in everything the demo stores.
    Bulk(String),
    /// Several answers.
    Array(Vec<Reply>),
}

impl Reply {
    /// Whether this is `+OK`.
    pub(super) fn is_ok(&self) -> bool {
        matches!(self, Self::Simple(text) if text == "OK")
    }

    /// The error's text when the node says that nothing was executed and
    /// trying again is safe.
    pub(super) fn not_executed(&self) -> Option<&str> {
        const CODES: [&str; 3] = ["REFUSED ", "LOADING ", "EXECABORT "];
        match self {
            Self::Error(text) if CODES.iter().any(|code| text.starts_with(code)) => Some(text),
            _ => None,
        }
    }
}

/// A connection to a gateway. After an error it is of no use: which answers
/// are still to come is unknown.
#[derive(Debug)]
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
    outgoing: Vec<u8>,
    /// Requests whose answers have not been read.
    pending: usize,
}

impl Connection {
    /// Connects to a gateway.
    pub(super) fn open(gateway: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&gateway, CONNECT_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        Ok(Self { stream: BufReader::new(stream), outgoing: Vec::new(), pending: 0 })
    }

    /// Puts a request behind those that wait to be sent.
    pub(super) fn push(&mut self, words: &[&str]) {
        self.outgoing.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            self.outgoing.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        self.pending += 1;
    }

    /// Sends what waits in one write and reads all answers, in order.
    pub(super) fn finish(&mut self) -> io::Result<Vec<Reply>> {
        self.stream.get_mut().write_all(&self.outgoing)?;
        self.outgoing.clear();
        let count = std::mem::take(&mut self.pending);
        (0..count).map(|_| self.read(DEPTH_MAX)).collect()
    }

    /// Sends one request and reads its answer.
    pub(super) fn call(&mut self, words: &[&str]) -> io::Result<Reply> {
        self.push(words);
        self.finish()?.pop().ok_or_else(|| invalid("no answer to a request"))
    }

    fn read(&mut self, depth: usize) -> io::Result<Reply> {
        let line = self.read_line()?;
        let mut rest = line.chars();
        match (rest.next(), rest.as_str()) {
            (Some('+'), text) => Ok(Reply::Simple(text.to_owned())),
            (Some('-'), text) => Ok(Reply::Error(text.to_owned())),
            (Some(':'), number) => number.parse().map(Reply::Integer).map_err(|_| odd(&line)),
            (Some('$' | '*'), "-1") => Ok(Reply::Nil),
            (Some('$'), length) => self.read_bulk(bounded(length, BULK_BYTES_MAX, &line)?),
            (Some('*'), count) if depth > 0 => {
                let count = bounded(count, ARRAY_ELEMENTS_MAX, &line)?;
                let elements: io::Result<Vec<Reply>> =
                    (0..count).map(|_| self.read(depth - 1)).collect();
                elements.map(Reply::Array)
            }
            _ => Err(odd(&line)),
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(text) => Ok(text.to_owned()),
            None if line.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
            None => Err(odd(&line)),
        }
    }

    fn read_bulk(&mut self, length: u64) -> io::Result<Reply> {
        let mut bytes = Vec::new();
        self.stream.by_ref().take(length + 2).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length + 2 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8(bytes).map_err(|_| invalid("an answer is no text"))?;
        let text = text.strip_suffix("\r\n").ok_or_else(|| invalid("an answer has no end"))?;
        Ok(Reply::Bulk(text.to_owned()))
    }
}

fn bounded(number: &str, max: u64, line: &str) -> io::Result<u64> {
    number.parse().ok().filter(|number| *number <= max).ok_or_else(|| odd(line))
}

fn odd(line: &str) -> io::Error {
    invalid(&format!("not an answer of the Redis protocol: '{}'", line.escape_debug()))
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests;
