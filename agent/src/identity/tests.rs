use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::os::fake::Fake;

struct Device {
    _root: tempfile::TempDir,
    paths: Paths,
    os: Fake,
    clock: Clock,
}

impl Device {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let paths = Paths::new(root.path());
        Self {
            _root: root,
            paths,
            os: Fake::default(),
            clock: Clock::system(),
        }
    }

    fn ensure(&self) -> Result<(DeviceIdentity, Done), IdentityError> {
        ensure(&self.paths, &self.os, &self.clock)
    }

    fn made(&self) -> DeviceIdentity {
        self.ensure().expect("an identity").0
    }

    fn enrol(&self) {
        std::fs::write(self.paths.enrolment(), "{}").expect("written");
    }
}

/// Files that die before step `at`, and stay dead: what a power cut leaves.
fn dying(at: usize) -> (Files, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let steps = Arc::clone(&count);
    let files = Files::watched(move |_, _| {
        if steps.fetch_add(1, Ordering::Relaxed) >= at {
            return Err(io::Error::other("the power is gone"));
        }
        Ok(())
    });
    (files, count)
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path)
        .expect("it is there")
        .permissions()
        .mode()
        & 0o777
}

#[test]
fn the_first_start_makes_an_identity_and_the_next_ones_keep_it() {
    let device = Device::new();
    let (first, done) = device.ensure().expect("made");
    assert_eq!(done, Done::Made);
    assert_eq!(first.unit_id().as_str(), "00E0C5A1B2C3");
    assert_eq!(
        (mode(&device.paths.key()), mode(&device.paths.certificate())),
        (0o600, 0o644)
    );
    let (second, done) = device.ensure().expect("kept");
    assert_eq!(done, Done::Kept);
    assert_eq!(
        (first.device_id(), first.fingerprint()),
        (second.device_id(), second.fingerprint())
    );
    let loaded = load(&device.paths).expect("readable").expect("there");
    assert_eq!(loaded.fingerprint(), first.fingerprint());
}

