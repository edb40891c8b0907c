//! A client of the gateway: RESP2, blocking, with pipelines.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::wait::eventually;

/// How long an answer may take. Then the outcome is unknown.
const PATIENCE: Duration = Duration::from_secs(12);
/// How long a command that must succeed may be refused before it does.
const REFUSED_MAX: Duration = Duration::from_secs(30);
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);

/// A command's words.
pub type Words = Vec<String>;

/// A command written in one line; words are separated by blanks.
#[must_use]
pub fn words(line: &str) -> Words {
    line.split_whitespace().map(str::to_owned).collect()
}

/// What the server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+`: a status.
    Simple(String),
    /// `-`: an error.
    Error(String),
    /// `:`: a number.
    Int(i64),
    /// `$`: a string.
    Bulk(String),
    /// `$-1` or `*-1`.
    Nil,
    /// `*`: an array.
    Array(Vec<Self>),
}

impl Reply {
    /// `+OK`.
    #[must_use]
    pub fn ok() -> Self {
        Self::Simple("OK".to_owned())
    }

    /// A string.
    #[must_use]
    pub fn bulk(text: &str) -> Self {
        Self::Bulk(text.to_owned())
    }

    /// A string's text; `None` for nil.
    ///
    /// # Panics
    /// When it is something else.
    #[must_use]
    #[track_caller]
    pub fn text(&self) -> Option<&str> {
        self.as_text().unwrap_or_else(|failure| panic!("{failure:?}"))
    }

    /// A string's text; `None` for nil.
    ///
    /// # Errors
    /// [`Failure::Nonsense`] when it is something else.
    pub fn as_text(&self) -> Result<Option<&str>, Failure> {
        match self {
            Self::Bulk(text) => Ok(Some(text)),
            Self::Nil => Ok(None),
            other => Err(Failure::Nonsense(format!("expected a string, got {other:?}"))),
        }
    }

    /// An array's elements.
    ///
    /// # Panics
    /// When it is something else.
    #[must_use]
    #[track_caller]
    pub fn elements(self) -> Vec<Self> {
        match self {
            Self::Array(elements) => elements,
            other => panic!("expected an array, got {other:?}"),
        }
    }

    /// An array's elements, so many.
    ///
    /// # Errors
    /// [`Failure::Nonsense`] when it is something else.
    pub fn as_elements(&self, count: usize) -> Result<&[Self], Failure> {
        match self {
            Self::Array(elements) if elements.len() == count => Ok(elements),
            other => Err(Failure::Nonsense(format!("expected {count} elements, got {other:?}"))),
        }
    }
}

/// Why a command has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The server says that it was not executed.
    Refused(String),
    /// The connection ended or no answer came: it may have been executed.
    Unknown(String),
    /// It was answered by something that is no answer to it.
    Nonsense(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Unknown(error.to_string())
    }
}

/// How an `EXEC` ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Execution {
    /// Every command was executed; their replies.
    Done(Vec<Reply>),
    /// A watched key had changed: nothing was executed.
    Conflict,
}

/// A connection. After [`Failure::Unknown`] it is of no use any more.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects to a gateway.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(gateway: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&gateway, CONNECT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends commands in one piece and reads one reply for each; errors are
    /// replies too.
    ///
    /// # Errors
    /// When the connection ends before the last reply.
    pub fn pipeline(&mut self, commands: &[Words]) -> io::Result<Vec<Reply>> {
        let mut wire = Vec::new();
        for command in commands {
            write!(wire, "*{}\r\n", command.len())?;
            for word in command {
                write!(wire, "${}\r\n{word}\r\n", word.len())?;
            }
        }
        self.stream.get_mut().write_all(&wire)?;
        commands.iter().map(|_| self.read()).collect()
    }

    /// Runs one command.
    ///
    /// # Errors
    /// [`Failure::Refused`] for every error reply.
    pub fn run(&mut self, command: Words) -> Result<Reply, Failure> {
        match self.pipeline(&[command])?.remove(0) {
            Reply::Error(text) => Err(Failure::Refused(text)),
            reply => Ok(reply),
        }
    }

    /// Runs a command that must succeed, given in one line. What the server
    /// says was not executed, because a group has no leader at the moment, is
    /// sent again.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn must(&mut self, line: &str) -> Reply {
        eventually("a command is executed", REFUSED_MAX, || match self.run(words(line)) {
            Ok(reply) => Ok(reply),
            Err(Failure::Refused(text)) if text.starts_with("REFUSED") => Err(text),
            Err(failure) => panic!("{line}: {failure:?}"),
        })
    }

    /// Runs commands as one transaction.
    ///
    /// # Errors
    /// [`Failure::Refused`] when nothing was executed.
    pub fn transaction(&mut self, commands: &[Words]) -> Result<Execution, Failure> {
        let mut wrapped = vec![words("MULTI")];
        wrapped.extend_from_slice(commands);
        wrapped.push(words("EXEC"));
        match self.pipeline(&wrapped)?.pop() {
            Some(Reply::Array(replies)) => Ok(Execution::Done(replies)),
            Some(Reply::Nil) => Ok(Execution::Conflict),
            Some(Reply::Error(text)) => Err(Failure::Refused(text)),
            other => Err(Failure::Unknown(format!("EXEC was answered by {other:?}"))),
        }
    }

    /// Runs commands, each in one line, as a transaction that must commit.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn must_execute(&mut self, lines: &[&str]) -> Vec<Reply> {
        let commands: Vec<Words> = lines.iter().map(|line| words(line)).collect();
        eventually("a transaction is executed", REFUSED_MAX, || match self.transaction(&commands) {
            Ok(Execution::Done(replies)) => Ok(replies),
            Err(Failure::Refused(text)) if text.starts_with("REFUSED") => Err(text),
            other => panic!("{lines:?}: {other:?}"),
        })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches("\r\n").to_owned())
    }

    fn read(&mut self) -> io::Result<Reply> {
        let malformed =
            |line: &str| io::Error::new(io::ErrorKind::InvalidData, format!("reply {line:?}"));
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| malformed(&line))?;
        let number = || rest.parse::<i64>().map_err(|_| malformed(&line));
        Ok(match kind {
            "+" => Reply::Simple(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Int(number()?),
            "$" => match usize::try_from(number()?) {
                Err(_) => Reply::Nil,
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.stream.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Reply::Bulk(String::from_utf8_lossy(&bytes).into_owned())
                }
            },
            "*" => match usize::try_from(number()?) {
                Err(_) => Reply::Nil,
                Ok(length) => {
                    Reply::Array((0..length).map(|_| self.read()).collect::<io::Result<_>>()?)
                }
            },
            _ => return Err(malformed(&line)),
        })
    }
}
