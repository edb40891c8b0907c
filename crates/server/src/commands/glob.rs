//! Glob patterns as in `KEYS` and `SCAN MATCH`.

/// Whether `text` matches `pattern`: `*`, `?`, `[abc]`, `[^a]`, `[a-z]` and
/// `\` to quote. Takes time proportional to the product of the lengths at
/// most: only the last star is ever tried again, because an earlier one could
/// not do better.
pub(crate) fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', after @ ..] = pattern {
            retry = Some((after, text));
            pattern = after;
            continue;
        }
        match (match_one(pattern, text.first().copied()), text) {
            (Some(after), [_, rest @ ..]) => {
                pattern = after;
                text = rest;
            }
            (_, []) if pattern.is_empty() => return true,
            _ => match retry {
                Some((after, [_, rest @ ..])) => {
                    retry = Some((after, rest));
                    pattern = after;
                    text = rest;
                }
                _ => return false,
            },
        }
    }
}

/// Matches a single byte against the head of the pattern and returns the rest
/// of it.
fn match_one(pattern: &[u8], byte: Option<u8>) -> Option<&[u8]> {
    let byte = byte?;
    let (matched, rest) = match pattern {
        [] => return None,
        [b'?', rest @ ..] => (true, rest),
        [b'[', rest @ ..] => match_class(rest, byte),
        [b'\\', quoted, rest @ ..] => (*quoted == byte, rest),
        [literal, rest @ ..] => (*literal == byte, rest),
    };
    matched.then_some(rest)
}

/// Matches `[...]`, without its opening bracket. A class that is never closed
/// ends with the pattern, as in Redis.
fn match_class(pattern: &[u8], byte: u8) -> (bool, &[u8]) {
    let (negated, mut rest) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut matched = false;
    loop {
        match rest {
            [] => break,
            [b']', after @ ..] => {
                rest = after;
                break;
            }
            [b'\\', quoted, after @ ..] => {
                matched |= *quoted == byte;
                rest = after;
            }
            [first, b'-', last, after @ ..] => {
                matched |= (*first.min(last)..=*first.max(last)).contains(&byte);
                rest = after;
            }
            [literal, after @ ..] => {
                matched |= *literal == byte;
                rest = after;
            }
        }
    }
    (matched != negated, rest)
}

#[cfg(test)]
mod tests;
