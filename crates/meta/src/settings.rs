//! Named settings of the whole cluster.

use zerompk::{FromMessagePack, ToMessagePack};

use crate::limits::{
    REPLICAS_PER_GROUP_MAX, SETTING_NAME_BYTES_MAX, SETTING_TEXT_BYTES_MAX, SETTINGS_MAX,
};
use crate::nodes::is_text;
use crate::registry::Registry;
use crate::reply::{Limited, Refusal, Reply};

/// How many replicas placement aims at for each shard, a number from one to
/// [`REPLICAS_PER_GROUP_MAX`]. A bootstrap sets it.
pub const TARGET_REPLICAS: &str = "target_replicas";

/// What a setting holds.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum SettingValue {
    /// A number.
    #[msgpack(key = 0)]
    Number(u64),
    /// A text.
    #[msgpack(key = 1)]
    Text(String),
}

impl Registry {
    pub(crate) fn set(
        &mut self,
        name: String,
        value: Option<SettingValue>,
    ) -> Result<Reply, Refusal> {
        if !is_allowed(&name, value.as_ref()) {
            return Err(Refusal::SettingInvalid);
        }
        let is_new = self.view().setting(&name).is_none();
        if is_new && value.is_some() && self.view().settings().count() >= SETTINGS_MAX {
            return Err(Limited::Settings.at(SETTINGS_MAX));
        }
        self.put_setting(name, value);
        Ok(self.done())
    }
}

fn is_allowed(name: &str, value: Option<&SettingValue>) -> bool {
    let within = match value {
        Some(SettingValue::Text(text)) => text.len() <= SETTING_TEXT_BYTES_MAX,
        Some(SettingValue::Number(_)) | None => true,
    };
    let meaningful = match (name, value) {
        (TARGET_REPLICAS, Some(SettingValue::Number(count))) => {
            (1..=REPLICAS_PER_GROUP_MAX as u64).contains(count)
        }
        (TARGET_REPLICAS, _) => false,
        _ => true,
    };
    is_text(name, SETTING_NAME_BYTES_MAX) && within && meaningful
}
