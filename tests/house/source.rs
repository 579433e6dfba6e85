//! One Rust file as the checks see it: tokens without comments, and comments without tokens.
//!
//! No more of the language is understood than the checks need: strings, comments, characters and
//! lifetimes are told apart, and what is compiled for tests only is marked.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An identifier or keyword.
    Word,
    /// One punctuation character, or `::`.
    Punct,
    /// The contents of a string literal.
    Text,
    /// A number, a character or a lifetime.
    Other,
}

/// One token; `line` counts from 1.
#[derive(Clone, Debug)]
pub struct Token {
    pub kind: Kind,
    pub text: String,
    pub line: usize,
    /// Compiled for tests or models only.
    pub test: bool,
}

impl Token {
    pub fn is(&self, text: &str) -> bool {
        self.text == text && matches!(self.kind, Kind::Word | Kind::Punct)
    }
}

/// One line: what its comments say, and which tokens begin on it.
#[derive(Clone, Debug, Default)]
pub struct Line {
    pub comment: Option<String>,
    pub tokens: std::ops::Range<usize>,
}

impl Line {
    pub fn has_code(&self) -> bool {
        !self.tokens.is_empty()
    }
}

/// One file, read. `path` is relative to the root of the repository.
#[derive(Clone, Debug)]
pub struct Source {
    pub path: String,
    pub tokens: Vec<Token>,
    lines: Vec<Line>,
}

impl Source {
    pub fn read(path: &str, text: &str) -> Source {
        let mut reader = Reader::new(text);
        reader.run();
        let mut source = Source {
            path: path.to_owned(),
            tokens: reader.tokens,
            lines: Vec::new(),
        };
        source.index(reader.comments);
        source.mark_tests();
        source
    }

    fn index(&mut self, comments: Vec<Option<String>>) {
        let mut next = 0;
        for (number, comment) in comments.into_iter().enumerate() {
            let first = next;
            while next < self.tokens.len() && self.tokens[next].line == number + 1 {
                next += 1;
            }
            self.lines.push(Line {
                comment,
                tokens: first..next,
            });
        }
    }

    /// The line with this number, from 1.
    pub fn line(&self, number: usize) -> &Line {
        &self.lines[number - 1]
    }

    pub fn line_count(&self) -> usize {
        self.lines.len()
    }

