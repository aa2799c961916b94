//! Which fields of an event an expression can see.
//!
//! To parse a whole event for one field costs many times what the field costs. Where an expression
//! is plainly made of fields, constants, operators and objects of such, the rest of the event is
//! never parsed. The test is on the text, and careful: whatever it does not know might look at the
//! whole event.

/// What an expression needs to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Names of the event's fields; `None` for all of it.
    pub(crate) fields: Option<Vec<String>>,
    /// Whether it speaks of `$key` or `$time`.
    pub(crate) variables: bool,
}

/// Functions that look at what comes through the pipe before them and nothing else.
const PLAIN: &[&str] = &[
    "abs",
    "ascii_downcase",
    "ascii_upcase",
    "ceil",
    "floor",
    "length",
    "not",
    "round",
    "tojson",
    "tonumber",
    "tostring",
    "trim",
    "type",
];
const WORDS: &[&str] = &["and", "or", "true", "false", "null", "if", "then", "elif", "else", "end"];

#[derive(Debug, Clone, PartialEq)]
enum Token<'a> {
    Field(&'a str),
    Word(&'a str),
    Constant,
    Symbol(char),
}

impl Needs {
    pub(crate) fn of(text: &str) -> Self {
        let variables = text.contains("$key") || text.contains("$time");
        Self { fields: tokens(text).and_then(|tokens| fields(&tokens)), variables }
    }
}

/// The tokens of a text, `None` where there is one that is not known.
fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = |text: &str| text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        let len = match first {
            '.' => {
                let len = word(&rest[1..]);
                if len == 0 || rest[1..].starts_with(|c: char| c.is_ascii_digit()) {
                    return None;
                }
                tokens.push(Token::Field(&rest[1..=len]));
                len + 1
            }
            '"' => {
                let len = rest[1..].find(['"', '\\']).filter(|at| rest[1 + at..].starts_with('"'))? + 2;
                tokens.push(Token::Constant);
                len
            }
            '$' => {
                let len = word(&rest[1..]) + 1;
                if !matches!(&rest[..len], "$key" | "$time") {
                    return None;
                }
                tokens.push(Token::Constant);
                len
            }
            '0'..='9' => {
                tokens.push(Token::Constant);
                rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len())
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                let len = word(rest);
                tokens.push(Token::Word(&rest[..len]));
                len
            }
            '=' if !rest.starts_with("==") => return None,
            '+' | '-' | '*' | '/' | '%' | '<' | '>' | '=' | '!' | '(' | ')' | '{' | '}' | ':' | ',' | '|' => {
                // Updates change the whole event.
                let pair = rest.get(..2).unwrap_or_default();
                let update = matches!(pair, "|=" | "+=" | "-=" | "*=" | "/=" | "%=" | "//");
                if update {
                    return None;
                }
                tokens.push(Token::Symbol(first));
                if matches!(pair, "==" | "!=" | "<=" | ">=") { 2 } else { 1 }
            }
            _ => return None,
        };
        rest = rest[len..].trim_start();
    }
    Some(tokens)
}

fn fields(tokens: &[Token<'_>]) -> Option<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    let mut need = |name: &str| {
        if !names.iter().any(|one| one == name) {
            names.push(name.to_owned());
        }
    };
    // What stands open: a brace makes an object, in which a bare name is a key.
    let mut open = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| tokens.get(at));
        let after = tokens.get(at + 1);
        match token {
            Token::Field(name) => need(name),
            Token::Constant => {
                // A key in quotes is no shorthand for a field here, and a computed one is rare.
                let key = open.last() == Some(&'{') && matches!(before, Some(Token::Symbol('{' | ',')));
                if key && after != Some(&Token::Symbol(':')) {
                    return None;
                }
            }
            Token::Word(word) => {
                let key = open.last() == Some(&'{') && matches!(before, Some(Token::Symbol('{' | ',')));
                let piped = before == Some(&Token::Symbol('|')) && after != Some(&Token::Symbol('('));
                if key {
                    if after != Some(&Token::Symbol(':')) {
                        need(word);
                    }
                } else if !(WORDS.contains(word) || piped && PLAIN.contains(word)) {
                    return None;
                }
            }
            Token::Symbol(symbol @ ('(' | '{')) => open.push(*symbol),
            Token::Symbol(')' | '}') => {
                open.pop()?;
            }
            Token::Symbol(_) => {}
        }
    }
    Some(names)
}
