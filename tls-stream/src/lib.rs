//! TLS as a byte stream for programs that hold many connections which mostly stand still: the buffers belong to the thread, and
//! whoever has bytes to move borrows them for that moment. It decides nothing: certificates, versions and suites are the configuration's,
//! deadlines the caller's.

pub mod borrowed;
mod server;

pub use server::ServerStream;
