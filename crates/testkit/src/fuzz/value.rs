//! What every decoder of one value keeps.

use std::fmt::Debug;

use quorate_types::codec::{decode, encode};
use zerompk::{FromMessagePack, ToMessagePack};

use super::memory::frugal_by;

/// Bytes that may follow a value: the one that MessagePack never uses, a
/// number, nothing, and the beginning of a container.
const AFTER: [u8; 4] = [0xC1, 0x00, 0xC0, 0xDD];

/// Decodes the input and fails unless the decoder allocates at most
/// `bytes_per_byte` times the input (as [`super::frugal_by`]), reads again
/// what it would write, and takes no byte after the end of the value. The
/// value, if the input is one.
///
/// # Panics
/// When the decoder does not keep that.
pub fn value<T>(bytes_per_byte: usize, input: &[u8]) -> Option<T>
where
    T: for<'a> FromMessagePack<'a> + ToMessagePack + PartialEq + Debug,
{
    let value = frugal_by(bytes_per_byte, input.len(), || decode::<T>(input)).ok()?;
    let written = encode(&value);
    match decode::<T>(&written) {
        Ok(read) => assert_eq!(read, value, "what is written is read again"),
        Err(error) => panic!("{value:?} is written but not read again: {error}"),
    }
    let mut longer = Vec::with_capacity(input.len() + 1);
    longer.extend_from_slice(input);
    for after in AFTER {
        longer.push(after);
        assert!(decode::<T>(&longer).is_err(), "{after:#04x} after the end is taken");
        longer.pop();
    }
    Some(value)
}
