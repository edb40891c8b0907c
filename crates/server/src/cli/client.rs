//! The admin interface, from the other side.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use quorate_types::runtime;
use serde_json::Value;
use tokio::net::TcpStream;

/// How long an answer may take; an operation that takes longer goes on and is
/// seen with `quorate migrations`.
const ANSWER: Duration = Duration::from_secs(30);

/// Longest answer: thousands of shards with room to spare.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why a request to a node failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("cannot reach {admin}: {source}; is the node running, and is this its --admin?")]
    Connect {
        /// The address asked.
        admin: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// Whoever listens does not speak HTTP, or hung up.
    #[error("{admin} did not answer: {reason}")]
    Broken {
        /// The address asked.
        admin: SocketAddr,
        /// What went wrong.
        reason: String,
    },
    /// The node said no.
    #[error("{0}")]
    Failed(String),
}

/// Asks one node.
#[derive(Clone, Copy, Debug)]
pub struct AdminClient {
    admin: SocketAddr,
}

impl AdminClient {
    /// A client of the node with this admin address.
    #[must_use]
    pub fn new(admin: SocketAddr) -> Self {
        Self { admin }
    }

    /// What a resource holds.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.json(Method::GET, path, Bytes::new()).await
    }

    /// Asks for a change.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.json(Method::POST, path, body.to_string().into()).await
    }

    /// Whether the node serves clients.
    ///
    /// # Errors
    /// [`ClientError::Failed`] with the reason, or why it cannot be asked.
    pub async fn ready(&self) -> Result<(), ClientError> {
        match self.request(Method::GET, "/readyz", Bytes::new()).await? {
            (StatusCode::OK, _) => Ok(()),
            (status, body) => Err(failed(status, &body)),
        }
    }

    async fn json(&self, method: Method, path: &str, body: Bytes) -> Result<Value, ClientError> {
        let (status, body) = self.request(method, path, body).await?;
        if !status.is_success() {
            return Err(failed(status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| self.broken(&error))
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        match tokio::time::timeout(ANSWER, self.exchange(method, path, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.broken(&format!("no answer within {} s", ANSWER.as_secs()))),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = TcpStream::connect(self.admin)
            .await
            .map_err(|source| ClientError::Connect { admin: self.admin, source })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&error))?;
        // Ends with the connection, which ends with the sender.
        let connection = runtime::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.admin.to_string())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| self.broken(&error))?.to_bytes();
        connection.abort();
        Ok((status, body))
    }

    fn broken(&self, reason: &dyn std::fmt::Display) -> ClientError {
        ClientError::Broken { admin: self.admin, reason: reason.to_string() }
    }
}

fn failed(status: StatusCode, body: &[u8]) -> ClientError {
    let error = serde_json::from_slice::<Value>(body).ok();
    let error = error.as_ref().and_then(|body| body.get("error")).and_then(Value::as_str);
    ClientError::Failed(error.map_or_else(|| format!("the node answered {status}"), str::to_owned))
}
