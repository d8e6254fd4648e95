//! The cluster map, its pure apply, membership, and the failure detector
