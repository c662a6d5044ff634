//! What `check-status` says, in the field's words. It is worked out now and then and told from memory, so that asking
//! costs nothing, however often a load balancer asks.

use std::time::{Duration, Instant};

/// How long the first server may take before the gateway calls itself broken.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often the status is worked out.
pub const INTERVAL: Duration = Duration::from_secs(30);

/// The field's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Just started, and no server has attached so far.
    Init,
    /// Devices are served.
    Ok,
    /// Devices are not served at the moment, or won't be soon.
    Warn,
    /// A person has to do something.
    Err,
}

impl Status {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Err => "err",
        }
    }
}

/// How good the gateway's certificates are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateState {
    /// Valid.
    Good,
    /// Valid, and about to expire.
    EndsSoon,
    /// Expired, or not valid yet.
    Invalid,
}

/// Works the status out.
#[derive(Debug)]
pub struct StatusMachine {
    started: Instant,
    ever_attached: bool,
    next: Instant,
    told: Status,
}

impl StatusMachine {
    /// Of a gateway that starts now.
    pub fn new(now: Instant) -> Self {
        Self {
            started: now,
            ever_attached: false,
            next: now,
            told: Status::Init,
        }
    }

    /// What is told at the moment.
    pub fn told(&self) -> Status {
        self.told
    }

    /// When to work it out again.
    pub fn next_deadline(&self) -> Instant {
        self.next
    }

    /// A server attached. It need not be there any more when the status is worked out.
    pub fn attached(&mut self) {
        self.ever_attached = true;
    }

    /// Works the status out, with the number of servers that are attached. Before the deadline, nothing changes.
    pub fn recompute(&mut self, certificate: CertificateState, attached: usize, now: Instant) {
        if now < self.next {
            return;
        }
        self.next = now + INTERVAL;
        self.ever_attached |= attached > 0;
        let patient = now.saturating_duration_since(self.started) < PATIENCE;
        self.told = match certificate {
            CertificateState::Invalid => Status::Err,
            CertificateState::Good | CertificateState::EndsSoon if attached == 0 => {
                if self.ever_attached {
                    Status::Warn
                } else if patient {
                    Status::Init
                } else {
                    Status::Err
                }
            }
            CertificateState::EndsSoon => Status::Warn,
            CertificateState::Good => Status::Ok,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status at each recomputation, for a certificate and numbers of attached servers.
    fn course(certificate: CertificateState, attached: &[usize]) -> Vec<&'static str> {
        let mut machine = StatusMachine::new(Instant::now());
        attached
            .iter()
            .map(|count| {
                machine.recompute(certificate, *count, machine.next_deadline());
                machine.told().as_str()
            })
            .collect()
    }

    #[test]
    fn a_gateway_to_which_no_server_comes_is_broken_after_half_a_minute() {
        assert_eq!(
            course(CertificateState::Good, &[0, 0, 0]),
            ["init", "err", "err"]
        );
    }

    #[test]
    fn a_gateway_that_lost_its_last_server_warns_and_recovers() {
        assert_eq!(
            course(CertificateState::Good, &[0, 1, 0, 2]),
            ["init", "ok", "warn", "ok"]
        );
    }

    #[test]
    fn an_invalid_certificate_is_told_at_once_and_one_that_ends_soon_is_a_warning() {
        assert_eq!(course(CertificateState::Invalid, &[1, 0]), ["err", "err"]);
        assert_eq!(
            course(CertificateState::EndsSoon, &[0, 1]),
            ["init", "warn"]
        );
    }

    #[test]
    fn a_server_that_came_and_went_between_two_looks_is_remembered() {
        let mut machine = StatusMachine::new(Instant::now());
        machine.recompute(CertificateState::Good, 0, machine.next_deadline());
        machine.attached();
        machine.recompute(CertificateState::Good, 0, machine.next_deadline());
        assert_eq!(machine.told(), Status::Warn);
    }

    #[test]
    fn nothing_is_worked_out_between_the_deadlines() {
        let start = Instant::now();
        let mut machine = StatusMachine::new(start);
        machine.recompute(CertificateState::Good, 0, start);
        let deadline = machine.next_deadline();
        assert_eq!(deadline, start + INTERVAL);
        machine.recompute(
            CertificateState::Good,
            1,
            deadline - Duration::from_millis(1),
        );
        assert_eq!(machine.told(), Status::Init);
        machine.recompute(CertificateState::Good, 1, deadline);
        assert_eq!(machine.told(), Status::Ok);
    }
}
