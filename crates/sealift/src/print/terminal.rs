//! A terminal's size, and texts cut to fit in it.
//!
//! It must not know what is shown.

use std::io::IsTerminal as _;

use unicode_width::UnicodeWidthChar as _;

/// Columns and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
}

/// The size of the terminal that standard output is; none where it is none that can move its cursor.
pub(crate) fn size() -> Option<Size> {
    let stdout = std::io::stdout();
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if dumb || !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    let or = |given: u16, usual: usize| if given == 0 { usual } else { usize::from(given) };
    Some(Size { columns: or(size.ws_col, 80), rows: or(size.ws_row, 24) })
}

/// `text` in at most `columns` columns, with an ellipsis if something had to go. Colours count nothing and are ended.
pub(super) fn cut(text: &str, columns: usize) -> String {
    let mut out = String::new();
    let mut width = 0;
    let mut coloured = false;
    // The place up to which an ellipsis still fits.
    let mut short = 0;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == '\x1b' {
            coloured = true;
            out.push(c);
            for c in rest.by_ref() {
                out.push(c);
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
            continue;
        }
        let c = if c == '\t' { ' ' } else { c };
        let wide = c.width().unwrap_or(0);
        if width + wide > columns {
            out.truncate(short);
            if columns > 0 {
                out.push('…');
            }
            break;
        }
        if width + wide < columns {
            short = out.len() + c.len_utf8();
        }
        width += wide;
        out.push(c);
    }
    if coloured {
        out.push_str("\x1b[0m");
    }
    out
}

/// How many columns `text` takes.
pub(super) fn width(text: &str) -> usize {
    let mut rest = text.chars();
    let mut width = 0;
    while let Some(c) = rest.next() {
        if c == '\x1b' {
            rest.by_ref().find(char::is_ascii_alphabetic);
        } else {
            width += c.width().unwrap_or(0);
        }
    }
    width
}

#[cfg(test)]
mod tests {
    use super::{cut, width};

    #[test]
    fn cuts_by_columns_and_not_by_bytes() {
        for (text, columns, want) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("äöü", 3, "äöü"),
            ("漢字", 4, "漢字"),
            ("漢字漢", 5, "漢字…"),
            ("漢字漢", 4, "漢…"),
            ("a", 0, ""),
            ("\x1b[31mabcd\x1b[0m", 3, "\x1b[31mab…\x1b[0m"),
            ("a\tb", 3, "a b"),
        ] {
            assert_eq!(cut(text, columns), want);
            assert!(width(&cut(text, columns)) <= columns);
        }
    }
}
