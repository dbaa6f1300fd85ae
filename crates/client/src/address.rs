//! Where servers are.

use std::path::PathBuf;
use std::str::FromStr;

/// Where a server listens: `unix:///run/sealift/api.sock`, `https://10.0.0.1:4641` or, without TLS,
/// `http://127.0.0.1:4640`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    Tcp { host: String, port: u16 },
    Tls { host: String, port: u16 },
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            return Ok(Address::Unix(path.into()));
        }
        let wanted = || format!("{text:?} is not unix:///PATH, https://HOST:PORT or http://HOST:PORT");
        let (scheme, authority) = text.split_once("://").ok_or_else(wanted)?;
        let authority = authority.trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':').ok_or_else(wanted)?;
        if host.is_empty() || host.contains('/') {
            return Err(wanted());
        }
        let port = port.parse().map_err(|_| wanted())?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        match scheme {
            "http" => Ok(Address::Tcp { host, port }),
            "https" => Ok(Address::Tls { host, port }),
            _ => Err(wanted()),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scheme, host, port) = match self {
            Address::Unix(path) => return write!(f, "unix://{}", path.display()),
            Address::Tcp { host, port } => ("http", host, port),
            Address::Tls { host, port } => ("https", host, port),
        };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

/// Servers of which any will do, as addresses with commas between them. They are asked in turn until one is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Servers(Vec<Address>);

/// Servers that a client knows at once.
const LIMIT: usize = 16;

impl Servers {
    /// The addresses; never none.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.0
    }

    /// Whether any of them is reached over TLS.
    #[must_use]
    pub fn tls(&self) -> bool {
        self.0.iter().any(|address| matches!(address, Address::Tls { .. }))
    }
}

impl From<Address> for Servers {
    fn from(address: Address) -> Self {
        Self(vec![address])
    }
}

impl FromStr for Servers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let addresses: Vec<Address> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
        if addresses.len() > LIMIT {
            return Err(format!("{} servers are more than the {LIMIT} that are tried", addresses.len()));
        }
        Ok(Self(addresses))
    }
}

impl std::fmt::Display for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, address) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{address}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, Servers};

    #[test]
    fn addresses_are_read_and_printed() {
        for text in [
            "unix:///run/sealift/api.sock",
            "http://127.0.0.1:4640",
            "http://[::1]:4640",
            "https://a.example:4641",
            "https://[fd00::1]:4641",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in
            ["", "/run/x", "http://host", "ftp://host:1", "http://:80", "http://host:99999", "https://host"]
        {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn servers_are_read_and_printed() {
        for (text, count, tls) in [
            ("https://a:4641,https://b:4641", 2, true),
            ("unix:///run/x", 1, false),
            ("http://a:1,https://b:2", 2, true),
        ] {
            let servers: Servers = text.parse().unwrap();
            assert_eq!(
                (servers.to_string().as_str(), servers.addresses().len(), servers.tls()),
                (text, count, tls)
            );
        }
        let many = vec!["https://a:1"; 17].join(",");
        for text in ["", "https://a:1,", ",https://a:1", many.as_str()] {
            assert!(text.parse::<Servers>().is_err(), "{text}");
        }
    }
}
