//! SCSI block commands: CDBs in, block requests and sense out
