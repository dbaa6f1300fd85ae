//! A stream of bytes into lines of text and the marks that the session's supervisor puts between them.
//!
//! Guarantees: the same bytes give the same pieces, however they were cut into chunks; at most one line's worth
//! ([`LIMIT`] and a mark) is held back; nothing is lost, and bytes that are not UTF-8 become U+FFFD.
//!
//! A mark is `NONCE end STEP CODE`, `NONCE exit CODE` or `NONCE ready` and a newline. It may start anywhere in a line, because a
//! step's last line need not end in a newline. The nonce elsewhere (a step that lists processes) is plain text.
//!
//! It must not know where the bytes come from.

use memchr::{memchr, memmem};

/// Longest piece of a line, in bytes.
pub(crate) const LIMIT: usize = 16 * 1024;
/// Longest mark behind its nonce: a word, two numbers, blanks.
const MARK: usize = 64;

/// What the supervisor said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A step is over and the shell goes on.
    End { step: usize, code: i32 },
    /// The shell is gone.
    Exit { code: i32 },
    /// What was asked for is done; what follows comes from a new shell.
    Ready,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text without its newline; partial when none followed.
    Text {
        text: String,
        partial: bool,
    },
    Mark(Mark),
}

pub(crate) struct LineReader {
    nonce: memmem::FinderRev<'static>,
    /// The line that has not ended yet.
    pending: Vec<u8>,
}

impl LineReader {
    pub(crate) fn new(nonce: &str) -> LineReader {
        LineReader { nonce: memmem::FinderRev::new(nonce.as_bytes()).into_owned(), pending: Vec::new() }
    }

    /// Takes a chunk and gives what is complete.
    pub(crate) fn push(&mut self, chunk: &[u8], out: &mut Vec<Piece>) {
        let mut rest = chunk;
        while let Some(end) = memchr(b'\n', rest) {
            if self.pending.is_empty() {
                self.line(&rest[..end], out);
            } else {
                self.pending.extend_from_slice(&rest[..end]);
                let line = std::mem::take(&mut self.pending);
                self.line(&line, out);
                self.pending = line;
                self.pending.clear();
            }
            rest = &rest[end + 1..];
        }
        self.pending.extend_from_slice(rest);
        self.cut_long_line(out);
    }

    /// What is left when the stream has ended.
    pub(crate) fn finish(&mut self, out: &mut Vec<Piece>) {
        let line = std::mem::take(&mut self.pending);
        if !line.is_empty() {
            pieces(&line, true, out);
        }
    }

    fn line(&self, line: &[u8], out: &mut Vec<Piece>) {
        // A mark is at the end of its line: the last nonce is the one that counts.
        let mark = self.nonce.rfind(line).and_then(|at| {
            let words = std::str::from_utf8(&line[at + self.nonce.needle().len()..]).ok()?;
            Some((at, parse_mark(words)?))
        });
        let Some((at, mark)) = mark else {
            pieces(line, false, out);
            return;
        };
        if at > 0 {
            pieces(&line[..at], true, out);
        }
        out.push(Piece::Mark(mark));
    }

    /// Gives away the head of a line that is too long to wait for its end. It holds no part of a mark: a mark that
    /// started in it would have ended, with its newline, within the bytes that are kept.
    fn cut_long_line(&mut self, out: &mut Vec<Piece>) {
        let keep = self.nonce.needle().len() + MARK;
        let mut start = 0;
        while self.pending.len() - start > LIMIT + keep {
            let cut = start + boundary(&self.pending[start..]);
            let text = String::from_utf8_lossy(&self.pending[start..cut]).into_owned();
            out.push(Piece::Text { text, partial: true });
            start = cut;
        }
        if start > 0 {
            self.pending.drain(..start);
        }
    }
}

fn parse_mark(words: &str) -> Option<Mark> {
    let mut words = words.strip_prefix(' ')?.split(' ');
    let mark = match words.next()? {
        "end" => Mark::End { step: words.next()?.parse().ok()?, code: words.next()?.parse().ok()? },
        "exit" => Mark::Exit { code: words.next()?.parse().ok()? },
        "ready" => Mark::Ready,
        _ => return None,
    };
    words.next().is_none().then_some(mark)
}

