//! SCSI block commands: CDBs in, block requests and sense out.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
