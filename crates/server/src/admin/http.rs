//! The admin interface over HTTP. Everything that fails answers
//! `{"error": "..."}`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use quorate_types::watch;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;

use super::port::{
    Admin, AdminError, AdminFuture, DrainRequest, MoveRequest, SplitRequest, TransferRequest,
};
use crate::metrics::Metrics;

/// Longest request body: a split key of 64 KiB in JSON's longest escapes.
pub const ADMIN_BODY_BYTES_MAX: usize = 512 << 10;

/// How long requests under way may take once the server is told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(3);

#[derive(Clone)]
struct Shared {
    admin: Arc<dyn Admin>,
    metrics: Metrics,
}

/// The interface as a service, for a server of one's own.
pub fn router(admin: Arc<dyn Admin>, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render_metrics))
        .route("/v1/status", get(|State(shared): Shares| answer(shared.admin.status())))
        .route("/v1/nodes", get(|State(shared): Shares| answer(shared.admin.nodes())))
        .route("/v1/shards", get(|State(shared): Shares| answer(shared.admin.shards())))
        .route("/v1/migrations", get(|State(shared): Shares| answer(shared.admin.migrations())))
        .route("/v1/shards/{id}/transfer", post(transfer))
        .route("/v1/shards/{id}/move", post(move_replica))
        .route("/v1/shards/{id}/split", post(split))
        .route("/v1/nodes/{id}/drain", post(drain))
        .fallback(|| async { Failure::new(StatusCode::NOT_FOUND, "no such resource") })
        .method_not_allowed_fallback(|| async {
            Failure::new(StatusCode::METHOD_NOT_ALLOWED, "this resource has another method")
        })
        .layer(DefaultBodyLimit::max(ADMIN_BODY_BYTES_MAX))
        .with_state(Shared { admin, metrics })
}

/// Serves the interface until `stop` becomes true or its sender is gone, and
/// then gives requests under way three seconds to be answered.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    admin: Arc<dyn Admin>,
    metrics: Metrics,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut drain = stop.clone();
    let stopped = async move {
        // A sender that is gone means the same as one that says stop.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let served = axum::serve(listener, router(admin, metrics)).with_graceful_shutdown(stopped);
    tokio::select! {
        biased;
        served = served => served,
        // A client that never finishes its request does not hold the process.
        () = async {
            let _ = drain.wait_for(|stop| *stop).await;
            tokio::time::sleep(DRAIN_MAX).await;
        } => Ok(()),
    }
}

type Shares = State<Shared>;

async fn readyz(State(shared): Shares) -> Response {
    match shared.admin.readiness() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => Failure::new(StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

async fn render_metrics(State(shared): Shares) -> Response {
    const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
    let text = shared.metrics.render() + &shared.admin.metrics();
    ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], text).into_response()
}

async fn transfer(
    State(shared): Shares,
    Path(id): Path<String>,
    Body(request): Body<TransferRequest>,
) -> Result<Response, Failure> {
    accepted(shared.admin.transfer(number(&id)?, request)).await
}

async fn move_replica(
    State(shared): Shares,
    Path(id): Path<String>,
    Body(request): Body<MoveRequest>,
) -> Result<Response, Failure> {
    accepted(shared.admin.move_replica(number(&id)?, request)).await
}

async fn split(
    State(shared): Shares,
    Path(id): Path<String>,
    Body(request): Body<SplitRequest>,
) -> Result<Response, Failure> {
    accepted(shared.admin.split(number(&id)?, request)).await
}

async fn drain(
    State(shared): Shares,
    Path(id): Path<String>,
    Body(DrainRequest {}): Body<DrainRequest>,
) -> Result<Response, Failure> {
    accepted(shared.admin.drain(number(&id)?)).await
}

async fn answer<T: Serialize>(answer: AdminFuture<T>) -> Result<Json<T>, Failure> {
    Ok(Json(answer.await?))
}

/// An operation is accepted, not finished.
async fn accepted<T: Serialize>(operation: AdminFuture<T>) -> Result<Response, Failure> {
    Ok((StatusCode::ACCEPTED, Json(operation.await?)).into_response())
}

fn number(id: &str) -> Result<u64, Failure> {
    id.parse().map_err(|_| {
        Failure::new(StatusCode::BAD_REQUEST, format!("'{}' is not a number", id.escape_debug()))
    })
}

/// A JSON body; an empty one reads as `{}`. The content type is not asked for,
/// so that a plain `curl -d` works.
struct Body<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| Failure::new(rejection.status(), rejection.body_text()))?;
        let json: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(json)
            .map(Self)
            .map_err(|error| Failure::new(StatusCode::BAD_REQUEST, error.to_string()))
    }
}

/// A status and why.
struct Failure {
    status: StatusCode,
    error: String,
}

impl Failure {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into() }
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        let status = match &error {
            AdminError::NotFound(_) => StatusCode::NOT_FOUND,
            AdminError::Refused(_) => StatusCode::CONFLICT,
            AdminError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(serde_json::json!({ "error": self.error }))).into_response()
    }
}
