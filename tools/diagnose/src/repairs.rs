//! What must be put right by hand, whatever the cause was: damage that stays when the incident is over.
//!
//! Promise: only from facts with a line; nothing here judges causes.

use crate::facts::Fact;
use crate::model::RecommendOut;
use crate::words::Said;

/// Repairs that facts call for.
pub fn repairs(facts: &[Fact]) -> Vec<RecommendOut> {
    facts
        .iter()
        .filter(|f| f.rule == "config.crontab-broken")
        .map(|f| RecommendOut {
            urgency: Said::of("now", &[]),
            owner: Said::of("system", &[]),
            text: Said::of(
                "restore the crontab on {host}: cron runs none of its entries until then ({fact})",
                &[("host", &f.host), ("fact", &f.id)],
            ),
            cause: f.rule.clone(),
            facts: vec![f.id.clone()],
        })
        .collect()
}
