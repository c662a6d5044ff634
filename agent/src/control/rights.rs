//! Who may change something over the control socket. The kernel says who is at the other end; nothing that the caller says
//! about itself counts.

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::wire::{ErrorCode, Failure, Request};

/// Whether this caller may change something: root, the agent's own user, or a member of the group.
pub fn may_change(uid: u32, gid: u32, group: Option<&str>) -> bool {
    uid == 0
        || uid == Uid::effective().as_raw()
        || group.is_some_and(|group| is_member(uid, gid, group))
}

fn is_member(uid: u32, gid: u32, group: &str) -> bool {
    let Ok(Some(group)) = Group::from_name(group) else {
        return false;
    };
    if gid == group.gid.as_raw() {
        return true;
    }
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else {
        return false;
    };
    if user.gid == group.gid || group.mem.contains(&user.name) {
        return true;
    }
    let Ok(name) = std::ffi::CString::new(user.name) else {
        return false;
    };
    getgrouplist(&name, Gid::from_raw(gid)).is_ok_and(|groups| groups.contains(&group.gid))
}

/// Whether a caller with or without rights may ask for this; the failure says who may.
pub fn permit(request: &Request, entitled: bool, group: Option<&str>) -> Result<(), Failure> {
    if entitled || !request.changes_something() {
        return Ok(());
    }
    let who = group.map_or(String::new(), |group| {
        format!(" or as a member of the group “{group}”")
    });
    let sentence = format!("This user may not do that; try it as root{who}.");
    Err(Failure::new(ErrorCode::Permission, sentence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_agents_own_user_may_and_strangers_may_not() {
        assert!(may_change(0, 0, None));
        assert!(may_change(Uid::effective().as_raw(), 54_321, None));
        assert!(!may_change(54_321, 54_321, None));
        assert!(!may_change(54_321, 54_321, Some("no-such-group")));
    }

    #[test]
    fn strangers_may_look_and_nothing_else() {
        let session = umbra_protocol::ids::SessionId::from_bytes([1; 16]);
        let name = || "umbra.control.group".to_owned();
        let secret = || umbra_protocol::Secret::new("x");
        let looks = [
            Request::Status {},
            Request::Watch {},
            Request::RegistryList {
                prefix: String::new(),
            },
            Request::RegistryGet { name: name() },
        ];
        let changes = [
            Request::RegistrySet {
                name: name(),
                words: vec![secret()],
            },
            Request::RegistryReset { name: name() },
            Request::Enrol {
                address: name(),
                trust: crate::control::TrustGiven::Fingerprint(name()),
                key: secret(),
            },
            Request::Leave {},
            Request::Consent {
                session,
                accept: true,
            },
            Request::EndSession { session },
        ];
        for request in &looks {
            assert!(permit(request, false, None).is_ok(), "{request:?}");
        }
        for request in &changes {
            let failure = permit(request, false, Some("helpers")).expect_err("refused");
            assert_eq!(failure.code, ErrorCode::Permission);
            assert!(failure.sentence.contains("“helpers”"), "{failure}");
            assert!(permit(request, true, None).is_ok(), "{request:?}");
        }
    }

    #[test]
    fn members_of_the_group_may() {
        // Every system has the group of root's user; a caller that runs under its ID is a member.
        let group = Group::from_gid(Gid::from_raw(0))
            .expect("the list of groups can be read")
            .expect("group 0");
        assert!(may_change(54_321, 0, Some(&group.name)));
        assert!(!may_change(54_321, 1, Some(&group.name)));
    }
}
