//! Packages on their way to a machine: nothing is unpacked that is not signed as it says it is.

use std::collections::BTreeMap;
use std::path::Path;

use sealift_agent::releases::{Error, Releases};
use sealift_client::{Address, Client};
use sealift_model::{Digest, Package, PackageName, Timestamp};
use sealift_package::archive;
use sealift_package::signing::SigningKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Answers every request with these bytes.
fn serve(socket: &Path, bytes: Vec<u8>) {
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            if stream.read(&mut request).await.is_ok() {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", bytes.len());
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
            }
        }
    });
}

fn archive(dir: &Path) -> Vec<u8> {
    let tree = dir.join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("hello"), "hello").unwrap();
    let units = BTreeMap::from([("a.service".to_owned(), "[Service]\n".to_owned())]);
    archive::pack(&tree, &units, Vec::new()).unwrap()
}

fn package(commit: char, bytes: &[u8], key: &SigningKey) -> Package {
    let name = PackageName {
        project: "hello".parse().unwrap(),
        branch: "main".parse().unwrap(),
        commit: commit.to_string().repeat(40).parse().unwrap(),
    };
    let digest = Digest::from_bytes(*blake3::hash(bytes).as_bytes());
    let signature = key.sign(bytes, &Package::statement(&name, &digest)).unwrap();
    Package {
        name,
        run: "hello-1".parse().unwrap(),
        digest,
        size: bytes.len() as u64,
        signature,
        created_at: Timestamp(0),
        extra: serde_json::Map::default(),
    }
}

#[tokio::test]
async fn only_what_the_trusted_key_signed_under_this_name_is_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = archive(dir.path());
    let key = SigningKey::load_or_create(&dir.path().join("trusted")).unwrap();
    let other = SigningKey::load_or_create(&dir.path().join("other")).unwrap();
    let socket = dir.path().join("server");
    serve(&socket, bytes.clone());
    let client = Client::new(Address::Unix(socket), None);
    let releases = Releases::open(dir.path().join("releases"), key.public(), client).unwrap();

    let good = package('a', &bytes, &key);
    let folder = releases.ensure(&good).await.unwrap();
    assert_eq!(std::fs::read_to_string(folder.join("hello")).unwrap(), "hello");
    assert_eq!(releases.unit_text(&good, "a.service").unwrap().as_deref(), Some("[Service]\n"));

    let strange = package('b', &bytes, &other);
    let renamed = Package { name: package('c', &bytes, &key).name, ..good.clone() };
    let unsigned = Package { signature: String::new(), ..package('d', &bytes, &key) };
    for bad in [strange, renamed, unsigned] {
        let error = releases.ensure(&bad).await.unwrap_err();
        assert!(matches!(error, Error::Signature { .. }) && !error.retryable(), "{error}");
        assert!(!releases.path(&bad).try_exists().unwrap());
    }
}

#[tokio::test]
async fn old_releases_go_and_those_in_use_stay() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = archive(dir.path());
    let key = SigningKey::load_or_create(&dir.path().join("trusted")).unwrap();
    let socket = dir.path().join("server");
    serve(&socket, bytes.clone());
    let client = Client::new(Address::Unix(socket), None);
    let releases = Releases::open(dir.path().join("releases"), key.public(), client).unwrap();
    let mut folders = Vec::new();
    for commit in "0123456789".chars() {
        folders.push(releases.ensure(&package(commit, &bytes, &key)).await.unwrap());
    }
    let project = "hello".parse().unwrap();
    releases.prune(&project, &folders[..1]).unwrap();
    let left = std::fs::read_dir(folders[0].parent().unwrap()).unwrap().count();
    assert_eq!(left, 6, "five, and the one in use");
    assert!(folders[0].try_exists().unwrap());
}
