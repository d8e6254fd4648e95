//! One node's deterministic engine: routes inputs between the pure parts
