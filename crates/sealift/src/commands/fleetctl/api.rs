//! What fleetctl asks a server: fleet's API and nothing else, so that it works with any server that has it.

use std::collections::BTreeMap;

use sealift_client::{Client, Error as ClientError};
use sealift_unitfile::{UnitOption, text_of};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha1::Digest as _;

use crate::error::Error;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Entry {
    section: String,
    name: String,
    value: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Unit {
    pub(super) name: String,
    options: Vec<Entry>,
    pub(super) desired_state: String,
    pub(super) current_state: String,
    #[serde(rename = "machineID")]
    pub(super) machine: String,
}

impl Unit {
    /// In the order of the file.
    pub(super) fn options(&self) -> Vec<UnitOption> {
        let option = |entry: &Entry| UnitOption {
            section: entry.section.clone(),
            name: entry.name.clone(),
            value: entry.value.clone(),
        };
        self.options.iter().map(option).collect()
    }

    pub(super) fn text(&self) -> String {
        text_of(&self.options())
    }

    /// SHA-1 of the text, as fleet made it.
    pub(super) fn hash(&self) -> String {
        sha1::Sha1::digest(self.text().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The last value of an option.
    pub(super) fn option(&self, section: &str, name: &str) -> Option<&str> {
        let found = self.options.iter().rev().find(|entry| entry.section == section && entry.name == name);
        found.map(|entry| entry.value.as_str())
    }

    pub(super) fn is_global(&self) -> bool {
        let value = self.option("X-Fleet", "Global").map(str::to_ascii_lowercase);
        value.is_some_and(|value| matches!(value.as_str(), "true" | "yes" | "1" | "on" | "t"))
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct UnitState {
    pub(super) name: String,
    pub(super) hash: String,
    #[serde(rename = "machineID")]
    pub(super) machine: String,
    #[serde(rename = "systemdLoadState")]
    pub(super) load: String,
    #[serde(rename = "systemdActiveState")]
    pub(super) active: String,
    #[serde(rename = "systemdSubState")]
    pub(super) sub: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Machine {
    pub(super) id: String,
    #[serde(rename = "primaryIP")]
    pub(super) ip: String,
    pub(super) metadata: BTreeMap<String, String>,
}

impl Machine {
    /// As lists show it.
    pub(super) fn legend(&self, full: bool) -> String {
        let id = short_id(&self.id, full);
        if self.ip.is_empty() { id } else { format!("{id}/{}", self.ip) }
    }
}

/// The first 8 digits with dots, or all.
pub(super) fn short_id(id: &str, full: bool) -> String {
    match id.get(..8) {
        Some(short) if !full => format!("{short}..."),
        _ => id.to_owned(),
    }
}

/// A server with fleet's API.
pub(super) struct Fleet {
    pub(super) client: Client,
}

impl Fleet {
    async fn all<T: DeserializeOwned>(&self, noun: &str, list: &str, query: &str) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        let mut token = String::new();
        loop {
            let path = format!("/fleet/v1/{noun}?alt=json{query}&nextPageToken={token}");
            let mut page: BTreeMap<String, Value> = self.client.get(&path).await?;
            if let Some(items) = page.remove(list) {
                let items: Vec<T> = serde_json::from_value(items).map_err(Error::Json)?;
                all.extend(items);
            }
            match page.remove("nextPageToken") {
                Some(Value::String(next)) if !next.is_empty() => token = escaped(&next),
                _ => return Ok(all),
            }
        }
    }

    pub(super) async fn units(&self) -> Result<Vec<Unit>, Error> {
        self.all("units", "units", "").await
    }

    pub(super) async fn states(&self) -> Result<Vec<UnitState>, Error> {
        self.all("state", "states", "").await
    }

    pub(super) async fn states_of(&self, unit: &str) -> Result<Vec<UnitState>, Error> {
        self.all("state", "states", &format!("&unitName={}", escaped(unit))).await
    }

    pub(super) async fn machines(&self) -> Result<Vec<Machine>, Error> {
        self.all("machines", "machines", "").await
    }

    pub(super) async fn unit(&self, name: &str) -> Result<Option<Unit>, Error> {
        match self.client.get(&format!("/fleet/v1/units/{}?alt=json", escaped(name))).await {
            Ok(unit) => Ok(Some(unit)),
            Err(ClientError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes or replaces a unit, or with no options changes what is wanted of it.
    pub(super) async fn put(
        &self,
        name: &str,
        state: &str,
        options: Option<&[UnitOption]>,
    ) -> Result<(), Error> {
        let entry = |option: &UnitOption| Entry {
            section: option.section.clone(),
            name: option.name.clone(),
            value: option.value.clone(),
        };
        let mut body = serde_json::json!({ "name": name, "desiredState": state });
        if let (Some(options), Some(object)) = (options, body.as_object_mut()) {
            let entries: Vec<_> = options.iter().map(entry).collect();
            object.insert("options".into(), serde_json::to_value(entries).map_err(Error::Json)?);
        }
        let path = format!("/fleet/v1/units/{}?alt=json", escaped(name));
        self.client.put::<_, Value>(&path, &body).await?;
        Ok(())
    }

    /// Whether there was such a unit.
    pub(super) async fn destroy(&self, name: &str) -> Result<bool, Error> {
        match self.client.delete(&format!("/fleet/v1/units/{}?alt=json", escaped(name))).await {
            Ok(()) => Ok(true),
            Err(ClientError::Refused { status: 404, .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the server is one of Sealift, which can tell more than fleet's API has words for.
    pub(super) async fn is_ours(&self) -> bool {
        self.client.get::<Value>("/v1/status").await.is_ok()
    }

    /// Why a unit has no machine, where the server can tell.
    pub(super) async fn problem(&self, name: &str) -> Option<String> {
        let view: Value = self.client.get(&format!("/v1/units/{}", escaped(name))).await.ok()?;
        view.get("problem")?.as_str().map(str::to_owned)
    }
}

/// A text as part of a path or a query.
pub(super) fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~@:".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_hashed_as_fleet_did() {
        let unit: Unit = serde_json::from_str(
            r#"{"name":"a.service","options":[{"section":"Service","name":"ExecStart","value":"/bin/sleep 1d"},
                {"section":"X-Fleet","name":"Global","value":"YES"}]}"#,
        )
        .unwrap();
        assert_eq!(unit.text(), "[Service]\nExecStart=/bin/sleep 1d\n\n[X-Fleet]\nGlobal=YES\n");
        assert_eq!(unit.hash().len(), 40);
        assert!(unit.is_global());
        assert_eq!(short_id("0123456789abcdef", false), "01234567...");
        assert_eq!(escaped("a\\x2db@1.service"), "a%5Cx2db@1.service");
    }
}
