//! Certificates, mutual TLS, frames and listeners
