//! Inline commands: a line of words, as a person types them into a terminal.

use bytes::Bytes;

/// The quotes of the line do not pair up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct UnbalancedQuotes;

/// Splits a line into its words. Words may be quoted: `"..."` with the escapes
/// `\n \r \t \b \a \xHH`, or `'...'` with `\'`.
pub(crate) fn split(line: &[u8]) -> Result<Vec<Bytes>, UnbalancedQuotes> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        let (word, after) = next_word(rest)?;
        words.push(Bytes::from(word));
        rest = after.trim_ascii_start();
    }
    Ok(words)
}

fn next_word(line: &[u8]) -> Result<(Vec<u8>, &[u8]), UnbalancedQuotes> {
    let mut word = Vec::new();
    let mut rest = line;
    while let Some((&byte, after)) = rest.split_first() {
        match byte {
            b'"' => return finish_quoted(word, after, double_quoted),
            b'\'' => return finish_quoted(word, after, single_quoted),
            space if space.is_ascii_whitespace() => break,
            other => {
                word.push(other);
                rest = after;
            }
        }
    }
    Ok((word, rest))
}

type Quoted = for<'a> fn(&mut Vec<u8>, &'a [u8]) -> Option<&'a [u8]>;

/// A closing quote ends its word: the line or a space must follow.
fn finish_quoted(
    mut word: Vec<u8>,
    text: &[u8],
    unquote: Quoted,
) -> Result<(Vec<u8>, &[u8]), UnbalancedQuotes> {
    let rest = unquote(&mut word, text).ok_or(UnbalancedQuotes)?;
    match rest.first() {
        Some(byte) if !byte.is_ascii_whitespace() => Err(UnbalancedQuotes),
        _ => Ok((word, rest)),
    }
}

fn double_quoted<'a>(word: &mut Vec<u8>, mut text: &'a [u8]) -> Option<&'a [u8]> {
    loop {
        match text {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', b'x', high, low, rest @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex_digit(*high) * 16 + hex_digit(*low));
                text = rest;
            }
            [b'\\', escaped, rest @ ..] => {
                word.push(unescape(*escaped));
                text = rest;
            }
            [byte, rest @ ..] => {
                word.push(*byte);
                text = rest;
            }
            [] => return None,
        }
    }
}

fn single_quoted<'a>(word: &mut Vec<u8>, mut text: &'a [u8]) -> Option<&'a [u8]> {
    loop {
        match text {
            [b'\'', rest @ ..] => return Some(rest),
            [b'\\', b'\'', rest @ ..] => {
                word.push(b'\'');
                text = rest;
            }
            [byte, rest @ ..] => {
                word.push(*byte);
                text = rest;
            }
            [] => return None,
        }
    }
}

fn unescape(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

#[cfg(test)]
mod tests;
