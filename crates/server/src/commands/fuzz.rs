//! Fuzz targets: what words mean, and what patterns match.

use bytes::Bytes;
use quorate_testkit::fuzz::{self, Choices, Corpus};

use super::glob::glob_matches;
use super::parse::KEY_BYTES_MAX;
use super::{Command, KEY_PREFIX_BYTES, Program, commands, lookup, parse_integer};

/// Words that mean something to some command.
const WORDS: [&str; 32] = [
    "",
    "k",
    "key",
    "0",
    "1",
    "-1",
    "10",
    "9223372036854775807",
    "-9223372036854775808",
    "+1",
    "01",
    "nx",
    "xx",
    "gt",
    "lt",
    "ex",
    "px",
    "exat",
    "pxat",
    "keepttl",
    "get",
    "match",
    "count",
    "type",
    "string",
    "async",
    "sync",
    "auth",
    "setname",
    "3",
    "default",
    "[a-z]*",
];

fn words(input: &[u8]) -> Vec<Bytes> {
    let mut choices = Choices::new(input);
    let name = choices.pick(commands()).map_or("", |spec| spec.name);
    let mut words = vec![Bytes::from(name.to_uppercase())];
    while !choices.is_spent() && words.len() < 12 {
        words.push(match choices.below(4) {
            0 => Bytes::copy_from_slice(choices.bytes(12)),
            _ => Bytes::from_static(choices.pick(&WORDS).map_or(&b""[..], |word| word.as_bytes())),
        });
    }
    words
}

#[test]
fn any_words_are_a_command_or_are_refused() {
    quorate_testkit::fuzz!(Corpus::random(100), |input| {
        let words = words(input);
        let (_, spec) = lookup(&words[0]).expect("a name of the table");
        let sent_bytes = words.iter().map(Bytes::len).sum();
        let command = match fuzz::frugal(sent_bytes, || spec.read(&words)) {
            Ok(command) => command,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return;
            }
        };
        let Command::Data(op) = command else { return };
        let program = Program::single(op);
        let footprint = program.footprint();
        for key in footprint.reads.iter().chain(&footprint.writes) {
            assert!((KEY_PREFIX_BYTES..=KEY_BYTES_MAX + KEY_PREFIX_BYTES).contains(&key.len()));
        }
        assert_eq!(Program::decode(&program.encode()).unwrap(), program);
    });
}

#[test]
fn a_name_is_in_the_table_or_unknown() {
    let names = commands().iter().map(|spec| spec.name);
    quorate_testkit::fuzz!(Corpus::of(names), |input| {
        if let Some((index, spec)) = lookup(input) {
            assert!(input.eq_ignore_ascii_case(spec.name.as_bytes()));
            assert_eq!(commands()[index].name, spec.name);
        }
    });
}

#[test]
fn a_number_is_read_in_one_form_only() {
    let numbers = [i64::MIN, i64::MAX, 0, -1, 10].map(|number| number.to_string());
    quorate_testkit::fuzz!(Corpus::of(numbers), |input| {
        if let Some(number) = parse_integer(input) {
            assert_eq!(number.to_string().as_bytes(), input);
        }
    });
}

/// Whether a pattern matches, by trying every length for every star.
fn matches_plainly(pattern: &[u8], text: &[u8]) -> bool {
    let mut reached: Vec<bool> = vec![false; text.len() + 1];
    reached[0] = true;
    let mut rest = pattern;
    while let Some(first) = rest.first() {
        let mut next = vec![false; text.len() + 1];
        if *first == b'*' {
            let start = reached.iter().position(|reached| *reached).unwrap_or(next.len());
            next[start..].fill(true);
            rest = &rest[1..];
        } else {
            let length = one_length(rest);
            for at in (0..text.len()).filter(|at| reached[*at]) {
                next[at + 1] = glob_matches(&rest[..length], &text[at..=at]);
            }
            rest = &rest[length..];
        }
        reached = next;
    }
    reached[text.len()]
}

/// How much of a pattern stands for one byte.
fn one_length(pattern: &[u8]) -> usize {
    match pattern {
        [b'\\', _, ..] => 2,
        [b'[', class @ ..] => {
            let mut at = usize::from(class.first() == Some(&b'^'));
            loop {
                match &class[at..] {
                    [] => return pattern.len(),
                    [b']', ..] => return at + 2,
                    [b'\\', _, ..] => at += 2,
                    [_, b'-', _, ..] => at += 3,
                    [_, ..] => at += 1,
                }
            }
        }
        _ => 1,
    }
}

#[test]
fn a_pattern_matches_what_trying_everything_matches() {
    let pairs = ["*a*b\0xaxbxb", "k[a-c^]?\\*\0kb1*", "[^a]*\0b", "[a\0a", "**?\0x", "[]-]\0]"];
    quorate_testkit::fuzz!(Corpus::of(pairs), |input| {
        let at = input.iter().position(|byte| *byte == 0).unwrap_or(input.len() / 2);
        let (pattern, text) = input.split_at(at.min(200));
        let text = text.get(1..).unwrap_or_default();
        let text = &text[..text.len().min(200)];
        let found = fuzz::frugal(input.len(), || glob_matches(pattern, text));
        assert_eq!(found, matches_plainly(pattern, text));
        let quoted: Vec<u8> = text.iter().flat_map(|byte| [b'\\', *byte]).collect();
        assert!(glob_matches(&quoted, text), "what is quoted matches itself");
        assert!(glob_matches(b"*", text));
    });
}
