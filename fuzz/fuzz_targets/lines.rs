//! The same bytes give the same text and marks, however they are cut; nothing is lost, and without the nonce there is
//! no mark.
#![no_main]

use sealift_pipeline::fuzzing::{Piece, read_lines};

const NONCE: &str = "0123456789abcdef0123456789abcdef";
/// What stands for a mark in what is compared.
const MARK: char = '\u{1}';
/// The longest piece, in bytes.
const LIMIT: usize = 16 * 1024;

libfuzzer_sys::fuzz_target!(|input: (Vec<(u8, i32, String)>, Vec<u8>, Vec<u16>)| {
    let (parts, raw, cuts) = input;
    let mut text = String::new();
    for (kind, number, word) in &parts {
        match kind % 8 {
            0 => text.push_str(&format!("{NONCE} end {} {number}\n", number.unsigned_abs())),
            1 => text.push_str(&format!("{NONCE} exit {number}\n")),
            2 => text.push_str(&format!("{NONCE} ready\n")),
            3 => text.push_str(NONCE),
            4 => text.push_str(&NONCE[..number.unsigned_abs() as usize % NONCE.len()]),
            // As long as a piece may be, and a little more or less.
            5 => text.push_str(&"€".repeat((LIMIT / 3).saturating_add_signed(*number as isize % 64))),
            6 => text.push('\n'),
            _ => text.push_str(&word.replace(MARK, "")),
        }
    }
    assert_eq!(told(&read_cut(text.as_bytes(), &cuts)), expected(&text));
    // Bytes that are no text: all that can be said is that the cuts do not matter.
    let bytes = [text.as_bytes(), &raw, NONCE.as_bytes(), b" exit 0\n", &raw].concat();
    let whole = read_lines(NONCE, [&bytes[..]]);
    assert_eq!(read_cut(&bytes, &cuts), whole);
    assert!(whole.iter().any(|piece| matches!(piece, Piece::Mark(_))));
    let other = "f".repeat(NONCE.len());
    if !text.contains(&other) && !raw.windows(NONCE.len()).any(|part| part == other.as_bytes()) {
        assert!(read_lines(&other, [&bytes[..]]).iter().all(|piece| matches!(piece, Piece::Text { .. })));
    }
});

/// The pieces of these bytes, cut as long as there are cuts, over and over.
fn read_cut(bytes: &[u8], cuts: &[u16]) -> Vec<Piece> {
    let mut chunks = Vec::new();
    let mut rest = bytes;
    for cut in cuts.iter().cycle().take(4096) {
        let (head, tail) = rest.split_at(usize::from(*cut).min(rest.len()));
        chunks.push(head);
        rest = tail;
    }
    chunks.push(rest);
    read_lines(NONCE, chunks)
}

/// Pieces of valid text, put together again.
fn told(pieces: &[Piece]) -> String {
    let mut told = String::new();
    for piece in pieces {
        match piece {
            Piece::Text { text, partial } => {
                assert!(text.len() <= LIMIT);
                told.push_str(text);
                if !partial {
                    told.push('\n');
                }
            }
            Piece::Mark(_) => told.push(MARK),
        }
    }
    told
}

/// What a reader that has the whole text makes of it.
fn expected(text: &str) -> String {
    let is_mark = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        match words[..] {
            ["", "end", step, code] => step.parse::<usize>().is_ok() && code.parse::<i32>().is_ok(),
            ["", "exit", code] => code.parse::<i32>().is_ok(),
            ["", "ready"] => true,
            _ => false,
        }
    };
    let mut expected = String::new();
    for line in text.split_inclusive('\n') {
        match line.strip_suffix('\n').and_then(|line| line.rsplit_once(NONCE)) {
            Some((head, words)) if is_mark(words) => expected.extend([head, &MARK.to_string()]),
            _ => expected.push_str(line),
        }
    }
    expected
}
