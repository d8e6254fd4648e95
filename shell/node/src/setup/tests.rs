//! Tests of init and join, the latter against a served API with a fake cluster behind it.

use super::*;
