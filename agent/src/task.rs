//! What runs beside something else. All of it is one kind of task for the compiler, so that tokio's code for tasks is in the program
//! once for each kind of result, and not once for each task.

use std::pin::Pin;

use tokio::task::JoinHandle;

/// A future whose size nobody has to know.
pub(crate) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Puts a future into a box.
pub(crate) fn boxed<T>(future: impl Future<Output = T> + Send + 'static) -> Boxed<T> {
    Box::pin(future)
}

/// Starts it.
pub(crate) fn start<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    tokio::spawn(boxed(future))
}
