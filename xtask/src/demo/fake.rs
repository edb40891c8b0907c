//! A small stand-in for a gateway: one map, the commands that the demo sends,
//! and faults on demand.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What goes wrong; zero for never.
#[derive(Clone, Copy, Default)]
pub(super) struct Faults {
    /// Every so many commands one is refused.
    pub(super) refuse_every: u64,
    /// Every so many commands the connection ends, the command executed but
    /// not answered.
    pub(super) drop_every: u64,
}

#[derive(Default)]
struct Store {
    /// Values and how often each was written.
    values: BTreeMap<String, (String, u64)>,
    commands: u64,
}

/// A running gateway.
pub(super) struct FakeGateway {
    pub(super) address: SocketAddr,
    store: Arc<Mutex<Store>>,
}

impl FakeGateway {
    pub(super) fn start(faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let store = Arc::new(Mutex::new(Store::default()));
        let shared = Arc::clone(&store);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let session = Session::new(stream.unwrap(), Arc::clone(&shared), faults);
                std::thread::spawn(move || session.serve());
            }
        });
        Self { address, store }
    }

    /// Changes a value behind the protocol's back.
    pub(super) fn tamper(&self, key: &str, value: &str) {
        self.store.lock().unwrap().values.insert(key.to_owned(), (value.to_owned(), 1));
    }
}

/// Answers each connection with fixed bytes, whatever it asks, and closes it.
pub(super) fn scripted(answer: impl Into<String>) -> SocketAddr {
    let answer = answer.into();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // One read: what the demo asks fits a buffer.
            let _ = stream.read(&mut [0; 4096]);
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

struct Session {
    stream: BufReader<TcpStream>,
    store: Arc<Mutex<Store>>,
    faults: Faults,
    watched: Vec<(String, u64)>,
    queue: Option<Vec<Vec<String>>>,
    is_spoiled: bool,
}

impl Session {
    fn new(stream: TcpStream, store: Arc<Mutex<Store>>, faults: Faults) -> Self {
        let stream = BufReader::new(stream);
        Self { stream, store, faults, watched: Vec::new(), queue: None, is_spoiled: false }
    }

    fn serve(mut self) {
        self.stream.get_mut().set_nodelay(true).unwrap();
        while let Some(words) = self.read() {
            let Some(answer) = self.answer(words) else { return };
            if self.stream.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn read(&mut self) -> Option<Vec<String>> {
        let count = self.read_length('*')?;
        (0..count)
            .map(|_| {
                let length = self.read_length('$')?;
                let mut word = vec![0; length + 2];
                self.stream.read_exact(&mut word).ok()?;
                word.truncate(length);
                String::from_utf8(word).ok()
            })
            .collect()
    }

    fn read_length(&mut self, kind: char) -> Option<usize> {
        let mut line = String::new();
        self.stream.read_line(&mut line).ok()?;
        line.strip_prefix(kind)?.trim_end().parse().ok()
    }

    /// The answer, unless the connection is to end.
    fn answer(&mut self, words: Vec<String>) -> Option<String> {
        let store = Arc::clone(&self.store);
        let mut store = store.lock().unwrap();
        store.commands += 1;
        // A transaction may begin whatever happens; its commands are refused.
        let is_multi = words.first().is_some_and(|word| word == "MULTI");
        let hits = |every: u64| every > 0 && store.commands.is_multiple_of(every);
        let (is_refused, is_dropped) =
            (hits(self.faults.refuse_every), hits(self.faults.drop_every));
        if is_refused && !is_multi {
            self.is_spoiled |= self.queue.is_some();
            let is_exec = words.first().is_some_and(|word| word == "EXEC");
            if is_exec {
                self.discard();
            }
            return Some("-REFUSED not executed: a test, retry\r\n".to_owned());
        }
        let answer = self.execute(&mut store, words);
        (!is_dropped).then_some(answer)
    }

    fn discard(&mut self) -> bool {
        self.queue = None;
        self.watched.clear();
        std::mem::take(&mut self.is_spoiled)
    }

    fn execute(&mut self, store: &mut Store, words: Vec<String>) -> String {
        let name = words.first().cloned().unwrap_or_default();
        match (name.as_str(), &mut self.queue) {
            ("MULTI", queue) => {
                *queue = Some(Vec::new());
                "+OK\r\n".to_owned()
            }
            ("EXEC", queue) => {
                let queue = queue.take().unwrap_or_default();
                let is_changed = self.watched.iter().any(|(key, v)| store.version(key) != *v);
                if self.discard() {
                    return "-EXECABORT Transaction discarded\r\n".to_owned();
                }
                if is_changed {
                    return "*-1\r\n".to_owned();
                }
                let results: Vec<String> = queue.iter().map(|words| store.apply(words)).collect();
                format!("*{}\r\n{}", results.len(), results.concat())
            }
            (_, Some(queue)) => {
                queue.push(words);
                "+QUEUED\r\n".to_owned()
            }
            ("UNWATCH", None) => {
                self.watched.clear();
                "+OK\r\n".to_owned()
            }
            ("WATCH", None) => {
                let keys = words.iter().skip(1);
                self.watched.extend(keys.map(|key| (key.clone(), store.version(key))));
                "+OK\r\n".to_owned()
            }
            _ => store.apply(&words),
        }
    }
}

impl Store {
    fn version(&self, key: &str) -> u64 {
        self.values.get(key).map_or(0, |(_, version)| *version)
    }

    fn apply(&mut self, words: &[String]) -> String {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["SET", key, value] => {
                let version = self.version(key) + 1;
                self.values.insert((*key).to_owned(), ((*value).to_owned(), version));
                "+OK\r\n".to_owned()
            }
            ["GET", key] => self.bulk(key),
            ["MGET", keys @ ..] => {
                let values: String = keys.iter().map(|key| self.bulk(key)).collect();
                format!("*{}\r\n{values}", keys.len())
            }
            other => format!("-ERR unknown command {other:?}\r\n"),
        }
    }

    fn bulk(&self, key: &str) -> String {
        match self.values.get(key) {
            Some((value, _)) => format!("${}\r\n{value}\r\n", value.len()),
            None => "$-1\r\n".to_owned(),
        }
    }
}
