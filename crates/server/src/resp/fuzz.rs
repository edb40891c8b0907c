//! Fuzz targets: requests out of any stream, replies out of any bytes.

use bytes::{Bytes, BytesMut};
use quorate_testkit::fuzz::{self, Choices, Corpus, value};
use quorate_types::Seq;
use quorate_types::codec::encode;

use super::{Protocol, ProtocolError, Reply, Request, RequestDecoder, RequestLimits};

quorate_testkit::fuzz_allocator!();

/// A word of an inline command is 2 bytes on the wire; in memory it is 32 in a
/// list that doubles, and 8 of its own.
const WORDS_BYTES_PER_BYTE: usize = 64;

/// A reply without content is 2 bytes on the wire, and 40 in a list that
/// doubles; in a map there are two of them.
const REPLIES_BYTES_PER_BYTE: usize = 64;

/// So tight that an input reaches them.
const LIMITS: RequestLimits = RequestLimits {
    inline_bytes_max: 100,
    bulk_bytes_max: 60,
    elements_max: 6,
    request_bytes_max: 120,
};

type End = Result<usize, ProtocolError>;

/// Every request at the front of a buffer, and how it ends.
fn drain(decoder: &mut RequestDecoder, buffer: &mut BytesMut) -> (Vec<Request>, End) {
    let mut requests = Vec::new();
    loop {
        match decoder.decode(buffer) {
            Ok(Some(request)) => requests.push(request),
            Ok(None) => return (requests, Ok(buffer.len())),
            Err(error) => return (requests, Err(error)),
        }
    }
}

fn streams() -> [&'static [u8]; 8] {
    [
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n",
        b"*2\r\n$4\r\nMGET\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n",
        b"PING\r\n\r\n*0\r\n*-1\r\nGET k\n",
        b"set \"quoted \\\"key\\\"\\x00\\n\" 'it\\'s' \r\n",
        b"*6\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n$1\r\nf\r\n",
        b"*1\r\n$60\r\n",
        b"a b c d e f g h i j k l m n o p q r s t u v w x y z\n",
        b"*2\r\n*1\r\n$1\r\na\r\n$1\r\nb\r\n",
    ]
}

#[test]
fn any_stream_is_requests_and_a_rest() {
    quorate_testkit::fuzz!(Corpus::of(streams()), |input| {
        let (requests, end) = fuzz::frugal_by(WORDS_BYTES_PER_BYTE, input.len(), || {
            drain(&mut RequestDecoder::new(LIMITS), &mut BytesMut::from(input))
        });
        let mut wire_bytes = 0;
        for request in &requests {
            assert!(!request.args.is_empty());
            assert!(request.wire_bytes <= LIMITS.request_bytes_max);
            assert!(request.args.len() <= LIMITS.inline_bytes_max);
            wire_bytes += request.wire_bytes;
        }
        assert!(wire_bytes + end.unwrap_or(0) <= input.len());
    });
}

#[test]
fn how_a_stream_is_cut_changes_nothing() {
    quorate_testkit::fuzz!(Corpus::of(streams()), |input| {
        let whole = drain(&mut RequestDecoder::new(LIMITS), &mut BytesMut::from(input));
        let mut decoder = RequestDecoder::new(LIMITS);
        let (mut buffer, mut found, mut end) = (BytesMut::new(), Vec::new(), Ok(0));
        // The sizes of the pieces come from the input as well.
        let (mut sizes, mut left) = (Choices::new(input), input);
        while !left.is_empty() && end.is_ok() {
            let (piece, rest) = left.split_at((1 + sizes.below(12)).min(left.len()));
            left = rest;
            buffer.extend_from_slice(piece);
            let (requests, ended) = drain(&mut decoder, &mut buffer);
            found.extend(requests);
            end = ended;
        }
        assert_eq!((found, end), whole);
    });
}

#[test]
fn words_that_are_sent_arrive() {
    quorate_testkit::fuzz!(Corpus::random(200), |input| {
        let mut choices = Choices::new(input);
        let mut words = vec![Bytes::copy_from_slice(choices.bytes(20))];
        while !choices.is_spent() && words.len() < LIMITS.elements_max {
            words.push(Bytes::copy_from_slice(choices.bytes(10)));
        }
        let mut wire = format!("*{}\r\n", words.len()).into_bytes();
        for word in &words {
            wire.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            wire.extend_from_slice(word);
            wire.extend_from_slice(b"\r\n");
        }
        let mut decoder = RequestDecoder::default();
        let (requests, end) = drain(&mut decoder, &mut BytesMut::from(&wire[..]));
        assert_eq!(end, Ok(0));
        assert_eq!(requests, [Request { args: words, wire_bytes: wire.len() }]);
    });
}

/// What follows the first reply of a stream. (redis-protocol would refuse
/// errors that quote what is no UTF-8; clients do not.)
fn after_reply(wire: &[u8]) -> &[u8] {
    let end = wire.windows(2).position(|pair| pair == b"\r\n").expect("a line ends");
    let (line, rest) = (&wire[..end], &wire[end + 2..]);
    let number = || std::str::from_utf8(&line[1..]).unwrap().parse::<i64>().unwrap();
    let after_replies = |count: i64| (0..count).fold(rest, |rest, _| after_reply(rest));
    match line[0] {
        b'+' | b'-' => rest,
        b':' => {
            number();
            rest
        }
        b'_' => {
            assert_eq!(line.len(), 1);
            rest
        }
        b'*' => after_replies(number()),
        b'%' => after_replies(2 * number()),
        b'$' if number() < 0 => rest,
        b'$' => {
            let length = usize::try_from(number()).unwrap();
            assert_eq!(&rest[length..length + 2], b"\r\n");
            &rest[length + 2..]
        }
        other => panic!("no reply begins with {other:#04x}"),
    }
}

#[test]
fn any_bytes_are_a_reply_that_clients_can_read_or_none() {
    let leaves = [Reply::Null, Reply::NullArray, Reply::ok(), Reply::Integer(i64::MIN)];
    let pair = (Reply::bulk("name"), Reply::array([Reply::error("ERR no\r\n"), Reply::Null]));
    let nested = Reply::array([Reply::Map(Seq(vec![pair])), Reply::bulk("")]);
    let corpus = leaves.iter().chain([&nested]).map(encode);
    quorate_testkit::fuzz!(Corpus::of(corpus), |input| {
        let Some(reply) = value::<Reply>(REPLIES_BYTES_PER_BYTE, input) else { return };
        assert!(reply.weight_bytes() >= reply.payload_bytes());
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            let mut wire = BytesMut::new();
            reply.encode(protocol, &mut wire);
            assert!(after_reply(&wire).is_empty(), "a client reads it to its end");
        }
    });
}