/// A text in pieces of at most [`LIMIT`] bytes; the last one is partial if `open`.
fn pieces(mut text: &[u8], open: bool, out: &mut Vec<Piece>) {
    while text.len() > LIMIT {
        let (head, tail) = text.split_at(boundary(text));
        out.push(Piece::Text { text: String::from_utf8_lossy(head).into_owned(), partial: true });
        text = tail;
    }
    out.push(Piece::Text { text: String::from_utf8_lossy(text).into_owned(), partial: open });
}

/// Where to cut: at [`LIMIT`], or up to three bytes before it so as not to cut a character in two.
fn boundary(text: &[u8]) -> usize {
    let continues = |at: &usize| text.get(*at).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000);
    (LIMIT - 3..=LIMIT).rev().find(|at| !continues(at)).unwrap_or(LIMIT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: &str = "0123456789abcdef0123456789abcdef";

    fn read(bytes: &[u8], cuts: &[usize]) -> Vec<Piece> {
        let mut reader = LineReader::new(NONCE);
        let mut out = Vec::new();
        let mut rest = bytes;
        for cut in cuts {
            let (head, tail) = rest.split_at((*cut).min(rest.len()));
            reader.push(head, &mut out);
            assert!(reader.pending.len() <= LIMIT + NONCE.len() + MARK);
            rest = tail;
        }
        reader.push(rest, &mut out);
        reader.finish(&mut out);
        out
    }

    fn text(text: &str, partial: bool) -> Piece {
        Piece::Text { text: text.into(), partial }
    }

    #[test]
    fn finds_marks_anywhere_in_a_line() {
        let bytes = format!("a\nb{NONCE} end 3 -7\n{NONCE} exit 137\n{NONCE} ready\nc\n");
        let want = [
            text("a", false),
            text("b", true),
            Piece::Mark(Mark::End { step: 3, code: -7 }),
            Piece::Mark(Mark::Exit { code: 137 }),
            Piece::Mark(Mark::Ready),
            text("c", false),
        ];
        assert_eq!(read(bytes.as_bytes(), &[]), want);
    }

    #[test]
    fn a_nonce_that_is_no_mark_is_text() {
        for line in [
            format!("ps {NONCE} sh"),
            format!("{NONCE} end 1"),
            format!("{NONCE} exit 1 2"),
            format!("{NONCE} ready x"),
        ] {
            assert_eq!(read(format!("{line}\n").as_bytes(), &[]), [text(&line, false)]);
        }
    }

    #[test]
    fn a_mark_behind_a_part_of_its_nonce_is_found() {
        let (half, _) = NONCE.split_at(NONCE.len() / 2);
        let want = [text(half, true), Piece::Mark(Mark::Ready)];
        assert_eq!(read(format!("{half}{NONCE} ready\n").as_bytes(), &[]), want);
    }

    #[test]
    fn keeps_a_mark_behind_a_long_line_whole() {
        for extra in 0..200 {
            let bytes = format!("{}{NONCE} end 1 0\n", "x".repeat(LIMIT - 60 + extra));
            let pieces = read(bytes.as_bytes(), &[7; 3000]);
            assert_eq!(pieces.last(), Some(&Piece::Mark(Mark::End { step: 1, code: 0 })), "{extra}");
        }
    }

    #[test]
    fn does_not_cut_characters() {
        let bytes = format!("{}€{}\n", "x".repeat(LIMIT - 1), "y".repeat(LIMIT));
        for piece in read(bytes.as_bytes(), &[]) {
            assert!(matches!(piece, Piece::Text { text, .. } if !text.contains('\u{fffd}')));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
        #[test]
        fn any_chunking_gives_the_same_pieces(
            parts in prop::collection::vec(
                prop_oneof![
                    "[a-z€\n]{0,40}".prop_map(String::into_bytes),
                    prop::collection::vec(any::<u8>(), 0..40),
                    Just(format!("{NONCE} end 1 7\n").into_bytes()),
                    Just(format!("{NONCE} exit 0\n").into_bytes()),
                    Just(NONCE.as_bytes().to_vec()),
                    (0..40_000usize).prop_map(|n| vec![b'z'; n]),
                    Just("ä".repeat(20_000).into_bytes()),
                ],
                0..8,
            ),
            cuts in prop::collection::vec(0..30_000usize, 0..20),
        ) {
            let bytes = parts.concat();
            let whole = read(&bytes, &[]);
            prop_assert_eq!(&read(&bytes, &cuts), &whole);
            prop_assert_eq!(&read(&bytes[..bytes.len().min(3000)], &[1; 3000]), &read(&bytes[..bytes.len().min(3000)], &[]));
        }
    }
}
