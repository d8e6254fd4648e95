//! `holdfast volume`.

mod check;

use crate::failure::Failure;
use crate::global::Context;
use crate::{node, output, value};
use clap::Subcommand;
use holdfast_api::model::{self, CreateVolume};
use holdfast_api::size::show;
use std::io::{self, BufRead, IsTerminal, Write};

/// Make, resize, check and delete volumes
#[derive(Subcommand)]
pub enum Volume {
    /// Make a thin volume; every node serves it over iSCSI and NBD at once
    #[command(after_help = "Examples:
  holdfast volume create demo --size 4G
  holdfast volume create scratch --size 512MiB --copies 2")]
    Create {
        /// Its name: 1 to 63 of a-z, 0-9 and inner hyphens
        #[arg(value_parser = value::name)]
        name: String,
        /// Its size: a whole number with K, M, G, T or P, or KiB …
        #[arg(long, value_parser = value::volume_size)]
        size: u64,
        /// How many copies to keep, each on another node [default: 3, or as many as there are nodes]
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=5))]
        copies: Option<u8>,
        /// The pool [default: default]
        #[arg(long, value_parser = value::name)]
        pool: Option<String>,
    },
    /// List the volumes
    #[command(after_help = "Examples:
  holdfast volume ls
  holdfast --json volume ls | jq -r '.[].name'")]
    Ls,
    /// Show one volume: its URLs, segments, copies and sessions
    #[command(after_help = "Examples:
  holdfast volume show demo
  holdfast --json volume show demo | jq '.segments[].owner'")]
    Show {
        /// Its name
        #[arg(value_parser = value::name)]
        name: String,
    },
    /// Change the size of a volume
    #[command(after_help = "Examples:
  holdfast volume resize demo --size 8G")]
    Resize {
        /// Its name
        #[arg(value_parser = value::name)]
        name: String,
        /// Its new size
        #[arg(long, value_parser = value::volume_size)]
        size: u64,
    },
    /// Compare all copies of a volume, read from their disks; also while it is written to
    #[command(after_help = "Examples:
  holdfast volume check demo
  holdfast --json volume check demo | jq '.findings | length'

Exit code 1 when copies differ or a checksum is wrong.")]
    Check {
        /// Its name
        #[arg(value_parser = value::name)]
        name: String,
    },
    /// Go on with the copies that are left of a volume whose other ones are lost with their disks
    #[command(after_help = "Examples:
  holdfast volume salvage demo
  holdfast volume salvage demo --yes

For segments that wait because too few of their in-sync copies are left, the others being on disks that have failed or
nodes that are lost. What was written last may be missing, as after a crash without a journal: check file systems, or
restore. Copies that are merely away are waited for; see `holdfast node lost`.")]
    Salvage {
        /// Its name
        #[arg(value_parser = value::name)]
        name: String,
        /// Do not ask; needed where no terminal is
        #[arg(long, short)]
        yes: bool,
    },
    /// Delete a volume and what it holds
    #[command(after_help = "Examples:
  holdfast volume rm scratch
  holdfast volume rm scratch --yes")]
    Rm {
        /// Its name
        #[arg(value_parser = value::name)]
        name: String,
        /// Do not ask; needed where no terminal is
        #[arg(long, short)]
        yes: bool,
    },
}

impl Volume {
    /// Runs it.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Volume::Create { name, size, copies, pool } => {
                let request = CreateVolume { name, size, pool, copies };
                let volume = context.ask(|c| async move { c.create_volume(&request).await })?;
                changed(context, &volume, "is made")
            }
            Volume::Ls => {
                let volumes = context.ask(|c| async move { c.volumes().await })?;
                if context.json() {
                    return output::json(&volumes);
                }
                let empty = "No volumes; `holdfast volume create demo --size 4G` makes one.";
                output::table(HEAD, rows(&volumes), empty)
            }
            Volume::Show { name } => {
                let detail = context.ask(|c| async move { c.volume(&name).await })?;
                if context.json() {
                    return output::json(&detail);
                }
                output::line(&text(&detail))
            }
            Volume::Resize { name, size } => {
                let volume = context.ask(|c| async move { c.resize_volume(&name, size).await })?;
                changed(context, &volume, "is resized")
            }
            Volume::Check { name } => check::run(context, &name),
            Volume::Salvage { name, yes } => {
                confirmed(
                    yes,
                    &name,
                    &format!("Writes that volume {name} acknowledged may be lost by this."),
                )?;
                let asked = name.clone();
                let done = context.ask(|c| async move { c.salvage_volume(&asked).await })?;
                let text = format!("Volume {name} goes on with the copies that are left.");
                output::done(context.json(), &done, &text)
            }
            Volume::Rm { name, yes } => {
                confirmed(yes, &name, &format!("This destroys what volume {name} holds."))?;
                let asked = name.clone();
                let done = context.ask(|c| async move { c.delete_volume(&asked).await })?;
                output::done(context.json(), &done, &format!("Volume {name} is deleted."))
            }
        }
    }
}

