//! Changes that leave most of an encoding as it was.

use super::Choices;

/// An input does not grow beyond this by being changed.
const GROWN_BYTES_MAX: usize = 64 << 10;

/// How much one change removes, repeats or brings in, at most.
const SPAN_BYTES_MAX: usize = 256;

/// First bytes of MessagePack values, and other bytes with a meaning: none,
/// false, true, integers, floats, and every container with a length.
const MARKERS: [u8; 28] = [
    0x00, 0x01, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2, 0xC3, 0xC4, 0xC5, 0xC6, 0xC7,
    0xC9, 0xCA, 0xCC, 0xCD, 0xCF, 0xD3, 0xD9, 0xDB, 0xDC, 0xDD, 0xDF, 0xFF,
];

/// Containers whose length follows in four bytes: str, bin, ext, array, map.
const LONG_CONTAINERS: [u8; 5] = [0xDB, 0xC6, 0xC9, 0xDD, 0xDF];

/// Changes `input` in one place; `others` may lend a part.
pub(super) fn mutate(input: &mut Vec<u8>, choices: &mut Choices<'_>, others: &[Vec<u8>]) {
    match choices.below(12) {
        0 => flip(input, choices),
        1 => overwrite(input, choices),
        2 => mark(input, choices),
        3 => announce(input, choices),
        4 | 5 => change_number(input, choices),
        6 => nudge(input, choices),
        7 => insert(input, choices),
        8 => delete(input, choices),
        9 => duplicate(input, choices),
        10 => splice(input, choices, others),
        _ => truncate(input, choices),
    }
    input.truncate(GROWN_BYTES_MAX);
}

fn flip(input: &mut [u8], choices: &mut Choices<'_>) {
    let at = choices.below(input.len());
    let bit = choices.below(8);
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << bit;
    }
}

fn overwrite(input: &mut [u8], choices: &mut Choices<'_>) {
    let at = choices.below(input.len());
    let new = choices.byte();
    if let Some(byte) = input.get_mut(at) {
        *byte = new;
    }
}

fn mark(input: &mut [u8], choices: &mut Choices<'_>) {
    let at = choices.below(input.len());
    if let (Some(byte), Some(marker)) = (input.get_mut(at), choices.pick(&MARKERS)) {
        *byte = *marker;
    }
}

/// Puts a container there that announces more than will come.
fn announce(input: &mut Vec<u8>, choices: &mut Choices<'_>) {
    let at = choices.below(input.len() + 1);
    let marker = choices.pick(&LONG_CONTAINERS).copied().unwrap_or_default();
    let [.., a, b, c, d] = choices.edge().to_be_bytes();
    let replaced = at..at.saturating_add(choices.below(6)).min(input.len());
    input.splice(replaced, [marker, a, b, c, d]);
}

/// Overwrites one, two, four or eight bytes with a number at some border, in
/// either order of bytes: lengths, counts, versions and ids are among them.
fn change_number(input: &mut [u8], choices: &mut Choices<'_>) {
    let width = 1_usize << choices.below(4);
    let at = choices.below(input.len().saturating_sub(width).saturating_add(1));
    let mut number = choices.edge().to_be_bytes();
    if choices.flag() {
        number.reverse();
    }
    let from = if choices.flag() { 0 } else { number.len() - width };
    if let (Some(there), Some(new)) =
        (input.get_mut(at..at + width), number.get(from..from + width))
    {
        there.copy_from_slice(new);
    }
}

/// Adds or takes a little from one byte: a length that is wrong by one.
fn nudge(input: &mut [u8], choices: &mut Choices<'_>) {
    let at = choices.below(input.len());
    let by = choices.byte();
    if let Some(byte) = input.get_mut(at) {
        let step = 1 + (by >> 1) % 4;
        *byte = if by & 1 == 0 { byte.wrapping_add(step) } else { byte.wrapping_sub(step) };
    }
}

fn insert(input: &mut Vec<u8>, choices: &mut Choices<'_>) {
    let at = choices.below(input.len() + 1);
    let new = choices.bytes(16);
    input.splice(at..at, new.iter().copied());
}

fn delete(input: &mut Vec<u8>, choices: &mut Choices<'_>) {
    let span = span(input, choices);
    input.drain(span);
}

/// Repeats a span, up to sixteen times: many elements instead of one.
fn duplicate(input: &mut Vec<u8>, choices: &mut Choices<'_>) {
    let span = span(input, choices);
    let end = span.end;
    let copied = input.get(span).unwrap_or_default().repeat(1 + choices.below(16));
    input.splice(end..end, copied);
}

/// Goes on, from some place, as another value does from a place of its own,
/// or takes over a part of it.
fn splice(input: &mut Vec<u8>, choices: &mut Choices<'_>, others: &[Vec<u8>]) {
    let Some(other) = choices.pick(others) else { return };
    let at = choices.below(input.len() + 1);
    if choices.flag() {
        let from = choices.below(other.len() + 1);
        input.truncate(at);
        input.extend_from_slice(other.get(from..).unwrap_or_default());
    } else {
        let part = other.get(span(other, choices)).unwrap_or_default();
        input.splice(at..at, part.iter().copied());
    }
}

fn truncate(input: &mut Vec<u8>, choices: &mut Choices<'_>) {
    let len = choices.below(input.len());
    input.truncate(len);
}

fn span(input: &[u8], choices: &mut Choices<'_>) -> std::ops::Range<usize> {
    let start = choices.below(input.len());
    let longest = (input.len() - start).min(SPAN_BYTES_MAX);
    let len = if longest == 0 { 0 } else { 1 + choices.below(longest) };
    start..start + len
}
