use super::problem::Problem;

/// Runs `act` where it holds up no other request.
pub(super) async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(act).await;
    done.map_err(|error| Problem::internal(format!("a thread ended early: {error}")))?
}
