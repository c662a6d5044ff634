//! Every text that a person reads in the assistant, in every language: one file per language. A text that a language lacks does not
//! compile. `{names}` in a text are replaced by values; [`crate::text::fill`] does it.

mod de;
mod en;

use serde::Serialize;

use crate::report::Code;

/// The languages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    /// English.
    #[default]
    En,
    /// German.
    De,
}

umbra_protocol::json::words!(Language { En = "en", De = "de" });

impl Language {
    /// All, in the order in which they are offered.
    pub const ALL: [Language; 2] = [Language::En, Language::De];

    /// As it is written in [`crate::View`] and on the disk.
    pub fn id(self) -> &'static str {
        match self {
            Language::En => "en",
            Language::De => "de",
        }
    }

    /// What a locale such as `de_DE.UTF-8` names; nothing for languages that are not here.
    pub fn of_locale(locale: &str) -> Option<Self> {
        let language = locale.split(['_', '.', '@', '-']).next().unwrap_or(locale);
        Self::ALL
            .into_iter()
            .find(|known| known.id().eq_ignore_ascii_case(language))
    }
}

macro_rules! catalogue {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The texts of one language.
        #[derive(Debug)]
        pub struct Catalogue {
            $($(#[$doc])* pub $name: &'static str,)*
        }

        impl Catalogue {
            /// All texts with their names, for checks.
            pub fn all(&self) -> Vec<(&'static str, &'static str)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

catalogue! {
    /// The language's own name.
    language_name,
    /// Heading of the whole.
    product,

    /// Button: on to the next step.
    next,
    /// Button: to the step before.
    back,
    /// Button: leave.
    cancel,
    /// Button: once more.
    again,
    /// Button: the end.
    finish,

    /// Language: heading.
    language_title,
    /// Language: what to do.
    language_text,
    /// Language: the choice.
    language_label,

    /// Address: heading.
    address_title,
    /// Address: what to do.
    address_text,
    /// Address: what was found.
    address_found,
    /// Address: the option of typing.
    address_typed,
    /// Address: about the option of typing.
    address_typed_detail,
    /// Address: the line.
    address_label,
    /// Address: examples.
    address_hint,
    /// Address: button to search again.
    address_search,
    /// Address: button to check.
    address_check,
    /// Address: searching.
    address_searching,
    /// Address: nothing was found.
    address_nothing,
    /// Address: a domain is asked.
    address_asking,
    /// Address: the domain named these.
    address_named,
    /// Address: the domain named none.
    address_not_named,
    /// Address: a stick was found.
    address_stick,
    /// Address: a pasted text was understood.
    address_pasted,
    /// Address: a pasted text was not understood.
    address_not_pasted,
    /// Address: nothing typed.
    address_empty,
    /// Address: a wrong port.
    address_bad_port,
    /// Address: a wrong host.
    address_bad_host,
    /// Address: letters outside a–z.
    address_bad_letters,
    /// Address: a wrong e-mail address.
    address_bad_mail,
    /// Address: resumed here.
    resumed,
    /// The progress can't be kept.
    not_stored,

    /// Source: configured.
    source_configured,
    /// Source: name in DNS.
    source_name,
    /// Source: TXT record.
    source_record,
    /// Source: DHCP.
    source_dhcp,
    /// Source: removable medium.
    source_stick,
    /// Source: pasted.
    source_pasted,

    /// Check: heading.
    check_title,
    /// Check: while it runs.
    check_text,
    /// Check: which of several.
    check_several,
    /// Check: it worked.
    check_good,
    /// Check: it worked after others had not.
    check_good_after,
    /// Check: the fingerprint has to be compared next.
    check_compare,
    /// Check: it did not work.
    check_failed,
    /// Check: none of several worked.
    check_failed_all,
    /// Check: the root is not the one of the credentials.
    check_wrong_root,
    /// Check: nothing to compare.
    check_no_root,
    /// Check: button to give another address.
    check_other,
    /// Stage.
    stage_name,
    /// Stage.
    stage_tcp,
    /// Stage.
    stage_proxy,
    /// Stage.
    stage_tls,
    /// Stage.
    stage_chain,
    /// Stage.
    stage_gateway,
    /// Stage.
    stage_server,
    /// Stage failed.
    failed_name,
    /// Stage failed.
    failed_tcp,
    /// Stage failed.
    failed_proxy,
    /// Stage failed.
    failed_tls,
    /// Stage failed.
    failed_chain,
    /// Stage failed.
    failed_gateway,
    /// Stage failed.
    failed_server,
    /// Any stage that needs a look.
    stage_warning,

    /// Fingerprint: heading.
    fingerprint_title,
    /// Fingerprint: what to do.
    fingerprint_text,
    /// Fingerprint: what if they differ.
    fingerprint_differ,
    /// Fingerprint: a shown part.
    fingerprint_part,
    /// Fingerprint: the missing part.
    fingerprint_missing,
    /// Fingerprint: how it looks.
    fingerprint_hint,
    /// Fingerprint: not a part.
    fingerprint_not_a_part,
    /// Fingerprint: another part.
    fingerprint_other_part,
    /// Fingerprint: wrong.
    fingerprint_wrong,
    /// Fingerprint: wrong, and a pause.
    fingerprint_pause,
    /// Fingerprint: the pause is over.
    fingerprint_after_pause,
    /// Fingerprint: right.
    fingerprint_right,

    /// Key: heading.
    key_title,
    /// Key: what to do.
    key_text,
    /// Key: where it comes from.
    key_from_credentials,
    /// Key: why no fingerprint was asked: credentials.
    key_trust_credentials,
    /// Key: why no fingerprint was asked: public authority.
    key_trust_public,
    /// Key: why no fingerprint was asked: confirmed before.
    key_trust_confirmed,
    /// Key: the line.
    key_label,
    /// Key: how it looks.
    key_hint,
    /// Key: button.
    key_log_on,
    /// Key: empty.
    key_empty,
    /// Key: too long.
    key_too_long,
    /// Key: odd characters.
    key_not_ascii,
    /// Key: pasted credentials of another server.
    key_other_server,

    /// Log on: heading.
    log_on_title,
    /// Log on: while it runs.
    log_on_text,
    /// Log on: refused, in words of the person's language.
    log_on_refused,
    /// Log on: refused, in words of another language.
    log_on_refused_foreign,
    /// Log on: button for another key.
    log_on_other_key,
    /// Log on: stage.
    log_on_connect,
    /// Log on: stage.
    log_on_prove,
    /// Log on: stage.
    log_on_store,
    /// Log on: stage.
    log_on_online,

    /// Ready: heading.
    ready_title,
    /// Ready: what now.
    ready_text,
    /// Ready: no agent runs.
    ready_no_agent,
    /// Ready: the link is not up yet: heading.
    ready_not_yet_title,
    /// Ready: the link is not up yet.
    ready_not_yet,
    /// Ready: fact.
    ready_server,
    /// Ready: fact.
    ready_device,
    /// Ready: fact.
    ready_fingerprint,
    /// Ready: fact.
    ready_public_ca,

    /// Leave: heading.
    leave_title,
    /// Leave: what happens.
    leave_text,
    /// Leave: what happens while logging on.
    leave_logging_on,
    /// Leave: button to stay.
    leave_stay,
    /// Leave: button to go and keep.
    leave_keep,
    /// Leave: button to go and forget.
    leave_forget,

    /// Belongs: heading.
    belongs_title,
    /// Belongs: what now.
    belongs_text,
    /// Taken: heading.
    taken_title,
    /// Taken: what now.
    taken_text,
    /// Taken: nobody knows who.
    taken_somebody,

    /// Faces: which step.
    face_step,
    /// Faces: what the keys do.
    face_keys,
    /// Faces: under way.
    face_busy,
    /// Faces: more above what is to be seen.
    face_more_above,
    /// Faces: more below what is to be seen.
    face_more_below,
    /// Faces: show a secret.
    face_show,
    /// Faces: hide a secret.
    face_hide,
    /// Faces: state of a line.
    state_waiting,
    /// Faces: state of a line.
    state_running,
    /// Faces: state of a line.
    state_skipped,
    /// Faces: state of a line.
    state_good,
    /// Faces: state of a line.
    state_warning,
    /// Faces: state of a line.
    state_failed,

    /// Window: what the keys do.
    window_keys,
    /// Window: heading once the assistant behind it has ended by itself.
    window_stopped,
    /// Window: the assistant ended by itself.
    window_ended,
    /// Window: what it said before that.
    window_said,
    /// Window: the assistant can't be started.
    window_not_started,
    /// Window: what the assistant says is no view.
    window_unreadable,
    /// Window: the assistant is of another version.
    window_other_version,
    /// Window: where else the setup can be had.
    window_elsewhere,
    /// Window: button.
    window_close,
}

impl Catalogue {
    /// The texts of a language.
    pub fn of(language: Language) -> &'static Self {
        match language {
            Language::En => &en::TEXTS,
            Language::De => &de::TEXTS,
        }
    }
}

/// How a language says what the device has to say; nothing in English, in which the device says it itself.
pub(crate) fn wording(language: Language, code: Code) -> Option<&'static str> {
    match language {
        Language::En => None,
        Language::De => Some(de::wording(code)),
    }
}

#[cfg(test)]
mod tests;
