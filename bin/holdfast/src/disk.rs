//! `holdfast disk`.

use crate::failure::Failure;
use crate::global::Context;
use crate::{output, value};
use clap::Subcommand;
use holdfast_api::model;
use holdfast_api::size::show;
use holdfast_node::setup::{DiskSpec, DiskSpecError};

/// Add, remove and look at disks
#[derive(Subcommand)]
pub enum Disk {
    /// Take a disk of the asked node into use
    #[command(after_help = "Examples:
  holdfast disk add /dev/sdc
  holdfast disk add /srv/disk1:100G --pool default")]
    Add {
        /// A device, or a file with the size to make it with
        #[arg(value_name = "PATH[:SIZE]", value_parser = disk)]
        disk: DiskSpec,
        /// The pool
        #[arg(long, value_parser = value::name)]
        pool: Option<String>,
        /// Destroy what is on it
        #[arg(long)]
        wipe_disk: bool,
    },
    /// Say that a disk that does not serve is gone for good
    #[command(after_help = "Examples:
  holdfast disk lost 3fa2
  holdfast disk lost /dev/sdb --accept-loss

For a disk that is not found, is silent or slow, or whose node does not answer; one that has failed is known to be lost. Should it be found, it
starts empty. Where too few in-sync copies of a segment would be left this is refused, for its last writes may be nowhere
else; with --accept-loss it waits for `holdfast volume salvage`.")]
    Lost {
        /// Its id, the start of it, or its path
        disk: String,
        /// Also where acknowledged writes may be on this disk only
        #[arg(long)]
        accept_loss: bool,
    },
    /// Remove a disk that is gone for good
    #[command(after_help = "Examples:
  holdfast disk rm 3fa2
  holdfast disk rm /dev/sdb

Only a disk is removed that has failed, is missing, or whose node does not answer, and whose copies have another place:
nothing is lost by it. Should it be found again, it is not opened.")]
    Rm {
        /// Its id, the start of it, or its path
        disk: String,
    },
    /// List the disks of all nodes
    #[command(after_help = "Examples:
  holdfast disk ls
  holdfast --json disk ls | jq '.[] | select(.state != \"ok\")'")]
    Ls,
    /// Show one disk
    #[command(after_help = "Examples:
  holdfast disk show 3fa2
  holdfast disk show /dev/sdb")]
    Show {
        /// Its id, the start of it, or its path
        disk: String,
    },
}

fn disk(text: &str) -> Result<DiskSpec, String> {
    text.parse().map_err(|e: DiskSpecError| e.to_string())
}

impl Disk {
    /// Runs it.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Disk::Add { disk, pool, wipe_disk } => {
                let path = std::path::absolute(&disk.path)
                    .map_err(|source| Failure::File { path: disk.path.clone(), source })?;
                let path = path.display().to_string();
                let request = model::AddDisk { path, size: disk.size, pool, wipe: wipe_disk };
                let disk = context.ask(|c| async move { c.add_disk(&request).await })?;
                if context.json() {
                    return output::json(&disk);
                }
                output::line(&format!(
                    "Disk {} is in use: {} in pool {}.",
                    disk.id,
                    show(disk.size),
                    disk.pool
                ))
            }
            Disk::Lost { disk, accept_loss } => {
                let asked = disk.clone();
                let done = context.ask(|c| async move { c.lose_disk(&asked, accept_loss).await })?;
                output::done(context.json(), &done, &format!("Disk {disk} is given up."))
            }
            Disk::Rm { disk } => {
                let asked = disk.clone();
                let done = context.ask(|c| async move { c.remove_disk(&asked).await })?;
                output::done(context.json(), &done, &format!("Disk {disk} is removed."))
            }
            Disk::Ls => {
                let disks = context.ask(|c| async move { c.disks().await })?;
                if context.json() {
                    return output::json(&disks);
                }
                output::table(HEAD, rows(&disks), "No disks; `holdfast disk add PATH` takes one into use.")
            }
            Disk::Show { disk } => {
                let disk = context.ask(|c| async move { c.disk(&disk).await })?;
                if context.json() {
                    return output::json(&disk);
                }
                output::line(&text(&disk))
            }
        }
    }
}

/// Columns of the table.
pub const HEAD: [&str; 8] = ["DISK", "NODE", "STATE", "POOL", "SIZE", "FREE", "COPIES", "PATH"];

/// Its rows.
pub fn rows(disks: &[model::Disk]) -> Vec<[String; 8]> {
    let row = |d: &model::Disk| {
        let id = d.id.chars().take(8).collect();
        let (state, copies) = (output::word(&d.state), d.copies.to_string());
        [id, d.node.to_string(), state, d.pool.clone(), show(d.size), show(d.free), copies, d.path.clone()]
    };
    disks.iter().map(row).collect()
}

fn text(d: &model::Disk) -> String {
    format!(
        "disk         {}\nnode         {}\npath         {}\nstate        {}\nincarnation  {}\npool         {}\nsize         {}\nfree         {}\ncopies       {}",
        d.id,
        d.node,
        output::printable(&d.path),
        output::word(&d.state),
        d.incarnation,
        d.pool,
        show(d.size),
        show(d.free),
        d.copies
    )
}
