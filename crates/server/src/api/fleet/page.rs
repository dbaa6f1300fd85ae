//! Paging as fleet did it: a token is the size of a page and its number, two little-endian u16 in URL-safe base64.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Value, json};

use crate::api::Error;

/// Of a page; fleet's default `token_limit`.
const LIMIT: u16 = 100;

/// Reads a token; none is the first page.
fn number(token: Option<&str>) -> Result<u16, Error> {
    let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(1) };
    let bytes = URL_SAFE.decode(token).ok();
    let Some([a, b, c, d]) = bytes.as_deref() else {
        return Err(Error::invalid("invalid value for nextPageToken"));
    };
    if u16::from_le_bytes([*a, *b]) != LIMIT {
        return Err(Error::invalid(format!("token limit must be {LIMIT}")));
    }
    match u16::from_le_bytes([*c, *d]) {
        0 => Err(Error::invalid("token page must be greater than zero")),
        page => Ok(page),
    }
}

fn token(page: u16) -> String {
    let ([a, b], [c, d]) = (LIMIT.to_le_bytes(), page.to_le_bytes());
    URL_SAFE.encode([a, b, c, d])
}

/// The page of `all` that the token asks for, under this name; an empty list is left out.
pub(super) fn of(name: &str, all: impl Iterator<Item = Value>, asked: Option<&str>) -> Result<Value, Error> {
    let page = number(asked)?;
    let limit = usize::from(LIMIT);
    let mut rest = all.skip(usize::from(page - 1) * limit);
    let items: Vec<_> = rest.by_ref().take(limit).collect();
    let mut answer = json!({});
    let Some(object) = answer.as_object_mut().filter(|_| !items.is_empty()) else { return Ok(answer) };
    object.insert(name.to_owned(), items.into());
    // fleet gave a token for an empty page when the last one was full.
    if let (Some(_), Some(next)) = (rest.next(), page.checked_add(1)) {
        object.insert("nextPageToken".to_owned(), token(next).into());
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_those_of_fleet() {
        assert_eq!(token(2), "ZAACAA==");
        assert_eq!(number(Some("ZAACAA==")).unwrap(), 2);
        assert_eq!(number(None).unwrap(), 1);
        for bad in ["x", "ZAAC", "ZQACAA==", "ZAAAAA==", "ZAACAAA="] {
            assert!(number(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn all_pages_together_are_everything_once() {
        for count in [0, 1, 99, 100, 101, 200, 250] {
            let (mut seen, mut asked) = (Vec::new(), None);
            loop {
                let page = of("items", (0..count).map(Value::from), asked.as_deref()).unwrap();
                seen.extend(page["items"].as_array().into_iter().flatten().filter_map(Value::as_u64));
                asked = page["nextPageToken"].as_str().map(str::to_owned);
                if asked.is_none() {
                    break;
                }
            }
            assert_eq!(seen, (0..count).collect::<Vec<u64>>());
        }
    }
}
