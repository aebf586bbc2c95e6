//! The chunked coding (RFC 9112, section 7.1), followed strictly, only to know where a body ends.

use super::Refusal;

/// The most bytes of chunk extensions and trailers in one body; data does not count.
const MAX_OVERHEAD: usize = 16 * 1024;

const BROKEN: Refusal = Refusal::new(400, "broken chunked coding");

/// Where in a chunked body the stream stands.
#[derive(Clone, Debug)]
pub struct Chunked {
    state: State,
    /// Bytes of extensions and trailers so far.
    overhead: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { digits: u8, value: u64 },
    Extension { value: u64 },
    SizeLf { value: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    LineStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

impl Default for Chunked {
    fn default() -> Self {
        Self { state: State::Size { digits: 0, value: 0 }, overhead: 0 }
    }
}

impl Chunked {
    /// Follows the bytes up to the end of the body; returns how many belong to it.
    ///
    /// # Errors
    /// A byte that the grammar does not allow, or too much beside the data. The body is lost then.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, Refusal> {
        let mut used = 0;
        while self.state != State::Done {
            let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) else { break };
            if let State::Data { left } = self.state {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                let left = left - here as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data { left } };
                used += here;
                continue;
            }
            let Some(byte) = rest.first() else { break };
            self.state = self.step(*byte)?;
            used += 1;
        }
        Ok(used)
    }

    /// The last chunk and the trailers have gone by.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        let next = match (self.state, byte) {
            (State::Size { digits: 1.., value } | State::Extension { value }, b'\r') => State::SizeLf { value },
            (State::Size { digits: 1.., value }, b';') => State::Extension { value },
            (State::Size { digits: digits @ ..15, value }, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(BROKEN)?;
                State::Size { digits: digits + 1, value: value * 16 + u64::from(digit) }
            }
            (State::Extension { .. } | State::Trailer | State::LineStart, 0x20..=0x7e | 0x80.. | b'\t') => {
                self.overhead += 1;
                if self.overhead > MAX_OVERHEAD {
                    return Err(Refusal::new(431, "too much beside the data of a chunked body"));
                }
                if self.state == State::LineStart { State::Trailer } else { self.state }
            }
            (State::SizeLf { value: 0 }, b'\n') | (State::TrailerLf, b'\n') => State::LineStart,
            (State::SizeLf { value }, b'\n') => State::Data { left: value },
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { digits: 0, value: 0 },
            (State::LineStart, b'\r') => State::EndLf,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::EndLf, b'\n') => State::Done,
            _ => return Err(BROKEN),
        };
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Some(n)`: the body is whole after n bytes. The answer must not depend on how the stream is cut.
    fn check(body: &str, expected: Result<Option<usize>, u16>) {
        for step in [1, 2, 3, 7, body.len()] {
            let mut chunked = Chunked::default();
            let mut total = 0;
            let mut answer = Ok(None);
            for part in body.as_bytes().chunks(step) {
                match chunked.advance(part) {
                    Ok(used) => total += used,
                    Err(refusal) => {
                        answer = Err(refusal.status);
                        break;
                    }
                }
                if chunked.is_done() {
                    answer = Ok(Some(total));
                    break;
                }
            }
            assert_eq!(answer, expected, "{body:?} by {step}");
        }
    }

    #[test]
    fn bodies_end_where_the_grammar_says() {
        check("0\r\n\r\nGET", Ok(Some(5)));
        check("5\r\nhello\r\n0\r\n\r\n", Ok(Some(15)));
        check("A;name=value\r\n0123456789\r\n000\r\nTrailer: x\r\n\r\nmore", Ok(Some(45)));
        check("5\r\nhello\r\n0\r\n", Ok(None));
        check("5\r\nhel", Ok(None));
    }

    #[test]
    fn loose_forms_are_refused() {
        for body in [
            "0x2\r\nab\r\n",
            "5\nhello\r\n",
            "5\r\nhello\n",
            "5\r\nhelloX\r\n",
            "\r\n",
            " 5\r\nhello",
            "5 \r\nhello",
            "-1\r\n",
            ";x\r\n",
            "5;a\nb\r\n",
            "0\r\nTrailer: x\n\r\n",
            "0\r\n\n",
            "0000000000000005\r\nhello",
            "5\r\rhello",
        ] {
            check(body, Err(400));
        }
        check(&format!("1;{}\r\n", "x".repeat(MAX_OVERHEAD + 1)), Err(431));
    }
}
