//! NBD server sessions: bytes in, bytes and block requests out
