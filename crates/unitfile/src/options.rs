//! A unit file as fleet's API told it: a list of options, and the text that fleet made of one.
//!
//! Guarantees: [`text_of`] writes byte for byte what fleet stored and hashed, and [`options_of`] reads that back. It is
//! fleet's own reading, in which a value that goes on in the next line keeps its `\` and the line's end; comments are
//! no options and are left out.

/// One `Name=Value` of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitOption {
    pub section: String,
    pub name: String,
    pub value: String,
}

/// The text of these options: sections in the order in which they first appear, each with all of its options, and an
/// empty line between two.
#[must_use]
pub fn text_of(options: &[UnitOption]) -> String {
    let mut sections: Vec<(&str, String)> = Vec::new();
    for UnitOption { section, name, value } in options {
        let line = format!("{name}={value}\n");
        match sections.iter_mut().find(|(known, _)| known == section) {
            Some((_, lines)) => lines.push_str(&line),
            None => sections.push((section, line)),
        }
    }
    let texts: Vec<_> = sections.iter().map(|(section, lines)| format!("[{section}]\n{lines}")).collect();
    texts.join("\n")
}

/// The options of a text, in the order of the file. What is neither a section, an option nor a comment is left out; the
/// checks of a unit file say what is wrong with it.
#[must_use]
pub fn options_of(text: &str) -> Vec<UnitOption> {
    let mut options = Vec::new();
    let mut section = None;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            section = header.strip_suffix(']').filter(|name| !name.is_empty()).map(str::to_owned);
            continue;
        }
        let (Some(section), Some((name, first))) = (&section, line.split_once('=')) else { continue };
        let mut value = first.to_owned();
        while value.ends_with('\\') {
            let Some(next) = lines.next().filter(|next| !next.trim().is_empty()) else { break };
            value.push('\n');
            value.push_str(next.trim_end());
        }
        if name.trim().is_empty() {
            continue;
        }
        options.push(UnitOption {
            section: section.clone(),
            name: name.trim().to_owned(),
            value: value.trim().to_owned(),
        });
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(section: &str, name: &str, value: &str) -> UnitOption {
        UnitOption { section: section.into(), name: name.into(), value: value.into() }
    }

    #[test]
    fn options_become_the_text_that_fleet_made() {
        let given = [
            option("Unit", "Description", "hello"),
            option("Service", "ExecStart", "/bin/sh -c \\\n  'sleep 1d'"),
            option("Unit", "After", "a.service"),
            option("X-Fleet", "Global", "true"),
        ];
        let text = "[Unit]\nDescription=hello\nAfter=a.service\n\n[Service]\nExecStart=/bin/sh -c \\\n  'sleep 1d'\n\n[X-Fleet]\nGlobal=true\n";
        assert_eq!(text_of(&given), text);
        let read = options_of(text);
        assert_eq!((read.len(), text_of(&read)), (4, text.to_owned()));
        assert_eq!(text_of(&[]), "");
    }

    #[test]
    fn comments_and_blanks_are_no_options() {
        let text = "# a\n\n[Service]\n ; b\nExecStart = /bin/true \nA=\nB=x=y\nnonsense\n";
        let wanted = [
            option("Service", "ExecStart", "/bin/true"),
            option("Service", "A", ""),
            option("Service", "B", "x=y"),
        ];
        assert_eq!(options_of(text), wanted);
    }

    #[test]
    fn what_would_become_another_option_is_not_read_back() {
        for bad in [
            option("S", "A", "x\n[X]\nB=y"),
            option("S]\n[T", "A", "x"),
            option("S", "#A", "x"),
            option("", "A", "x"),
            option("S", "", "x"),
        ] {
            assert_ne!(options_of(&text_of(std::slice::from_ref(&bad))), [bad]);
        }
    }
}