    pub fn is_word(&self, at: usize, text: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is(text))
    }

    /// Whether line `number` holds the token `text`.
    pub fn line_has(&self, number: usize, text: &str) -> bool {
        self.line(number)
            .tokens
            .clone()
            .any(|at| self.tokens[at].is(text))
    }

    fn ends_statement(&self, number: usize) -> bool {
        let last = self.line(number).tokens.clone().next_back();
        last.is_some_and(|at| self.tokens[at].is(";") || self.tokens[at].is("}"))
    }

    /// The numbers of the lines whose comments belong to line `number`: its own and those above it,
    /// past at most `limit` lines of code and never out of the function it stands in.
    pub fn remarks_above(&self, number: usize, limit: usize) -> Vec<usize> {
        let mut found = Vec::new();
        let mut passed = 0;
        let mut leaving = self.line_has(number, "fn");
        if self.line(number).comment.is_some() {
            found.push(number);
        }
        for above in (self.end_of_previous_function(number) + 1..number).rev() {
            let line = self.line(above);
            if line.has_code() {
                passed += 1;
                let attribute = self.is_word(line.tokens.start, "#");
                if passed > limit || (leaving && !attribute) {
                    break;
                }
                leaving |= self.line_has(above, "fn");
            } else if line.comment.is_none() && leaving {
                break;
            }
            if line.comment.is_some() {
                found.push(above);
            }
        }
        found
    }

    /// The line on which the last function above line `number` ends, or 0 if `number` is inside it.
    fn end_of_previous_function(&self, number: usize) -> usize {
        let first = self.line(number).tokens.start;
        let named = |at: &usize| {
            let name = self.tokens.get(at + 1);
            self.is_word(*at, "fn") && name.is_some_and(|name| name.kind == Kind::Word)
        };
        let end = (0..first).rev().find(named).map(|at| self.past_item(at));
        end.filter(|end| *end <= first)
            .map_or(0, |end| self.tokens[end - 1].line)
    }

    /// The comment directly above the statement that holds line `number`, or on the line itself.
    pub fn remark_of_statement(&self, number: usize) -> String {
        let mut text = Vec::new();
        text.extend(self.line(number).comment.clone());
        for above in (1..number).rev() {
            let line = self.line(above);
            let blank = !line.has_code() && line.comment.is_none();
            let past = line.has_code() && (!text.is_empty() || self.ends_statement(above));
            if blank || past {
                break;
            }
            text.extend(line.comment.clone());
        }
        text.reverse();
        text.join("\n")
    }

    /// The index just past the bracket that closes the one at `open`.
    pub fn past_bracket(&self, open: usize) -> usize {
        let mut depth = 0usize;
        for (at, token) in self.tokens.iter().enumerate().skip(open) {
            if ["(", "[", "{"].iter().any(|text| token.is(text)) {
                depth += 1;
            } else if [")", "]", "}"].iter().any(|text| token.is(text)) {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
        }
        self.tokens.len()
    }

    /// The index just past the item that begins at `start`: its block, or its semicolon.
    pub fn past_item(&self, start: usize) -> usize {
        let mut at = start;
        while at < self.tokens.len() {
            if self.is_word(at, ";") {
                return at + 1;
            }
            if self.is_word(at, "{") {
                return self.past_bracket(at);
            }
            if self.is_word(at, "}") {
                return at;
            }
            at = if self.is_word(at, "(") || self.is_word(at, "[") {
                self.past_bracket(at)
            } else {
                at + 1
            };
        }
        self.tokens.len()
    }

    /// Past the attributes that begin at `at`.
    pub fn past_attributes(&self, mut at: usize) -> usize {
        while self.is_word(at, "#") && self.is_word(at + 1, "[") {
            at = self.past_bracket(at + 1);
        }
        at
    }

    /// Whether the attribute whose `[` is at `open` keeps its item for tests or models.
    fn is_test_gate(&self, open: usize) -> bool {
        let marks_test = self.is_word(open + 1, "test") && self.is_word(open + 2, "]");
        let asks = self.is_word(open + 1, "cfg") && self.is_word(open + 2, "(");
        marks_test || asks && self.in_plain_build(open + 3).0 == Some(false)
    }

    /// What the predicate at `at` says in a build for neither tests nor models, where that can be
    /// known, and where it ends.
    fn in_plain_build(&self, at: usize) -> (Option<bool>, usize) {
        let Some(token) = self.tokens.get(at) else {
            return (None, at);
        };
        if !self.is_word(at + 1, "(") {
            let known = ["test", "loom", "miri", "doctest"].contains(&token.text.as_str());
            let ends = |at: &usize| self.is_word(*at, ",") || self.is_word(*at, ")");
            let end = (at..self.tokens.len()).find(ends);
            return (known.then_some(false), end.unwrap_or(self.tokens.len()));
        }
        let end = self.past_bracket(at + 1);
        let mut parts = Vec::new();
        let mut next = at + 2;
        while next + 1 < end {
            let (part, after) = self.in_plain_build(next);
            parts.push(part);
            next = after + 1;
        }
        let all_are = |wanted: bool| parts.iter().all(|part| *part == Some(wanted));
        let value = match token.text.as_str() {
            "not" => parts.first().copied().flatten().map(|value| !value),
            "all" if parts.contains(&Some(false)) => Some(false),
            "all" => all_are(true).then_some(true),
            "any" if parts.contains(&Some(true)) => Some(true),
            "any" => all_are(false).then_some(false),
            _ => None,
        };
        (value, end)
    }

    fn mark_tests(&mut self) {
        let mut at = 0;
        while at < self.tokens.len() {
            let inner = self.is_word(at, "#") && self.is_word(at + 1, "!");
            let open = if inner { at + 2 } else { at + 1 };
            if !(self.is_word(at, "#") && self.is_word(open, "[") && self.is_test_gate(open)) {
                at += 1;
                continue;
            }
            let end = if inner {
                self.tokens.len()
            } else {
                self.past_item(self.past_attributes(at))
            };
            for token in &mut self.tokens[at..end] {
                token.test = true;
            }
            at = end;
        }
    }

    /// Marks the whole file as compiled for tests only.
    pub fn mark_all_as_test(&mut self) {
        for token in &mut self.tokens {
            token.test = true;
        }
    }

    /// The names of the files that this one declares as modules for tests only.
    pub fn test_modules(&self) -> Vec<String> {
        let declares = |at: &usize| {
            self.tokens[*at].test && self.is_word(*at, "mod") && self.is_word(at + 2, ";")
        };
        (0..self.tokens.len())
            .filter(declares)
            .map(|at| self.tokens[at + 1].text.clone())
            .collect()
    }
}

struct Reader {
    text: Vec<char>,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
    comments: Vec<Option<String>>,
}

impl Reader {
    fn new(text: &str) -> Reader {
        Reader {
            text: text.chars().collect(),
            at: 0,
            line: 1,
            tokens: Vec::new(),
            comments: vec![None; text.lines().count().max(1)],
        }
    }

