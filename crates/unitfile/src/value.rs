//! Values as systemd writes them: sizes, time spans and shares, and cores as `[X-Fleet]` has them.
//!
//! What cannot be read comes back with what to write instead.

use sealift_model::Share;

/// How many digits a number may have before and behind its point.
const MOST_DIGITS: usize = 18;

/// What to write instead of the value.
pub(crate) type Help = &'static str;

/// Bytes: `512M`, `1.5G`, `1073741824`. The units are powers of 1024, as systemd's are.
pub(crate) fn size(text: &str) -> Result<u64, Help> {
    let wanted = "a size such as 512M or 1.5G; the units are K, M, G, T, P and E";
    if text.ends_with('%') {
        return Err("what is asked of a machine is a size such as 512M, no percentage: machines differ");
    }
    let (number, unit) = split(text).ok_or(wanted)?;
    let shift = match unit {
        "" | "B" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "P" => 50,
        "E" => 60,
        "k" | "m" | "g" | "t" => return Err("the units are written in capitals: K, M, G, T"),
        _ => return Err(wanted),
    };
    number.scaled(1u64 << shift).ok_or("smaller than 16E")
}

/// Thousandths of a core: `0.5`, `2`, `500m`.
pub(crate) fn cores(text: &str) -> Result<u32, Help> {
    let wanted = "cores such as 0.5 or 2, or thousandths of one such as 500m";
    if text.ends_with('%') {
        return Err("in cores: 50% of one core is 0.5");
    }
    let (number, unit) = split(text).ok_or(wanted)?;
    let thousandths = match unit {
        "" => number.scaled(1000),
        "m" => number.scaled(1),
        _ => return Err(wanted),
    };
    thousandths.and_then(|count| u32::try_from(count).ok()).ok_or("less than 4294967 cores")
}

/// Milliseconds: `10s`, `2min`, `1h 30min`, `90` (seconds), as systemd.time(7) has them. None for `infinity`.
pub(crate) fn span(text: &str) -> Result<Option<u64>, Help> {
    let wanted = "a time such as 10s, 2min or 1h 30min";
    if text == "infinity" {
        return Ok(None);
    }
    let (mut rest, mut total) = (text.trim(), 0u64);
    if rest.is_empty() {
        return Err(wanted);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let micros: u64 = match unit {
            "us" | "usec" | "µs" | "μs" => 1,
            "ms" | "msec" => 1_000,
            "" | "s" | "sec" | "second" | "seconds" => 1_000_000,
            "m" | "min" | "minute" | "minutes" => 60_000_000,
            "h" | "hr" | "hour" | "hours" => 3_600_000_000,
            "d" | "day" | "days" => 86_400_000_000,
            "w" | "week" | "weeks" => 604_800_000_000,
            "M" | "month" | "months" => 2_629_800_000_000,
            "y" | "year" | "years" => 31_557_600_000_000,
            _ => return Err(wanted),
        };
        let part = Number::read(number).and_then(|number| number.scaled(micros)).ok_or(wanted)?;
        total = total.checked_add(part).ok_or("less than 500000 years")?;
        rest = after.trim_start();
    }
    Ok(Some(total / 1000))
}

/// `2` or `25%`.
pub(crate) fn share(text: &str) -> Result<Share, Help> {
    let wanted = "a number from 1, or a percentage such as 25%";
    match text.strip_suffix('%') {
        Some(percent) => match percent.trim_end().parse() {
            Ok(percent @ 1..=100) => Ok(Share::Percent(percent)),
            Ok(_) => Err("a percentage is from 1% to 100%"),
            Err(_) => Err(wanted),
        },
        None => match text.parse() {
            Ok(0) => Err("with none out at once nothing could be updated"),
            Ok(count) => Ok(Share::Count(count)),
            Err(_) => Err(wanted),
        },
    }
}

/// A decimal number, exactly.
struct Number {
    whole: u64,
    /// The digits behind the point, and ten to the power of how many they are.
    fraction: u64,
    scale: u64,
}

impl Number {
    fn read(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.len() <= MOST_DIGITS && part.bytes().all(|b| b.is_ascii_digit());
        // `.5` and `5.` are numbers to systemd, `.` is none.
        if !digits(whole) || !digits(fraction) || whole.len() + fraction.len() == 0 {
            return None;
        }
        let scale = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let value = |part: &str| if part.is_empty() { Some(0) } else { part.parse().ok() };
        Some(Self { whole: value(whole)?, fraction: value(fraction)?, scale })
    }

    /// So many times `factor`, rounded down.
    fn scaled(&self, factor: u64) -> Option<u64> {
        let whole = u128::from(self.whole) * u128::from(factor);
        let fraction = u128::from(self.fraction) * u128::from(factor) / u128::from(self.scale);
        u64::try_from(whole + fraction).ok()
    }
}

/// A number and the unit behind it.
fn split(text: &str) -> Option<(Number, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((Number::read(number)?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_by_table() {
        for (text, wanted) in [
            ("0", Some(0)),
            ("1", Some(1)),
            ("1B", Some(1)),
            ("512M", Some(512 << 20)),
            ("512 M", Some(512 << 20)),
            ("1.5G", Some(3 << 29)),
            ("0.1K", Some(102)),
            (".5K", Some(512)),
            ("15E", Some(15 << 60)),
            ("16E", None),
            ("99999999999999999999", None),
            ("", None),
            (".", None),
            ("M", None),
            ("-1M", None),
            ("512m", None),
            ("512MB", None),
            ("512MiB", None),
            ("50%", None),
            ("1.2.3", None),
        ] {
            assert_eq!(size(text).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn cores_by_table() {
        for (text, wanted) in [
            ("2", Some(2000)),
            ("0.5", Some(500)),
            ("1.0005", Some(1000)),
            ("500m", Some(500)),
            ("4294967", Some(4_294_967_000)),
            ("4294968", None),
            ("50%", None),
            ("2c", None),
            ("m", None),
            ("", None),
        ] {
            assert_eq!(cores(text).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn spans_by_table() {
        for (text, wanted) in [
            ("0", Some(Some(0))),
            ("90", Some(Some(90_000))),
            ("10s", Some(Some(10_000))),
            ("2min", Some(Some(120_000))),
            ("1h 30min", Some(Some(5_400_000))),
            ("1h30min", Some(Some(5_400_000))),
            ("1.5 h", Some(Some(5_400_000))),
            ("250ms", Some(Some(250))),
            ("infinity", Some(None)),
            ("", None),
            ("s", None),
            ("5x", None),
            ("-5s", None),
            ("5 s x", None),
            ("999999999999999999y", None),
        ] {
            assert_eq!(span(text).ok(), wanted, "{text}");
        }
    }

    #[test]
    fn shares_by_table() {
        for (text, wanted) in [
            ("1", Some(Share::Count(1))),
            ("25%", Some(Share::Percent(25))),
            ("100%", Some(Share::Percent(100))),
            ("0", None),
            ("0%", None),
            ("101%", None),
            ("300%", None),
            ("%", None),
            ("1.5", None),
            ("", None),
        ] {
            assert_eq!(share(text).ok(), wanted, "{text}");
        }
    }
}
