//! The language of patterns.
//!
//! ```text
//! pattern  = step { ("then" | "next") step } "in" length
//! step     = name [ times ] [ "as" name ] [ "within" length ]
//!          | "not" name [ "within" length ]
//! times    = "+" | "{" n "}" | "{" n "," "}" | "{" n "," m "}"
//! ```

use std::fmt;

use wasmill_sdk::duration;

/// Most steps, and most of what a step may take.
const STEPS_MAX: usize = 32;
const TIMES_MAX: u32 = 1_000;
/// Words that are no names.
const WORDS: [&str; 6] = ["then", "next", "not", "as", "within", "in"];

/// A pattern as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// Its steps, at least one.
    pub(crate) steps: Vec<Step>,
    /// What must not come behind the last step, and for how long at most; microseconds.
    pub(crate) absent: Option<(Vec<Name>, Option<i64>)>,
    /// How long a match takes at most, in microseconds.
    pub(crate) length: i64,
}

/// A step: events of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// The kind.
    pub(crate) kind: Name,
    /// What the result calls it.
    pub(crate) name: String,
    /// How many at least, from 1.
    pub(crate) min: u32,
    /// How many at most, where there is a bound.
    pub(crate) max: Option<u32>,
    /// Whether its first event has to be the very next of the key.
    pub(crate) next: bool,
    /// How long after the step before its first event may come, in microseconds.
    pub(crate) within: Option<i64>,
    /// What must not come between.
    pub(crate) absent: Vec<Name>,
}

/// A name and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) text: String,
    /// In characters, from 1.
    pub(crate) at: usize,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PatternError {
    at: usize,
    message: String,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.at, self.message)
    }
}

impl PatternError {
    pub(crate) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    /// A number with or without a unit.
    Length(String),
    Sign(char),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(text) | Self::Length(text) => write!(f, "`{text}`"),
            Self::Sign(sign) => write!(f, "`{sign}`"),
        }
    }
}

/// Reads a pattern.
pub(crate) fn parse(text: &str) -> Result<Pattern, PatternError> {
    let mut parser = Parser { tokens: tokens(text)?, place: 0, end: text.chars().count() + 1 };
    parser.pattern()
}

