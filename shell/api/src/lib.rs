//! HTTP API, metrics and the event log
