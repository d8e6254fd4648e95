//! From a bundle of logs to the cause, with the evidence
