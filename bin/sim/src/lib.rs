//! Simulated disks, network and clock under the same engine
