//! What a node can be asked. The node implements it; the server calls it; tests give a fake one. Every call
//! may come to any node: where the leader has to decide, the backend forwards.

use crate::error::ApiError;
use crate::model::*;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

/// The steps of a check, the report last.
pub type CheckStream = BoxStream<'static, CheckStep>;
/// Events as they happen.
pub type EventStream = BoxStream<'static, Event>;
/// What a call comes to.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, ApiError>>;

/// What a node can be asked.
pub trait Backend: Send + Sync + 'static {
    /// The state of the cluster.
    fn status(&self) -> Answer<'_, Status>;
    /// Every node.
    fn nodes(&self) -> Answer<'_, Vec<Node>>;
    /// One node, by number or name.
    fn node(&self, node: String) -> Answer<'_, NodeDetail>;
    /// Every disk.
    fn disks(&self) -> Answer<'_, Vec<Disk>>;
    /// One disk, by id, the start of one that is no other's, or path.
    fn disk(&self, disk: String) -> Answer<'_, Disk>;
    /// Every pool.
    fn pools(&self) -> Answer<'_, Vec<Pool>>;
    /// Every volume.
    fn volumes(&self) -> Answer<'_, Vec<Volume>>;
    /// One volume, with segments, owners, epochs, copies and the progress of resyncs.
    fn volume(&self, name: String) -> Answer<'_, VolumeDetail>;
    /// Makes a volume.
    fn create_volume(&self, request: CreateVolume) -> Answer<'_, Volume>;
    /// Changes a volume's size.
    fn resize_volume(&self, name: String, request: ResizeVolume) -> Answer<'_, Volume>;
    /// Deletes a volume and what it holds.
    fn delete_volume(&self, name: String) -> Answer<'_, ()>;
    /// Goes on with what is left of segments of which too few in-sync copies are; acknowledged writes may be lost.
    fn salvage_volume(&self, name: String) -> Answer<'_, ()>;
    /// Compares all copies of a volume.
    fn check_volume(&self, name: String) -> Answer<'_, CheckStream>;
    /// Takes a disk of the node that is asked into use.
    fn add_disk(&self, request: AddDisk) -> Answer<'_, Disk>;
    /// Makes a join token.
    fn create_token(&self) -> Answer<'_, Token>;
    /// Replaces the admin token on every node.
    fn rotate_admin_token(&self) -> Answer<'_, ()>;
    /// Admits a node. The only call that needs no API token; the secret in the request takes its place.
    fn join(&self, request: JoinRequest) -> Answer<'_, JoinAnswer>;
    /// Hands over what a node owns, then stops its daemon. By number or name.
    fn stop_node(&self, node: String) -> Answer<'_, ()>;
    /// Says of a node that does not answer that it is gone for good with its disks. By number or name.
    fn lose_node(&self, node: String, request: Lose) -> Answer<'_, ()>;
    /// Removes a node for good that does not answer and carries no copies, with its disks and its vote in the control
    /// plane. By number or name.
    fn remove_node(&self, node: String) -> Answer<'_, ()>;
    /// Says of a disk that does not serve that it is gone for good. Named as for [`Backend::disk`].
    fn lose_disk(&self, disk: String, request: Lose) -> Answer<'_, ()>;
    /// Removes a disk for good that does not serve and carries no copies. Named as for [`Backend::disk`].
    fn remove_disk(&self, disk: String) -> Answer<'_, ()>;
    /// Events of the log of the node that is asked, oldest first.
    fn events(&self, query: EventQuery) -> Answer<'_, Vec<Event>>;
    /// The same, and then those that happen, until the stream is dropped.
    fn follow_events(&self, query: EventQuery) -> Answer<'_, EventStream>;
    /// Asks every iSCSI login for CHAP, or none when not given.
    fn set_chap(&self, chap: Option<SetChap>) -> Answer<'_, ()>;
}
