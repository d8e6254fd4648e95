//! The routes: one line each in the table, one small function each below. They turn HTTP into a call of the
//! backend and its answer into JSON.

use crate::backend::Backend;
use crate::error::{ApiError, ErrorKind};
use crate::model::*;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use futures::stream::{BoxStream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::sync::Arc;

type Node = State<Arc<dyn Backend>>;
type Reply<T> = Result<Json<T>, ApiError>;

/// What needs the token where one is asked for.
pub(super) fn guarded() -> Router<Arc<dyn Backend>> {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/nodes", get(nodes))
        .route("/v1/nodes/{node}", get(node).delete(remove_node))
        .route("/v1/nodes/{node}/stop", post(stop_node))
        .route("/v1/nodes/{node}/lost", post(lose_node))
        .route("/v1/disks", get(disks).post(add_disk))
        .route("/v1/disks/{disk}", get(disk).delete(remove_disk))
        .route("/v1/disks/{disk}/lost", post(lose_disk))
        .route("/v1/pools", get(pools))
        .route("/v1/volumes", get(volumes).post(create_volume))
        .route("/v1/volumes/{name}", get(volume).delete(delete_volume))
        .route("/v1/volumes/{name}/resize", post(resize_volume))
        .route("/v1/volumes/{name}/salvage", post(salvage_volume))
        .route("/v1/volumes/{name}/check", post(check_volume))
        .route("/v1/tokens", post(create_token))
        .route("/v1/tokens/admin", post(rotate_admin_token))
        .route("/v1/events", get(events))
        .route("/v1/events/follow", get(follow_events))
        .route("/v1/chap", put(set_chap).delete(clear_chap))
}

/// What carries its own secret.
pub(super) fn open() -> Router<Arc<dyn Backend>> {
    Router::new().route("/v1/join", post(join))
}

async fn status(State(node): Node) -> Reply<Status> {
    node.status().await.map(Json)
}
async fn nodes(State(node): Node) -> Reply<Vec<super::super::model::Node>> {
    node.nodes().await.map(Json)
}
async fn node(State(node): Node, Path(id): Path<String>) -> Reply<NodeDetail> {
    node.node(id).await.map(Json)
}
async fn stop_node(State(node): Node, Path(id): Path<String>) -> Reply<Done> {
    node.stop_node(id).await.map(done)
}
async fn remove_node(State(node): Node, Path(id): Path<String>) -> Reply<Done> {
    node.remove_node(id).await.map(done)
}
async fn lose_node(State(node): Node, Path(id): Path<String>, body: Bytes) -> Reply<Done> {
    node.lose_node(id, parse(&body)?).await.map(done)
}
async fn disks(State(node): Node) -> Reply<Vec<Disk>> {
    node.disks().await.map(Json)
}
async fn disk(State(node): Node, Path(id): Path<String>) -> Reply<Disk> {
    node.disk(id).await.map(Json)
}
async fn remove_disk(State(node): Node, Path(id): Path<String>) -> Reply<Done> {
    node.remove_disk(id).await.map(done)
}
async fn lose_disk(State(node): Node, Path(id): Path<String>, body: Bytes) -> Reply<Done> {
    node.lose_disk(id, parse(&body)?).await.map(done)
}
async fn add_disk(State(node): Node, body: Bytes) -> Reply<Disk> {
    node.add_disk(parse(&body)?).await.map(Json)
}
async fn pools(State(node): Node) -> Reply<Vec<Pool>> {
    node.pools().await.map(Json)
}
async fn volumes(State(node): Node) -> Reply<Vec<Volume>> {
    node.volumes().await.map(Json)
}
async fn volume(State(node): Node, Path(name): Path<String>) -> Reply<VolumeDetail> {
    node.volume(name).await.map(Json)
}
async fn create_volume(State(node): Node, body: Bytes) -> Reply<Volume> {
    node.create_volume(parse(&body)?).await.map(Json)
}
async fn delete_volume(State(node): Node, Path(name): Path<String>) -> Reply<Done> {
    node.delete_volume(name).await.map(done)
}
async fn salvage_volume(State(node): Node, Path(name): Path<String>) -> Reply<Done> {
    node.salvage_volume(name).await.map(done)
}
async fn resize_volume(State(node): Node, Path(name): Path<String>, body: Bytes) -> Reply<Volume> {
    node.resize_volume(name, parse(&body)?).await.map(Json)
}
async fn check_volume(State(node): Node, Path(name): Path<String>) -> Result<Response, ApiError> {
    node.check_volume(name).await.map(lines)
}
async fn create_token(State(node): Node) -> Reply<Token> {
    node.create_token().await.map(Json)
}
async fn rotate_admin_token(State(node): Node) -> Reply<Done> {
    node.rotate_admin_token().await.map(done)
}
async fn join(State(node): Node, body: Bytes) -> Reply<JoinAnswer> {
    node.join(parse(&body)?).await.map(Json)
}
async fn events(State(node): Node, query: Query<EventQuery>) -> Reply<Vec<Event>> {
    node.events(query.0).await.map(Json)
}
async fn follow_events(State(node): Node, query: Query<EventQuery>) -> Result<Response, ApiError> {
    node.follow_events(query.0).await.map(lines)
}
async fn set_chap(State(node): Node, body: Bytes) -> Reply<Done> {
    node.set_chap(Some(parse(&body)?)).await.map(done)
}
async fn clear_chap(State(node): Node) -> Reply<Done> {
    node.set_chap(None).await.map(done)
}

fn done((): ()) -> Json<Done> {
    Json(Done {})
}

/// A body as JSON, whatever its content type says.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let wrong =
        |e: serde_json::Error| ApiError::new(ErrorKind::Invalid, format!("the body of the request: {e}"));
    serde_json::from_slice(body).map_err(wrong)
}

/// A stream as lines of JSON.
fn lines<T: Serialize + Send + 'static>(stream: BoxStream<'static, T>) -> Response {
    let lines = stream.map(|item| {
        let mut line = serde_json::to_vec(&item).unwrap_or_default();
        line.push(b'\n');
        Ok::<_, Infallible>(Bytes::from(line))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}
