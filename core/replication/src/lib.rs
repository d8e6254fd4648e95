//! One segment's replication: owner, replica, activation, resync, messages
