//! Carries the store's orders to a disk: io_uring or threads, O_DIRECT
