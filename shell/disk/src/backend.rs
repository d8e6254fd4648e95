//! Which way orders reach the kernel, and how that is chosen.

use crate::error::{DiskError, DiskErrorKind};
use std::path::Path;

/// The way to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// One io_uring for all disks of the data thread.
    Uring,
    /// A pool of threads with plain system calls, for hosts and containers that refuse io_uring.
    Threads,
}

impl Backend {
    /// The environment variable that chooses.
    pub const VARIABLE: &str = "HOLDFAST_IO";

    /// The choice of `HOLDFAST_IO` (auto, uring, threads; auto when unset), with a sentence that tells which
    /// it is and why. `uring` is taken at its word: [`crate::Disks::new`] fails where the kernel refuses it.
    pub fn from_env() -> Result<(Backend, String), DiskError> {
        let value = std::env::var_os(Self::VARIABLE).map(|v| v.to_string_lossy().into_owned());
        Self::choose(value.as_deref())
    }

    fn choose(value: Option<&str>) -> Result<(Backend, String), DiskError> {
        match value {
            Some("uring") => Ok((Backend::Uring, "io_uring, as HOLDFAST_IO says".into())),
            Some("threads") => Ok((Backend::Threads, "threads, as HOLDFAST_IO says".into())),
            None | Some("auto" | "") => Ok(match crate::uring::probe() {
                Ok(()) => (Backend::Uring, "io_uring, which the kernel allows".into()),
                Err(e) => (Backend::Threads, format!("threads, because the kernel refuses io_uring: {e}")),
            }),
            Some(other) => Err(DiskError::new(
                Path::new(""),
                DiskErrorKind::BadSetting(other.chars().take(40).collect()),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_chooses_the_backend() {
        assert_eq!(Backend::choose(Some("uring")).unwrap().0, Backend::Uring);
        assert_eq!(Backend::choose(Some("threads")).unwrap().0, Backend::Threads);
    }

    #[test]
    fn auto_says_which_backend_it_took_and_why() {
        let (backend, why) = Backend::choose(None).unwrap();
        match backend {
            Backend::Uring => assert!(why.starts_with("io_uring"), "{why}"),
            Backend::Threads => assert!(why.contains("because"), "{why}"),
        }
    }

    #[test]
    fn an_unknown_setting_is_refused_by_name() {
        let error = Backend::choose(Some("aio")).unwrap_err();
        assert_eq!(error.to_string(), "HOLDFAST_IO is \"aio\"; it is one of auto, uring, threads");
    }
}
