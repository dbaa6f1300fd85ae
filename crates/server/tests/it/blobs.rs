//! Bytes by their digest: whole or not there.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use sealift_client::api::Stored;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::house::{House, assert_refused, soon};

fn digest_of(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Every file below the folder of blobs.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test]
async fn twenty_megabytes_come_back_as_they_went() {
    let house = House::open().await;
    let mut bytes = vec![0; 20 << 20];
    blake3::Hasher::new().update(b"a seed").finalize_xof().fill(&mut bytes);
    let bytes = Bytes::from(bytes);
    let body = {
        let bytes = bytes.clone();
        let chunks = (0..bytes.len()).step_by(100_001);
        futures_util::stream::iter(
            chunks.map(move |at| Ok::<_, io::Error>(bytes.slice(at..bytes.len().min(at + 100_001)))),
        )
    };
    let stored: Stored = house.client.post_stream("/v1/blobs", body).await.unwrap();
    assert_eq!((stored.digest.as_str(), stored.size), (&*digest_of(&bytes), 20 << 20));
    for _ in 0..2 {
        let back = house.client.bytes(&format!("/v1/blobs/{}", stored.digest)).await.unwrap();
        let back: Vec<Bytes> = back.try_collect().await.unwrap();
        assert!(back.concat() == bytes, "other bytes came back");
    }
}

#[tokio::test]
async fn the_same_bytes_are_one_blob_and_others_another() {
    let house = House::open().await;
    let (one, again, other, empty) =
        tokio::join!(house.upload("one"), house.upload("one"), house.upload("other"), house.upload(""));
    assert_eq!((one.as_str(), &one), (&*digest_of(b"one"), &again));
    assert_eq!((other.as_str(), empty.as_str()), (&*digest_of(b"other"), &*digest_of(b"")));
    assert_eq!(files(&house.dir.path().join("blobs")).len(), 3);
    let stream = house.client.bytes(&format!("/v1/blobs/{empty}")).await.unwrap();
    assert_eq!(stream.try_collect::<Vec<Bytes>>().await.unwrap().concat(), b"");
}

#[tokio::test]
async fn what_is_not_there_is_said_to_be_missing() {
    let house = House::open().await;
    let missing = "0".repeat(64);
    assert_refused(house.client.bytes(&format!("/v1/blobs/{missing}")).await.map(drop), 404, "not-found");
    for digest in ["xyz", "..%2F..%2Fkeys%2Fsigning.key"] {
        assert_refused(house.client.bytes(&format!("/v1/blobs/{digest}")).await.map(drop), 400, "invalid");
    }
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let house = House::open().await;
    let blobs = house.dir.path().join("blobs");
    let half = vec![7; 300_000];
    // One that says how long it is and closes half-way, one in chunks without the last, one whose reader fails.
    for head in ["content-length: 600000", "transfer-encoding: chunked"] {
        let mut stream = tokio::net::UnixStream::connect(house.socket()).await.unwrap();
        let request = format!("POST /v1/blobs HTTP/1.1\r\nhost: test\r\n{head}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        if head.starts_with("transfer") {
            stream.write_all(b"493e0\r\n").await.unwrap();
        }
        stream.write_all(&half).await.unwrap();
        until(&blobs, "the half is there", |files| files.len() == 1).await;
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        soon("the end", stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
        until(&blobs, "nothing is left", <[PathBuf]>::is_empty).await;
    }
    let half = futures_util::stream::iter([Ok(Bytes::from(half)), Err(io::Error::other("the disk broke"))]);
    let answer = house.client.post_stream::<_, Stored>("/v1/blobs", half).await;
    assert!(matches!(answer, Err(sealift_client::Error::Broken(_))), "{answer:?}");
    until(&blobs, "nothing is left", <[PathBuf]>::is_empty).await;
    // And it is as good as before.
    house.upload("whole").await;
    assert_eq!(files(&blobs).len(), 1);
}

/// The server removes the half some time after the connection broke; nobody tells when.
async fn until(folder: &Path, what: &str, wanted: impl Fn(&[PathBuf]) -> bool) {
    soon(what, async {
        while !wanted(&files(folder)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
