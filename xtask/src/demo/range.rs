//! Which shard a key is in, seen from outside.

/// The slots of the partitioner, Redis Cluster's.
const SLOTS: u16 = 16_384;

/// A range of stored keys: `[slot u16 BE][key]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Range {
    start: Vec<u8>,
    /// Without one it reaches to the last key.
    end: Option<Vec<u8>>,
}

impl Range {
    /// The range as the admin interface shows it: `[0x0800, 0x1000)`, with `∞`
    /// for no end.
    pub(super) fn parse(shown: &str) -> Option<Self> {
        let (start, end) = shown.strip_prefix('[')?.strip_suffix(')')?.split_once(", ")?;
        let end = match end {
            "∞" => None,
            end => Some(bytes(end)?),
        };
        Some(Self { start: bytes(start)?, end })
    }

    /// Whether a key, one without a hash tag, lies within.
    pub(super) fn contains(&self, key: &str) -> bool {
        let stored = [&slot(key).to_be_bytes(), key.as_bytes()].concat();
        self.start <= stored && self.end.as_ref().is_none_or(|end| stored < *end)
    }
}

fn bytes(hexadecimal: &str) -> Option<Vec<u8>> {
    let digits = hexadecimal.strip_prefix("0x")?;
    let byte = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// CRC16 (XMODEM) of the key, modulo the slots.
fn slot(key: &str) -> u16 {
    let crc = key.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            let polynomial = if crc & 0x8000 == 0 { 0 } else { 0x1021 };
            (crc << 1) ^ polynomial
        })
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests;
