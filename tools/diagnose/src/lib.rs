//! From a bundle of logs to the cause, with the evidence.
//!
//! Promise: no claim without a line, no cause where the evidence carries none, the same output for the same input. It reads
//! bundles offline and changes nothing on the host. Formats come from `holdfast-evidence`, knowledge from the rule files.

pub mod analyse;
pub mod causes;
pub mod cli;
pub mod clocks;
pub mod collect;
pub mod computed;
pub mod decides;
pub mod facts;
pub mod knowledge;
pub mod literals;
pub mod model;
pub mod repairs;
pub mod report;
pub mod rules;
pub mod scan;
pub mod score;
pub mod settle;
pub mod synth;
pub mod unknown;
pub mod window;
pub mod words;

pub use analyse::{AnalyseError, Options, analyse};