    fn peek(&self, ahead: usize) -> char {
        self.text.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn next(&mut self) -> char {
        let next = self.peek(0);
        self.at += 1;
        if next == '\n' {
            self.line += 1;
        }
        next
    }

    fn ended(&self) -> bool {
        self.at >= self.text.len()
    }

    fn push(&mut self, kind: Kind, text: String, line: usize) {
        self.tokens.push(Token {
            kind,
            text,
            line,
            test: false,
        });
    }

    fn run(&mut self) {
        while !self.ended() {
            match self.peek(0) {
                '/' if self.peek(1) == '/' => self.line_comment(),
                '/' if self.peek(1) == '*' => self.block_comment(),
                '"' => self.string(),
                '\'' => self.quote(),
                c if is_word_start(c) => self.word(),
                c if c.is_ascii_digit() => self.number(),
                c if c.is_whitespace() => {
                    self.next();
                }
                ':' if self.peek(1) == ':' => {
                    self.at += 2;
                    self.push(Kind::Punct, "::".to_owned(), self.line);
                }
                _ => {
                    let text = self.next().to_string();
                    self.push(Kind::Punct, text, self.line);
                }
            }
        }
    }

    fn remark(&mut self, line: usize, text: &str) {
        let Some(slot) = self.comments.get_mut(line - 1) else {
            return;
        };
        let said = slot.get_or_insert_default();
        if !said.is_empty() {
            said.push(' ');
        }
        said.push_str(text.trim());
    }

    fn line_comment(&mut self) {
        let line = self.line;
        let mut text = String::new();
        while !self.ended() && self.peek(0) != '\n' {
            text.push(self.next());
        }
        let said = text.trim_start_matches('/').trim_start_matches('!');
        self.remark(line, said);
    }

    fn block_comment(&mut self) {
        let mut depth = 0usize;
        let mut text = String::new();
        let mut line = self.line;
        while !self.ended() {
            if self.peek(0) == '/' && self.peek(1) == '*' {
                depth += 1;
                self.at += 2;
            } else if self.peek(0) == '*' && self.peek(1) == '/' {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    break;
                }
            } else if self.next() == '\n' {
                self.remark(line, &std::mem::take(&mut text));
                line = self.line;
            } else {
                text.push(self.text[self.at - 1]);
            }
        }
        self.remark(line, &text);
    }

    fn string(&mut self) {
        let line = self.line;
        let mut text = String::new();
        self.next();
        while !self.ended() {
            match self.next() {
                '"' => break,
                '\\' => {
                    text.push('\\');
                    text.push(self.next());
                }
                c => text.push(c),
            }
        }
        self.push(Kind::Text, text, line);
    }

    fn raw_string(&mut self) {
        let line = self.line;
        let mut fence = vec!['"'];
        while self.peek(0) == '#' {
            fence.push(self.next());
        }
        self.next();
        let first = self.at;
        while !self.ended() && !self.text[self.at..].starts_with(&fence) {
            self.next();
        }
        let text = self.text[first..self.at.min(self.text.len())]
            .iter()
            .collect();
        self.at += fence.len();
        self.push(Kind::Text, text, line);
    }

    /// A character, or a lifetime.
    fn quote(&mut self) {
        let line = self.line;
        self.next();
        let character = self.peek(0) == '\\' || self.peek(1) == '\'';
        if !character {
            while is_word(self.peek(0)) {
                self.next();
            }
        } else {
            if self.next() == '\\' {
                self.next();
            }
            while !self.ended() && self.next() != '\'' {}
        }
        self.push(Kind::Other, "'".to_owned(), line);
    }

    fn word(&mut self) {
        let line = self.line;
        let first = self.at;
        while is_word(self.peek(0)) {
            self.next();
        }
        let word: String = self.text[first..self.at].iter().collect();
        let raw = matches!(word.as_str(), "r" | "br" | "cr");
        let plain = matches!(word.as_str(), "b" | "c");
        if raw && (self.peek(0) == '"' || self.peek(0) == '#' && "#\"".contains(self.peek(1))) {
            return self.raw_string();
        }
        if raw && self.peek(0) == '#' {
            self.next();
            return;
        }
        if plain && self.peek(0) == '"' {
            return self.string();
        }
        if word == "b" && self.peek(0) == '\'' {
            return self.quote();
        }
        self.push(Kind::Word, word, line);
    }

    fn number(&mut self) {
        let line = self.line;
        let mut text = String::new();
        while is_word(self.peek(0)) || (self.peek(0) == '.' && self.peek(1).is_ascii_digit()) {
            text.push(self.next());
        }
        self.push(Kind::Other, text, line);
    }
}

fn is_word_start(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}
