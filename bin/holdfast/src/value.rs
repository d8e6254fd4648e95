//! Values of options, checked before anything is sent.

use holdfast_api::size;
use holdfast_node::config::{MAX_NAME, is_name};

/// The unit of a volume's size.
const BLOCK: u64 = 4096;

/// A name of a volume, pool, node or cluster.
pub fn name(text: &str) -> Result<String, String> {
    match is_name(text) {
        true => Ok(text.to_owned()),
        false if text.len() > MAX_NAME => Err(format!(
            "it has {} characters; a name has 1 to {MAX_NAME} of a-z, 0-9 and inner hyphens",
            text.chars().count()
        )),
        false => Err(format!("a name has 1 to {MAX_NAME} of a-z, 0-9 and inner hyphens")),
    }
}

/// A size of a volume in bytes.
pub fn volume_size(text: &str) -> Result<u64, String> {
    let bytes = size::parse(text).map_err(|e| e.to_string())?;
    if bytes == 0 {
        return Err("a volume has at least 4KiB".to_owned());
    }
    if !bytes.is_multiple_of(BLOCK) {
        return Err(format!(
            "a volume's size is a multiple of 4KiB; the next one is {}",
            bytes.checked_next_multiple_of(BLOCK).unwrap_or(bytes - bytes % BLOCK)
        ));
    }
    Ok(bytes)
}
