//! Byte strings and sequences with a hostile-input-safe encoding.
//!
//! zerompk encodes `Option<Vec<u8>>` as an integer array and reserves a
//! sequence's announced length; these two newtypes do neither.

use std::borrow::Borrow;
use std::fmt;
use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use zerompk::{FromMessagePack, Read, ToMessagePack, Write};

/// An immutable, cheaply cloned byte string: a key, a value, an opaque command.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Blob(pub Bytes);

impl Blob {
    /// The empty string.
    #[must_use]
    pub const fn new() -> Self {
        Self(Bytes::new())
    }

    /// Wraps bytes that live for ever without copying them.
    #[must_use]
    pub const fn from_static(bytes: &'static [u8]) -> Self {
        Self(Bytes::from_static(bytes))
    }

    /// The shortest prefix of this key that still sorts after `below`: a key
    /// that separates the two and is no longer than it has to be. The whole
    /// key if it does not sort after `below` itself.
    #[must_use]
    pub fn separator_from(&self, below: &[u8]) -> Self {
        let common = self.iter().zip(below).take_while(|(own, other)| own == other).count();
        let length = if **self > *below { common + 1 } else { self.len() };
        Self(self.0.slice(..length.min(self.len())))
    }
}

impl Deref for Blob {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Blob {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl<const N: usize> From<&[u8; N]> for Blob {
    fn from(bytes: &[u8; N]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl From<&str> for Blob {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<Blob> for Bytes {
    fn from(blob: Blob) -> Self {
        blob.0
    }
}

/// Prints text as text and anything else escaped, at most 64 bytes of it.
impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_BYTES_MAX: usize = 64;
        let shown = self.0.get(..self.0.len().min(SHOWN_BYTES_MAX)).unwrap_or_default();
        write!(f, "\"{}\"", shown.escape_ascii())?;
        if self.0.len() > SHOWN_BYTES_MAX {
            write!(f, "+{}B", self.0.len() - SHOWN_BYTES_MAX)?;
        }
        Ok(())
    }
}

impl ToMessagePack for Blob {
    fn write<W: Write>(&self, writer: &mut W) -> zerompk::Result<()> {
        writer.write_binary(&self.0)
    }
}

impl<'a> FromMessagePack<'a> for Blob {
    fn read<R: Read<'a>>(reader: &mut R) -> zerompk::Result<Self> {
        reader.read_binary().map(|bytes| Self(Bytes::copy_from_slice(&bytes)))
    }
}

/// A sequence whose decoder grows with what it has read, never with what was
/// announced.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq<T>(pub Vec<T>);

/// The most elements a decoder reserves before it has seen any of them.
const SEQ_RESERVED_ELEMENTS_MAX: usize = 64;

impl<T> Seq<T> {
    /// The empty sequence.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }
}

impl<T> Default for Seq<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for Seq<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T> Deref for Seq<T> {
    type Target = Vec<T>;
    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T> DerefMut for Seq<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}

impl<T> From<Vec<T>> for Seq<T> {
    fn from(items: Vec<T>) -> Self {
        Self(items)
    }
}

impl<T> FromIterator<T> for Seq<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self(items.into_iter().collect())
    }
}

impl<T> IntoIterator for Seq<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Seq<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T: ToMessagePack> ToMessagePack for Seq<T> {
    fn write<W: Write>(&self, writer: &mut W) -> zerompk::Result<()> {
        writer.write_array_len(self.0.len())?;
        self.0.iter().try_for_each(|item| item.write(writer))
    }
}

impl<'a, T: FromMessagePack<'a>> FromMessagePack<'a> for Seq<T> {
    fn read<R: Read<'a>>(reader: &mut R) -> zerompk::Result<Self> {
        let announced = reader.read_array_len()?;
        reader.increment_depth()?;
        let mut items = Vec::with_capacity(announced.min(SEQ_RESERVED_ELEMENTS_MAX));
        for _ in 0..announced {
            items.push(T::read(reader)?);
        }
        reader.decrement_depth();
        Ok(Self(items))
    }
}
