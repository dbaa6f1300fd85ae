//! HTTP/1.1 by hand, for what the client would never send.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::house::soon;

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The code of a refusal, which has to be JSON of the documented form.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        assert!(self.head.to_ascii_lowercase().contains("content-type: application/json"), "{self:?}");
        let failure: sealift_client::api::Failure =
            serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert!(!failure.error.message.is_empty(), "{self:?}");
        failure.error.code
    }
}

/// Sends one request and reads the answer to the end of the connection.
pub(crate) async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    // A server that refuses does not always read to the end, and hangs up when it has said so.
    let sent = soon("the request's way", stream.write_all(request.as_bytes())).await;
    let mut bytes = Vec::new();
    let read = soon("an answer", stream.read_to_end(&mut bytes)).await;
    assert!(!bytes.is_empty(), "no answer: {sent:?} {read:?}");
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
