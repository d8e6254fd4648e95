//! iSCSI target sessions: bytes in, bytes and block requests out
