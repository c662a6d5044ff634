//! The journal: what the agent writes to stderr, one line per event, without colours. How much is decided by `--log`, else by the
//! parameter `umbra.log.level`, which may change while the agent runs.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

/// Changes how much is logged.
#[derive(Clone, Debug)]
pub struct Logging {
    filter: reload::Handle<Targets, Registry>,
}

/// Begins to log at this level; whoever began before stays in charge (in a test).
pub fn start(level: &str) -> Logging {
    let (filter, handle) = reload::Layer::new(targets(level));
    let lines = fmt::layer()
        .with_ansi(false)
        .with_target(false)
        .with_writer(std::io::stderr);
    // The service manager stamps each line by itself.
    let in_journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let registry = tracing_subscriber::registry().with(filter);
    let _ = if in_journal {
        registry.with(lines.without_time()).try_init()
    } else {
        registry.with(lines).try_init()
    };
    Logging { filter: handle }
}

impl Logging {
    /// From now on at this level.
    pub fn set(&self, level: &str) {
        // Fails only where the subscriber is gone, and then nothing is logged anyway.
        let _ = self.filter.reload(targets(level));
    }
}

/// Our own crates at this level; the libraries below only when something is wrong with them.
fn targets(level: &str) -> Targets {
    let level = level.parse().unwrap_or(LevelFilter::INFO);
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("umbra_agent", level)
        .with_target("umbra_carrier", level)
        .with_target("umbra_vnc_proxy", level)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn libraries_never_flood_the_journal() {
        let targets = targets("debug");
        assert!(targets.would_enable("umbra_agent::link", &Level::DEBUG));
        assert!(!targets.would_enable("rustls", &Level::INFO));
        assert!(targets.would_enable("rustls", &Level::WARN));
        assert!(!super::targets("error").would_enable("rustls", &Level::WARN));
        assert!(super::targets("nonsense").would_enable("umbra_agent", &Level::INFO));
    }
}
