//! What happens to the console's bytes before they reach the VNC server: in most sessions nothing. Otherwise ClientInit is made not
//! to throw other viewers out, and messages pass the input filter.

use crate::input_filter::{InputFilter, Violation};

/// The way in for the console's bytes.
#[derive(Debug)]
pub struct Inlet {
    client_init: ClientInit,
    filter: Option<InputFilter>,
}

#[derive(Clone, Copy, Debug)]
enum ClientInit {
    /// Over, or none of our business.
    Past,
    /// To be passed on as it is.
    AsAsked,
    /// To be passed on as "others may stay".
    Shared,
}

impl Inlet {
    /// Every byte passes as it is.
    pub fn transparent() -> Self {
        Self {
            client_init: ClientInit::Past,
            filter: None,
        }
    }

    /// After a handshake that we played: ClientInit comes, then messages for the filter, if there is one.
    pub(crate) fn after_handshake(filter: Option<InputFilter>, force_shared: bool) -> Self {
        let client_init = if force_shared {
            ClientInit::Shared
        } else {
            ClientInit::AsAsked
        };
        Self {
            client_init,
            filter,
        }
    }

    /// Whether bytes may be moved without asking.
    pub(crate) fn is_transparent(&self) -> bool {
        matches!(self.client_init, ClientInit::Past) && self.filter.is_none()
    }

    /// Takes bytes and appends to `out` what the VNC server is to get.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Violation> {
        if let ([first, rest @ ..], init @ (ClientInit::AsAsked | ClientInit::Shared)) =
            (bytes, self.client_init)
        {
            out.push(if matches!(init, ClientInit::Shared) {
                1
            } else {
                *first
            });
            self.client_init = ClientInit::Past;
            bytes = rest;
        }
        match &mut self.filter {
            Some(filter) => filter.feed(bytes, out),
            None => {
                out.extend_from_slice(bytes);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input_filter::Policy;

    fn fed(mut inlet: Inlet, slices: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        slices
            .iter()
            .for_each(|slice| inlet.feed(slice, &mut out).expect("no violation"));
        out
    }

    #[test]
    fn an_onlooker_never_throws_other_viewers_out() {
        let filter = || Some(InputFilter::new(Policy::VIEW_ONLY));
        let request = [3, 0, 0, 0, 0, 0, 0, 1, 0, 1];
        let sent = [&[0][..], &request].concat();
        assert_eq!(
            fed(Inlet::after_handshake(filter(), true), &[&sent]),
            [&[1][..], &request].concat()
        );
        assert_eq!(fed(Inlet::after_handshake(filter(), false), &[&sent]), sent);
    }
}
