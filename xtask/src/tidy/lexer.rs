//! Rust's text split in code and comments, so that a rule finds what it means
//! and not a word in a string.

/// A line of a Rust file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Line {
    /// What the compiler reads; literals are empty.
    pub(super) code: String,
    /// What people read, doc comments included.
    pub(super) comment: String,
}

/// The lines of a Rust file.
pub(super) fn lines(source: &str) -> Vec<Line> {
    let mut lexer = Lexer { text: source.chars().collect(), ..Lexer::default() };
    while lexer.at < lexer.text.len() {
        lexer.step();
    }
    lexer.lines.push(lexer.line);
    lexer.lines
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Code,
    LineComment,
    /// Block comments nest.
    BlockComment {
        depth: usize,
    },
    Text,
    RawText {
        hashes: usize,
    },
}

#[derive(Default)]
struct Lexer {
    text: Vec<char>,
    at: usize,
    state: State,
    line: Line,
    lines: Vec<Line>,
}

impl Lexer {
    fn step(&mut self) {
        if self.peek(0) == Some('\n') {
            self.lines.push(std::mem::take(&mut self.line));
            if matches!(self.state, State::LineComment) {
                self.state = State::Code;
            }
            self.at += 1;
            return;
        }
        match self.state {
            State::Code => self.step_code(),
            State::LineComment => self.comment(1),
            State::BlockComment { depth } => self.step_block_comment(depth),
            State::Text => match self.peek(0) {
                // An escaped line break still ends the line.
                Some('\\') if self.peek(1) != Some('\n') => self.at += 2,
                Some('"') => self.code(1, State::Code),
                _ => self.at += 1,
            },
            State::RawText { hashes } => {
                if self.peek(0) == Some('"') && self.hashes(1) >= hashes {
                    self.code(1 + hashes, State::Code);
                } else {
                    self.at += 1;
                }
            }
        }
    }

    fn step_code(&mut self) {
        match (self.peek(0), self.peek(1)) {
            (Some('/'), Some('/')) => self.state = State::LineComment,
            (Some('/'), Some('*')) => {
                self.state = State::BlockComment { depth: 1 };
                self.comment(2);
            }
            (Some('"'), _) => self.code(1, State::Text),
            (Some('r'), Some('"' | '#')) if self.starts_raw_text() => {
                let hashes = self.hashes(1);
                self.code(2 + hashes, State::RawText { hashes });
            }
            (Some('\''), Some('\\')) => {
                // The escaped character may itself be a quote.
                let close = (3..).find(|ahead| matches!(self.peek(*ahead), None | Some('\'')));
                self.at += close.unwrap_or(2) + 1;
            }
            (Some('\''), Some(_)) if self.peek(2) == Some('\'') => self.at += 3,
            _ => self.code(1, State::Code),
        }
    }

    fn step_block_comment(&mut self, depth: usize) {
        match (self.peek(0), self.peek(1)) {
            (Some('/'), Some('*')) => {
                self.state = State::BlockComment { depth: depth + 1 };
                self.comment(2);
            }
            (Some('*'), Some('/')) => {
                self.state = match depth {
                    1 => State::Code,
                    depth => State::BlockComment { depth: depth - 1 },
                };
                self.comment(2);
            }
            _ => self.comment(1),
        }
    }

    /// Whether the `r` here opens a raw string: `r"`, `r#"`, `br"`, and not
    /// the end of a name or a raw name such as `r#type`.
    fn starts_raw_text(&self) -> bool {
        let before = self.line.code.trim_end_matches(['b', 'c']);
        let ends_name = before.chars().next_back().is_some_and(is_of_name);
        !ends_name && self.peek(1 + self.hashes(1)) == Some('"')
    }

    fn hashes(&self, ahead: usize) -> usize {
        let rest = self.text.get(self.at + ahead..).unwrap_or_default();
        rest.iter().take_while(|c| **c == '#').count()
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    fn code(&mut self, count: usize, next: State) {
        self.line.code.extend(self.text.iter().skip(self.at).take(count));
        self.at += count;
        self.state = next;
    }

    fn comment(&mut self, count: usize) {
        self.line.comment.extend(self.text.iter().skip(self.at).take(count));
        self.at += count;
    }
}

/// Whether a character can be part of a name.
pub(super) fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where a word stands by itself, not within a longer name; as byte offsets.
pub(super) fn find_word<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let (before, after) = text.split_at(*at);
        let after = after.get(word.len()..).unwrap_or_default();
        !before.chars().next_back().is_some_and(is_of_name)
            && !after.chars().next().is_some_and(is_of_name)
    })
}

/// Whether a text contains a word by itself.
pub(super) fn has_word(text: &str, word: &str) -> bool {
    find_word(text, word).next().is_some()
}
