//! The one place where failures below become kind, message and hint.

use ouisync_api::error::{ErrorBody, ErrorKind};
use ouisync_engine::error::{EngineError, ErrorKind as EngineKind};

/// Maps an engine's error.
pub(crate) fn from_engine(error: &EngineError) -> ErrorBody {
    let kind = match (error, error.kind()) {
        (EngineError::TimedOut(..), _) => ErrorKind::TimedOut,
        (EngineError::Cancelled, _) => ErrorKind::Cancelled,
        (_, EngineKind::Invalid) => ErrorKind::Invalid,
        (_, EngineKind::NotFound) => ErrorKind::NotFound,
        (_, EngineKind::Conflict) => ErrorKind::Conflict,
        (_, EngineKind::Forbidden) => ErrorKind::Forbidden,
        (_, EngineKind::Locked) => ErrorKind::Locked,
        (_, EngineKind::Unavailable) => ErrorKind::Unavailable,
        (_, EngineKind::Corruption) => ErrorKind::Corruption,
        (_, EngineKind::Internal) => ErrorKind::Internal,
    };
    let hint = match error {
        EngineError::NoPassphrase => {
            "Set one first: 'ouisync passphrase set', or give it to 'ouisync lock' on standard input."
        }
        EngineError::WrongPassphrase => "Type it again; nothing was changed.",
        EngineError::PassphraseNeeded => "Give it as a line on standard input.",
        EngineError::KeyRing(_) => {
            "Unlock the key ring of your session (log in, or start its service), then 'ouisync unlock'; nothing is lost."
        }
        EngineError::KeyRingUnused => {
            "See 'ouisync device'; 'ouisync keyring enable' takes it into use."
        }
        EngineError::SealingUnsure => "Restart the daemon.",
        EngineError::UnknownPath(_) | EngineError::NotThen(..) => {
            "See what there was with 'ouisync history' and 'ouisync deleted'."
        }
        EngineError::UnknownVersion(_)
        | EngineError::AmbiguousVersion(_)
        | EngineError::DeletedVersion(_) => "See the versions with 'ouisync history'.",
        EngineError::NotHeld(..) => {
            "Nothing was changed. Connect a member that may hold it, a safe or a device that has the folder for longer ('ouisync \
             members'), and try again; where nobody holds it any more it is gone."
        }
        EngineError::NotReachable { .. } => {
            "Nothing was changed. Connect those members and try again, or go on without what is missing: --partial."
        }
        EngineError::TooFewReplicas(_) => {
            "Nothing was dropped. Wait until more members have everything ('ouisync wait', 'ouisync status'), ask for fewer replicas ('ouisync retention NAME --replicas N'), or drop the plain copies only: --plain."
        }
        EngineError::Offloading => "Wait until that is done; nothing was changed.",
        EngineError::Paused => "Nothing was changed. 'ouisync resume' goes on, and catches up.",
        EngineError::AmbiguousMember(_) => "See the ids with 'ouisync members'.",
        _ => error.hint(),
    };
    ErrorBody::new(kind, error.to_string(), hint)
}

/// A wrong request.
pub(crate) fn invalid(message: impl Into<String>, hint: impl Into<String>) -> ErrorBody {
    ErrorBody::new(ErrorKind::Invalid, message, hint)
}

/// A defect of this program.
pub(crate) fn internal(message: impl Into<String>) -> ErrorBody {
    ErrorBody::new(
        ErrorKind::Internal,
        message,
        "Look at the daemon's log; what was acknowledged is safe.",
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn time_outs_and_locks_keep_their_kind() {
        let timed_out = from_engine(&EngineError::TimedOut(
            Duration::from_secs(1),
            "no peer".into(),
        ));
        assert_eq!(timed_out.kind.exit_code(), 4);
        assert_eq!(from_engine(&EngineError::Locked).kind.exit_code(), 8);
        assert!(
            from_engine(&EngineError::NoPassphrase)
                .hint
                .contains("passphrase set")
        );
    }
}
