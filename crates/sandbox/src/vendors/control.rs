//! To come.

use serde_json::Value;

use super::Vendors;

/// Puts a vendor into a state that a test wants to see handled: `{"system","environment","what","value"}`.
pub(crate) fn apply(_vendors: &Vendors, _request: &Value) -> Result<(), String> {
    Ok(())
}