fn tokens(text: &str) -> Result<Vec<(Token, usize)>, PatternError> {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut place) = (Vec::new(), 0);
    while let Some(&first) = chars.get(place) {
        let at = place + 1;
        let run = |fits: fn(char) -> bool| chars[place..].iter().take_while(|c| fits(**c)).count();
        let (token, length) = match first {
            _ if first.is_whitespace() => {
                place += 1;
                continue;
            }
            '0'..='9' => {
                let length = run(|c| c.is_ascii_alphanumeric());
                (Token::Length(chars[place..place + length].iter().collect()), length)
            }
            '{' | '}' | ',' | '+' => (Token::Sign(first), 1),
            '?' | '*' => {
                let message = format!("`{first}` would let a step be left out; a step takes at least one event");
                return Err(PatternError::new(at, message));
            }
            _ if first.is_ascii_alphabetic() || first == '_' => {
                let length = run(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
                (Token::Word(chars[place..place + length].iter().collect()), length)
            }
            other => return Err(PatternError::new(at, format!("{other:?} means nothing in a pattern"))),
        };
        tokens.push((token, at));
        place += length;
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    place: usize,
    end: usize,
}

impl Parser {
    fn at(&self) -> usize {
        self.tokens.get(self.place).map_or(self.end, |(_, at)| *at)
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.place).map(|(token, _)| token)
    }

    fn expected<T>(&self, what: &str) -> Result<T, PatternError> {
        let found = self.peek().map_or("the end".to_owned(), ToString::to_string);
        Err(PatternError::new(self.at(), format!("expected {what}, found {found}")))
    }

    fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(text)) if text == word);
        self.place += usize::from(found);
        found
    }

    fn sign(&mut self, sign: char) -> bool {
        let found = self.peek() == Some(&Token::Sign(sign));
        self.place += usize::from(found);
        found
    }

    fn name(&mut self, what: &str) -> Result<Name, PatternError> {
        let at = self.at();
        match self.peek() {
            Some(Token::Word(text)) if !WORDS.contains(&text.as_str()) => {
                let name = Name { text: text.clone(), at };
                self.place += 1;
                Ok(name)
            }
            _ => self.expected(what),
        }
    }

    fn length(&mut self) -> Result<i64, PatternError> {
        let Some(Token::Length(text)) = self.peek() else {
            return self.expected("a length of time such as 30s, 10m or 2h");
        };
        let micros = duration(text).and_then(|length| i64::try_from(length.as_micros()).ok());
        match micros.filter(|micros| *micros > 0) {
            Some(micros) => {
                self.place += 1;
                Ok(micros)
            }
            None => self.expected("a length of time such as 30s, 10m or 2h"),
        }
    }

    fn number(&mut self) -> Result<u32, PatternError> {
        let Some(Token::Length(text)) = self.peek() else { return self.expected("a number") };
        match text.parse::<u32>() {
            Ok(0) => self.expected("at least 1: a step takes at least one event"),
            Ok(number) if number <= TIMES_MAX => {
                self.place += 1;
                Ok(number)
            }
            Ok(_) => self.expected(&format!("at most {TIMES_MAX}")),
            Err(_) => self.expected("a number"),
        }
    }

    fn within(&mut self) -> Result<Option<i64>, PatternError> {
        if self.word("within") { self.length().map(Some) } else { Ok(None) }
    }

    fn pattern(&mut self) -> Result<Pattern, PatternError> {
        let (mut steps, mut absent, mut next, mut last) = (Vec::<Step>::new(), Vec::new(), false, None);
        loop {
            let at = self.at();
            if self.word("not") {
                if steps.is_empty() {
                    return Err(PatternError::new(at, "a pattern begins with an event that comes"));
                }
                if next {
                    return Err(PatternError::new(at, "`not` goes behind `then`: `next` names the very next event"));
                }
                absent.push(self.name("the kind of event that must not come")?);
                last = self.within()?;
            } else {
                if let Some(within) = last.take() {
                    let message = format!("`not … within {}s` goes at the end of a pattern", within / 1_000_000);
                    return Err(PatternError::new(at, message));
                }
                let mut step = self.step(next, steps.is_empty())?;
                step.absent = std::mem::take(&mut absent);
                if steps.iter().any(|other| other.name == step.name) {
                    let message = format!("two steps are called `{}`: write `{} as NAME`", step.name, step.kind.text);
                    return Err(PatternError::new(at, message));
                }
                steps.push(step);
                if steps.len() > STEPS_MAX {
                    return Err(PatternError::new(at, format!("a pattern has at most {STEPS_MAX} steps")));
                }
            }
            next = false;
            if self.word("then") {
                continue;
            }
            if self.word("next") {
                next = true;
                continue;
            }
            break;
        }
        if !self.word("in") {
            return self.expected("`then`, `next`, or `in` with how long a match takes at most, such as `in 10m`");
        }
        let length = self.length()?;
        if self.peek().is_some() {
            return self.expected("nothing more");
        }
        if let Some(step) = steps.last()
            && absent.is_empty()
            && step.max != Some(step.min)
        {
            let (kind, min) = (&step.kind, step.min);
            let message = format!("the last step is complete with {min}: write `{}{{{min}}}`", kind.text);
            return Err(PatternError::new(kind.at, message));
        }
        Ok(Pattern { steps, absent: (!absent.is_empty()).then_some((absent, last)), length })
    }

    fn step(&mut self, next: bool, first: bool) -> Result<Step, PatternError> {
        let kind = self.name("a kind of event")?;
        let (mut min, mut max) = (1, Some(1));
        if self.sign('+') {
            max = None;
        } else if self.sign('{') {
            min = self.number()?;
            max = Some(min);
            if self.sign(',') {
                max = if self.peek() == Some(&Token::Sign('}')) { None } else { Some(self.number()?) };
            }
            if !self.sign('}') {
                return self.expected("`}`");
            }
            if max.is_some_and(|max| max < min) {
                return Err(PatternError::new(
                    kind.at,
                    format!("`{}` is to come at least {min} times and less", kind.text),
                ));
            }
        }
        let name = if self.word("as") { self.name("a name")?.text } else { kind.text.clone() };
        let at = self.at();
        let within = self.within()?;
        if first && within.is_some() {
            return Err(PatternError::new(at, "`within` counts from the step before, and this is the first"));
        }
        Ok(Step { kind, name, min, max, next, within, absent: Vec::new() })
    }
}

impl Pattern {
    /// The kinds that it names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        let of_steps = self.steps.iter().flat_map(|step| std::iter::once(&step.kind).chain(&step.absent));
        of_steps.chain(self.absent.iter().flat_map(|(names, _)| names))
    }
}
