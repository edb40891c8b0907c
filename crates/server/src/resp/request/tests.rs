use proptest::collection::vec;
use proptest::prelude::{any, proptest};

use super::*;

fn decode(limits: RequestLimits, wire: &[u8]) -> Result<Vec<Vec<Bytes>>, ProtocolError> {
    let mut decoder = RequestDecoder::new(limits);
    let mut buffer = BytesMut::from(wire);
    let mut requests = Vec::new();
    while let Some(request) = decoder.decode(&mut buffer)? {
        requests.push(request.args);
    }
    Ok(requests)
}

fn encode(args: &[Vec<u8>]) -> Vec<u8> {
    let mut wire = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        wire.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        wire.extend_from_slice(arg);
        wire.extend_from_slice(b"\r\n");
    }
    wire
}

#[test]
fn nested_arrays_are_refused_at_their_first_byte() {
    let wire = b"*1\r\n".repeat(100_000);
    assert_eq!(decode(RequestLimits::default(), &wire), Err(ProtocolError::ExpectedBulk(b'*')));
}

#[test]
fn announced_lengths_beyond_a_limit_are_refused_before_their_bytes_arrive() {
    let limits = RequestLimits {
        bulk_bytes_max: 10,
        elements_max: 3,
        request_bytes_max: 40,
        ..RequestLimits::default()
    };
    assert_eq!(decode(limits, b"*4\r\n"), Err(ProtocolError::InvalidCount));
    assert_eq!(decode(limits, b"*1\r\n$11\r\n"), Err(ProtocolError::InvalidLength));
    assert_eq!(decode(limits, b"*1\r\n$-1\r\n"), Err(ProtocolError::InvalidLength));
    let two = b"*3\r\n$9\r\n123456789\r\n$9\r\n123456789\r\n$9\r\n";
    assert_eq!(decode(limits, two), Err(ProtocolError::RequestTooBig(40)));
}

#[test]
fn empty_requests_are_skipped() {
    let requests = decode(RequestLimits::default(), b"*0\r\n*-1\r\n\r\nPING\r\n").unwrap();
    assert_eq!(requests, vec![vec![Bytes::from_static(b"PING")]]);
}

proptest! {
    #[test]
    fn any_request_survives_any_fragmentation(
        requests in vec(vec(vec(any::<u8>(), 0..40), 1..6), 1..6),
        cuts in vec(1_usize..50, 1..100),
    ) {
        let wire: Vec<u8> = requests.iter().flat_map(|args| encode(args)).collect();
        let mut decoder = RequestDecoder::default();
        let (mut buffer, mut decoded, mut rest) = (BytesMut::new(), Vec::new(), &wire[..]);
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            buffer.extend_from_slice(piece);
            while let Some(request) = decoder.decode(&mut buffer).unwrap() {
                decoded.push(request.args.iter().map(|arg| arg.to_vec()).collect::<Vec<_>>());
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        assert_eq!(decoded, requests);
    }

    #[test]
    fn hostile_bytes_never_panic(wire in vec(any::<u8>(), 0..200)) {
        drop(decode(RequestLimits::default(), &wire));
    }

    #[test]
    fn hostile_arrays_never_panic(tail in "[*$0-9\\-\r\na]{0,80}") {
        drop(decode(RequestLimits::default(), format!("*{tail}").as_bytes()));
    }
}
