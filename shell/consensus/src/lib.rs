//! Adapter to the consensus library, and the control plane around it
