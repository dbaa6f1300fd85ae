//! Amazon's Signature Version 4 of a request, in the header `Authorization`.
//!
//! Guarantees: what the header holds of the secret key is a signature, which is good for this request alone.
//!
//! It must not know what is asked for, and has no clock.

use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::hex::hex;

/// A request as it is sent, but for the header that is made here.
pub(super) struct Unsigned<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// Encoded, and sorted by name.
    pub(super) query: &'a str,
    /// Names in lower case, sorted; `host` and `x-amz-date` among them.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
}

/// Who signs, and for what.
pub(super) struct Signer<'a> {
    pub(super) access_key: &'a str,
    pub(super) secret_key: &'a str,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    /// As in `x-amz-date`: `20150830T123600Z`.
    pub(super) time: &'a str,
}

impl Signer<'_> {
    /// The value of `Authorization`.
    pub(super) fn authorization(&self, request: &Unsigned<'_>) -> String {
        let Signer { access_key, region, service, time, .. } = self;
        let day = time.split('T').next().unwrap_or_default();
        let scope = format!("{day}/{region}/{service}/aws4_request");
        let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let canonical = hex(&Sha256::digest(canonical(request, &names)));
        let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{canonical}");
        let signature = hex(&hmac(&self.key(day), &to_sign));
        format!(
            "AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
    }

    /// The key of a day, a region and a service.
    fn key(&self, day: &str) -> [u8; 32] {
        let day = hmac(format!("AWS4{}", self.secret_key).as_bytes(), day);
        let region = hmac(&day, self.region);
        let service = hmac(&region, self.service);
        hmac(&service, "aws4_request")
    }
}

fn canonical(request: &Unsigned<'_>, names: &str) -> String {
    let Unsigned { method, path, query, headers, body } = request;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let digest = hex(&Sha256::digest(body));
    format!("{method}\n{path}\n{query}\n{headers}\n{names}\n{digest}")
}

fn hmac(key: &[u8], text: &str) -> [u8; 32] {
    // A key of any length will do; the error is that of other kinds of MAC.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "20150830T123600Z";

    fn signer<'a>(service: &'a str) -> Signer<'a> {
        Signer {
            access_key: "AKIDEXAMPLE",
            secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            region: "us-east-1",
            service,
            time: TIME,
        }
    }

    /// Cases of the published test suite (aws-sig-v4-test-suite, the folders of these names).
    #[test]
    fn signs_like_the_published_suite() {
        let plain = [("host", "example.amazonaws.com"), ("x-amz-date", TIME)];
        let form = [("content-type", "application/x-www-form-urlencoded"), plain[0], plain[1]];
        for (case, method, query, headers, body, names, signature) in [
            (
                "get-vanilla",
                "GET",
                "",
                &plain[..],
                "",
                "host;x-amz-date",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "get-vanilla-query-order-key-case",
                "GET",
                "Param1=value1&Param2=value2",
                &plain,
                "",
                "host;x-amz-date",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                "post-vanilla",
                "POST",
                "",
                &plain,
                "",
                "host;x-amz-date",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                "post-x-www-form-urlencoded",
                "POST",
                "",
                &form,
                "Param1=value1",
                "content-type;host;x-amz-date",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ] {
            let request = Unsigned { method, path: "/", query, headers, body: body.as_bytes() };
            let want = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                 SignedHeaders={names}, Signature={signature}"
            );
            assert_eq!(signer("service").authorization(&request), want, "{case}");
        }
    }

    /// The example that the documentation of Signature Version 4 works through: ListUsers of IAM, and its signing key.
    #[test]
    fn signs_like_the_documentation() {
        let headers = [
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("host", "iam.amazonaws.com"),
            ("x-amz-date", TIME),
        ];
        let query = "Action=ListUsers&Version=2010-05-08";
        let request = Unsigned { method: "GET", path: "/", query, headers: &headers, body: b"" };
        let want = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
                    SignedHeaders=content-type;host;x-amz-date, \
                    Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";
        assert_eq!(signer("iam").authorization(&request), want);
        let key = "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9";
        assert_eq!(hex(&signer("iam").key("20150830")), key);
    }
}