fn changed(context: &Context, volume: &model::Volume, what: &str) -> Result<(), Failure> {
    if context.json() {
        return output::json(volume);
    }
    let (name, size, copies) = (&volume.name, show(volume.size), volume.copies);
    output::line(&format!(
        "Volume {name} {what}: {size}, {copies} copies. `holdfast volume show {name}` has its URLs."
    ))
}

fn confirmed(yes: bool, name: &str, what: &str) -> Result<(), Failure> {
    // A script that does not say so did not mean it: nobody is there to be asked.
    match yes || io::stdin().is_terminal() && confirm(name, what)? {
        true => Ok(()),
        false => Err(Failure::NotConfirmed),
    }
}

fn confirm(name: &str, what: &str) -> Result<bool, Failure> {
    let mut err = io::stderr();
    let asked = write!(err, "{what} Type its name to go on: ").and_then(|()| err.flush());
    asked.map_err(Failure::Output)?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(Failure::Output)?;
    Ok(line.trim() == name)
}

/// Columns of the table.
pub const HEAD: [&str; 6] = ["VOLUME", "SIZE", "ALLOCATED", "COPIES", "POOL", "HEALTH"];

/// Its rows.
pub fn rows(volumes: &[model::Volume]) -> Vec<[String; 6]> {
    let row = |v: &model::Volume| {
        let allocated = output::or_dash(v.allocated.map(show));
        let health = output::word(&v.health);
        [v.name.clone(), show(v.size), allocated, v.copies.to_string(), v.pool.clone(), health]
    };
    volumes.iter().map(row).collect()
}

fn text(detail: &model::VolumeDetail) -> String {
    let v = &detail.volume;
    let mut text = format!(
        "volume   {} (number {})\nsize     {}, {} on disks\ncopies   {} in pool {}\nhealth   {}\nmade     {}\niqn      {}\n\n",
        v.name,
        v.id,
        show(v.size),
        output::or_dash(v.allocated.map(show)),
        v.copies,
        v.pool,
        output::word(&v.health),
        output::time(v.created_ms),
        v.iqn
    );
    let urls = detail.urls.iter().map(|u| [u.node.to_string(), u.iscsi.clone(), u.nbd.clone()]).collect();
    text.push_str(&format!("{}\n\n", output::table_text(["NODE", "ISCSI", "NBD"], urls)));
    let segments = detail.segments.iter().map(segment_row).collect();
    text.push_str(&output::table_text(["SEGMENT", "OWNER", "EPOCH", "COPIES"], segments));
    if !detail.sessions.is_empty() {
        let sessions = node::session_rows(&detail.sessions);
        text.push_str(&format!("\n\n{}", output::table_text(node::SESSION_HEAD, sessions)));
    }
    text
}

fn segment_row(s: &model::Segment) -> [String; 4] {
    let epoch = match s.active_epoch == s.granted_epoch {
        true => s.active_epoch.to_string(),
        false => format!("{} (granted {})", s.active_epoch, s.granted_epoch),
    };
    let copies: Vec<String> = s.copies.iter().map(copy_text).collect();
    [s.index.to_string(), s.owner.to_string(), epoch, copies.join(", ")]
}

fn copy_text(copy: &model::SegmentCopy) -> String {
    let state = output::word(&copy.state);
    match &copy.resync {
        Some(r) => format!(
            "node {} {state} ({}, {} of {})",
            copy.node,
            r.kind,
            show(r.done_bytes),
            show(r.total_bytes)
        ),
        None => format!("node {} {state}", copy.node),
    }
}