#[test]
fn a_power_cut_at_any_step_of_the_first_start_leaves_a_device_that_comes_up() {
    let mut cuts = 0;
    for at in 0.. {
        let device = Device::new();
        let (files, _) = dying(at);
        let cut = ensure_with(&device.paths, &files, &device.os, &device.clock).is_err();
        let key_then = std::fs::read(device.paths.key()).ok();
        let (identity, _) = device.ensure().expect("the next start works");
        if let Some(key) = key_then {
            assert_eq!(
                key,
                identity.key_pem().as_bytes(),
                "step {at}: a key in its place was thrown away"
            );
        }
        let (again, done) = device.ensure().expect("and the one after");
        assert_eq!(
            (again.fingerprint(), done),
            (identity.fingerprint(), Done::Kept),
            "step {at}"
        );
        assert!(
            pending_next(&device.paths, &again)
                .expect("readable")
                .is_none(),
            "step {at}: a next pair stayed behind"
        );
        if !cut {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 12, "only {cuts} steps were cut");
}

#[test]
fn a_power_cut_at_any_step_of_a_renewal_leaves_the_old_or_the_new_identity() {
    for kind in [Next::Renew, Next::Rekey] {
        let mut seen = std::collections::BTreeSet::new();
        for at in 0.. {
            let device = Device::new();
            let old = device.made();
            device.enrol();
            let (files, _) = dying(at);
            let proposed = propose_next(&device.paths, &files, &old, kind, &device.clock);
            let promoted = proposed.as_ref().map_or(Err(IdentityError::NoNext), |_| {
                promote_next(&device.paths, &files)
            });
            let (now, _) = device.ensure().expect("the next start works");
            let is_new = now.fingerprint() != old.fingerprint();
            if is_new {
                let proposed = proposed
                    .as_ref()
                    .expect("it was proposed before it came into force");
                assert_eq!(
                    now.fingerprint(),
                    proposed.fingerprint(),
                    "step {at}: a third identity"
                );
            }
            assert_eq!(
                now.device_id() == old.device_id(),
                kind == Next::Renew || !is_new
            );
            seen.insert(is_new);
            if promoted.is_ok() {
                assert!(is_new);
                break;
            }
        }
        assert_eq!(seen.len(), 2, "{kind:?} never ended both ways");
    }
}

#[test]
fn a_power_cut_after_the_proposal_proposes_the_same_again() {
    let device = Device::new();
    let present = device.made();
    let files = Files::new();
    let propose = |kind| {
        propose_next(&device.paths, &files, &present, kind, &device.clock).expect("proposed")
    };
    let first = propose(Next::Rekey);
    assert_eq!(propose(Next::Rekey).fingerprint(), first.fingerprint());
    let (kept, done) = device.ensure().expect("kept");
    assert_eq!(
        (kept.fingerprint(), done),
        (present.fingerprint(), Done::Kept)
    );
    // Another kind is another proposal.
    let renewed = propose(Next::Renew);
    assert_eq!(renewed.device_id(), present.device_id());
    assert_ne!(renewed.fingerprint(), present.fingerprint());
    discard_next(&device.paths, &files).expect("discarded");
    assert!(matches!(
        promote_next(&device.paths, &files),
        Err(IdentityError::NoNext)
    ));
    assert_eq!(device.made().fingerprint(), present.fingerprint());
}

#[test]
fn a_key_that_others_can_read_is_refused_with_advice() {
    let device = Device::new();
    device.made();
    for open in [0o640, 0o604, 0o660, 0o644] {
        std::fs::set_permissions(device.paths.key(), PermissionsExt::from_mode(open)).expect("set");
        let error = device.ensure().expect_err("refused");
        let sentence = error.to_string();
        assert!(
            sentence.contains(&format!("mode {open:o}")) && sentence.contains("chmod 600"),
            "{sentence}"
        );
    }
    std::fs::set_permissions(device.paths.key(), PermissionsExt::from_mode(0o600)).expect("set");
    assert_eq!(device.ensure().expect("kept again").1, Done::Kept);
}

#[test]
fn a_damaged_key_is_refused_and_left_as_it_is_until_somebody_asks_for_a_new_one() {
    for damage in [
        "",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "rubbish",
    ] {
        let device = Device::new();
        let old = device.made();
        std::fs::write(device.paths.key(), damage).expect("written");
        let error = device.ensure().expect_err("refused");
        assert!(error.to_string().contains("identity --replace"), "{error}");
        assert_eq!(
            std::fs::read_to_string(device.paths.key()).expect("there"),
            damage
        );
        let new = replace(&device.paths, &device.os, &device.clock).expect("replaced");
        assert_ne!(new.device_id(), old.device_id());
        assert_eq!(new.unit_id(), old.unit_id());
        assert_eq!(device.ensure().expect("kept").1, Done::Kept);
    }
}

#[test]
fn a_key_without_a_certificate_keeps_its_device_id() {
    let device = Device::new();
    let old = device.made();
    device.enrol();
    std::fs::remove_file(device.paths.certificate()).expect("removed");
    let (new, done) = device.ensure().expect("mended");
    assert_eq!(
        (new.device_id(), done),
        (old.device_id(), Done::Replaced(Reason::CertificateMissing))
    );
    std::fs::write(device.paths.certificate(), "half a certif").expect("written");
    let (new, done) = device.ensure().expect("mended");
    assert_eq!(
        (new.device_id(), done),
        (
            old.device_id(),
            Done::Replaced(Reason::CertificateUnreadable)
        )
    );
}

#[test]
fn a_lost_key_is_made_anew_only_where_no_server_knows_it() {
    let device = Device::new();
    let old = device.made();
    std::fs::remove_file(device.paths.key()).expect("removed");
    let (new, done) = device.ensure().expect("made anew");
    assert_eq!(done, Done::Replaced(Reason::KeyMissing));
    assert_ne!(new.device_id(), old.device_id());
    device.enrol();
    for lost in [vec![device.paths.key()], vec![device.paths.certificate()]] {
        lost.iter()
            .for_each(|path| drop(std::fs::remove_file(path)));
        assert!(matches!(
            device.ensure(),
            Err(IdentityError::KeyLost { .. })
        ));
        assert!(!device.paths.key().exists());
    }
}

#[test]
fn key_and_certificate_of_two_devices_are_never_used_together() {
    let (device, other) = (Device::new(), Device::new());
    let own = device.made();
    other.made();
    std::fs::copy(other.paths.certificate(), device.paths.certificate()).expect("copied");
    device.enrol();
    assert!(matches!(
        device.ensure(),
        Err(IdentityError::Mismatch { .. })
    ));
    assert!(matches!(
        load(&device.paths),
        Err(IdentityError::Mismatch { .. })
    ));
    std::fs::remove_file(device.paths.enrolment()).expect("removed");
    let (mended, done) = device.ensure().expect("mended");
    assert_eq!(
        (mended.device_id(), done),
        (own.device_id(), Done::Replaced(Reason::Mismatch))
    );
}

#[test]
fn a_unit_id_stays_whatever_is_plugged_in_later() {
    let mut device = Device::new();
    let first = device.made();
    device.os.adapters[0].mac = [0, 0, 0, 0, 0, 9];
    let replaced = replace(&device.paths, &device.os, &device.clock).expect("replaced");
    assert_eq!(first.unit_id(), replaced.unit_id());
    // Even where the file was lost, the certificate still says it.
    std::fs::remove_file(device.paths.unit_id()).expect("removed");
    assert_eq!(device.made().unit_id(), first.unit_id());
}

#[test]
fn an_identity_on_a_read_only_disk_is_used_as_it_is() {
    let device = Device::new();
    let made = device.made();
    std::fs::remove_file(device.paths.unit_id()).expect("removed");
    let read_only = Files::watched(|_, _| Err(io::Error::from_raw_os_error(nix::libc::EROFS)));
    let (kept, done) =
        ensure_with(&device.paths, &read_only, &device.os, &device.clock).expect("kept");
    assert_eq!((kept.fingerprint(), done), (made.fingerprint(), Done::Kept));
}

#[test]
fn a_system_on_a_stick_is_labelled_by_the_stick_and_not_by_the_machine_around_it() {
    let mut device = Device::new();
    device.os.stick = Some("4C530001230919101234".into());
    assert_eq!(device.made().unit_id().as_str(), "4C530001230919101234");
    // A number that is no label is left aside.
    let mut odd = Device::new();
    odd.os.stick = Some("a b".into());
    assert_eq!(odd.made().unit_id().as_str(), "00E0C5A1B2C3");
}

#[test]
fn a_machine_without_an_adapter_is_labelled_by_its_key() {
    let mut device = Device::new();
    device.os.adapters.clear();
    let identity = device.made();
    let expected = format!(
        "K{}",
        &identity.device_id().to_string().to_uppercase()[..12]
    );
    assert_eq!(identity.unit_id().as_str(), expected);
}

#[test]
fn a_wrong_clock_does_not_keep_a_device_from_having_an_identity() {
    for now in [0, 4_070_908_800] {
        let device = Device::new();
        device.clock.set(now);
        let clock = Clock::fixed(now);
        let (identity, _) = ensure(&device.paths, &device.os, &clock).expect("made");
        assert_eq!(identity.not_before(), clock.build_date());
        assert_eq!(
            device.ensure().expect("kept with the right clock").1,
            Done::Kept
        );
    }
}

#[test]
fn the_signature_of_the_key_fits_the_certificate() {
    let identity = Device::new().made();
    let signature = identity.sign(b"message").expect("signed");
    let (_, parsed) =
        x509_parser::parse_x509_certificate(identity.certificate_der()).expect("it parses");
    let key = ring::signature::UnparsedPublicKey::new(
        &ring::signature::ECDSA_P256_SHA256_ASN1,
        &parsed.public_key().subject_public_key.data,
    );
    assert!(key.verify(b"message", &signature).is_ok());
    assert!(key.verify(b"another", &signature).is_err());
    assert!(!format!("{identity:?}").contains("PRIVATE"));
}

#[test]
fn a_full_disk_leaves_no_half_identity_and_says_so() {
    let device = Device::new();
    let full = Files::watched(|step, _| match step {
        crate::files::Step::Write => Err(io::Error::from_raw_os_error(nix::libc::ENOSPC)),
        crate::files::Step::Create
        | crate::files::Step::Sync
        | crate::files::Step::Rename
        | crate::files::Step::SyncDirectory
        | crate::files::Step::Remove => Ok(()),
    });
    let error = ensure_with(&device.paths, &full, &device.os, &device.clock).expect_err("no space");
    let source = std::error::Error::source(&error)
        .expect("a source")
        .to_string();
    assert!(source.contains("disk is full"), "{source}");
    assert!(!device.paths.key().exists() && !device.paths.certificate().exists());
}
