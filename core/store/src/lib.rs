//! One disk's store: formats, journal, group commit, extents, recovery, space
