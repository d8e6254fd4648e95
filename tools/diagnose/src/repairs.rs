//! What must be put right by hand, whatever the cause was: damage that stays when the incident is over.
//!
//! Promise: only from facts with a line; nothing here judges causes.

use crate::facts::Fact;
use crate::model::RecommendOut;

/// Repairs that facts call for.
pub fn repairs(facts: &[Fact]) -> Vec<RecommendOut> {
    facts
        .iter()
        .filter(|f| f.rule == "config.crontab-broken")
        .map(|f| RecommendOut {
            urgency: "now".to_owned(),
            owner: "system".to_owned(),
            text: format!(
                "restore the crontab on {}: cron runs none of its entries until then ({})",
                f.host, f.id
            ),
            cause: f.rule.clone(),
            facts: vec![f.id.clone()],
        })
        .collect()
}
