//! All tests of the crate from outside, as one program: each program more is the whole library linked, and its generic code
//! compiled, once more.

mod across_hosts;
mod browser;
mod bundles;
mod cli;
mod clocks;
mod collect;
mod collected;
mod common;
mod crashed;
mod decides;
mod fence_timing;
mod field_notes;
mod first_screen;
mod healthy;
mod holdfast_logs;
mod journal;
mod nul_runs;
mod poor_input;
mod programs;
mod real;
mod shapes;
