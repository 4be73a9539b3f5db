//! What a service account may still ask for: the rows of `op service-account ratelimit`.

use pgrotate_core::provider::{Finding, Severity};
use serde_json::Value;

/// More requests than a run needs; what reads, and what writes.
const READS: u64 = 100;
const WRITES: u64 = 6;

/// Says where a run would come to the end of an allowance, or near it. Rows of a form that is
/// not known are passed over.
pub(super) fn findings(rows: &Value, subject: &str) -> Vec<Finding> {
    rows.as_array().into_iter().flatten().filter_map(|row| finding(row, subject)).collect()
}

fn finding(row: &Value, subject: &str) -> Option<Finding> {
    let (kind, action) = (row["type"].as_str()?, row["action"].as_str()?);
    let (left, limit) = (row["remaining"].as_u64()?, row["limit"].as_u64()?);
    let needed = match action {
        "read" => READS,
        "write" => WRITES,
        "read_write" => READS + WRITES,
        _ => return None,
    };
    let severity = match left {
        _ if left < needed => Severity::Blocks,
        _ if left < 3 * needed => Severity::Warning,
        _ => return None,
    };
    let (whose, of) = match kind {
        "account" => ("all service accounts of the 1Password account together", "requests a day"),
        _ => ("the service account", "requests an hour"),
    };
    let action = action.replace('_', " and ");
    let what =
        format!("{whose} may {action} only {left} more times, of {limit} {of}; a run takes up to {needed}");
    let wait = row["reset"].as_u64().map(|seconds| format!("wait {} minutes", seconds.div_ceil(60)));
    Some(
        Finding::new(severity, subject, what).mend(wait.unwrap_or_else(|| "wait for the next period".into())),
    )
}
