//! Whose rights a call to the source has.
//!
//! Stage: around every call that opens, makes or changes something there.
//!
//! - The kernel that asks has checked modes and access lists. A call made as the
//!   asker passes them again by capability, and nothing else: the source's room
//!   and quota, a server on a network and procfs judge the asker, not us.
//! - What a change of contents takes from a file (set-user-id, set-group-id,
//!   capabilities) is decided in one place, the source's kernel: it is the asker
//!   who changes, with `CAP_FSETID` only where he has it.
//! - What is refused so, as by a server that squashes root and knows no
//!   capabilities, is tried once more as the asker with all his groups and no
//!   capability of ours.

use std::os::fd::AsFd;

use rustix::fs::AtFlags;
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};
use zcache_sys::procfs;

use crate::wire::Header;

/// Set-user-id and set-group-id.
const SET_IDS: u32 = 0o6000;
const SET_GROUP_ID: u32 = 0o2000;
const GROUP_EXECUTES: u32 = 0o010;

/// Who asks for something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Asker {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The thread; 0 where nobody can name it.
    pub(crate) pid: u32,
}

impl Asker {
    pub(crate) fn of(header: &Header) -> Asker {
        Asker {
            uid: header.uid,
            gid: header.gid,
            pid: header.pid,
        }
    }

    fn is_root(self) -> bool {
        (self.uid, self.gid) == (0, 0)
    }

    /// His other groups, where they can be told.
    fn groups(self) -> Vec<Gid> {
        let told = procfs::status_field(self.pid.cast_signed(), "Groups");
        let told = told.filter(|_| self.pid != 0).unwrap_or_default();
        let groups = told.split_ascii_whitespace();
        groups
            .filter_map(|group| group.parse().ok().map(Gid::from_raw))
            .collect()
    }

    /// Whether he may leave set-id bits on what he changes, where no request
    /// says so. Another user's capabilities may be those of his own namespace.
    fn has_fsetid(self) -> bool {
        let told = || procfs::status_field(self.pid.cast_signed(), "CapEff");
        let effective = (self.uid == 0 && self.pid != 0).then(told).flatten();
        let effective = effective.and_then(|told| u64::from_str_radix(&told, 16).ok());
        match effective {
            Some(bits) => bits & CapabilitySet::FSETID.bits() != 0,
            None => self.uid == 0,
        }
    }
}

/// What is known of the asker's right to leave set-id bits on a file that he
/// changes (`CAP_FSETID`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SetIds {
    Kept,
    Lost,
    /// The request does not say.
    Untold,
}

impl SetIds {
    /// Where a flag of the request says that they are to go.
    pub(crate) fn lost_if(flag: bool) -> SetIds {
        match flag {
            true => SetIds::Lost,
            false => SetIds::Kept,
        }
    }
}

/// What this process may do on behalf of others.
#[derive(Clone, Debug)]
pub(crate) struct Rights {
    /// `None` when this process is not root and can only act as itself.
    own: Option<Own>,
}

#[derive(Clone, Debug)]
struct Own {
    capabilities: CapabilitySets,
    groups: Vec<Gid>,
}

/// What is kept of our rights while acting as another user. A second check here
/// would not know of the user's other groups.
fn kept_for_others() -> CapabilitySet {
    CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::MKNOD
        | CapabilitySet::SETUID
        | CapabilitySet::SETGID
}

/// What one becomes for one call.
#[derive(Debug)]
struct Guise {
    asker: Asker,
    groups: Vec<Gid>,
    capabilities: CapabilitySet,
}

impl Rights {
    pub(crate) fn of_this_process() -> Rights {
        let root = rustix::process::geteuid().is_root();
        let capabilities = rustix::thread::capabilities(None).ok().filter(|_| root);
        let own = capabilities.map(|capabilities| Own {
            capabilities,
            groups: rustix::process::getgroups().unwrap_or_default(),
        });
        Rights { own }
    }

    /// Runs `call` as that user: what it makes is his, and what judges by who
    /// opened a file (procfs, a server) judges him.
    pub(crate) fn acting_as<T>(
        &self,
        asker: Asker,
        call: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        if asker.is_root() {
            return call();
        }
        match self.in_guise(&Guise::plain(asker), &call) {
            Err(error @ (Errno::ACCESS | Errno::PERM)) => {
                self.as_bare(asker, call).map_err(|_| error)
            }
            result => result,
        }
    }

    /// The same for a change of what is in a file, or of its owner: the source
    /// takes from the file what such a change by that user takes.
    pub(crate) fn changing_as<T>(
        &self,
        asker: Asker,
        set_ids: SetIds,
        file: impl AsFd,
        change: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut guise = Guise::plain(asker);
        if set_ids != SetIds::Kept {
            let stat = rustix::fs::statat(file, c"", AtFlags::EMPTY_PATH)?;
            let has_ids = stat.st_mode & SET_IDS != 0;
            if has_ids && (set_ids == SetIds::Lost || !asker.has_fsetid()) {
                guise.capabilities -= CapabilitySet::FSETID;
                let marked = stat.st_mode & (SET_GROUP_ID | GROUP_EXECUTES) == SET_GROUP_ID;
                if marked && stat.st_gid != asker.gid {
                    // Who is in the group keeps this one.
                    guise.groups = asker.groups();
                }
            }
        }
        match asker.is_root() && guise.capabilities == kept_for_others() {
            true => change(),
            false => self.in_guise(&guise, change),
        }
    }

    /// Runs `call` as root, and what root is refused as the asker. Gives root's
    /// refusal if both are refused.
    pub(crate) fn or_as<T>(
        &self,
        asker: Asker,
        call: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let refused = match call() {
            Err(error @ (Errno::ACCESS | Errno::PERM)) if !asker.is_root() => error,
            result => return result,
        };
        self.as_bare(asker, call).map_err(|_| refused)
    }

    /// Runs `call` with no more than the asker has: without capabilities, as
    /// nobody here knows which of his count.
    fn as_bare<T>(
        &self,
        asker: Asker,
        call: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut guise = Guise::plain(asker);
        guise.groups = asker.groups();
        guise.capabilities = CapabilitySet::empty();
        self.in_guise(&guise, call)
    }

    /// The same, where root stays root.
    pub(crate) fn as_himself<T>(
        &self,
        asker: Asker,
        call: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        match asker.is_root() {
            true => call(),
            false => self.as_bare(asker, call),
        }
    }

    fn in_guise<T>(
        &self,
        guise: &Guise,
        call: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let Some(own) = &self.own else {
            return call();
        };
        let _back = BecomeRoot {
            own,
            groups: !guise.groups.is_empty(),
        };
        guise.put_on(own)?;
        call()
    }
}

impl Guise {
    fn plain(asker: Asker) -> Guise {
        Guise {
            asker,
            groups: Vec::new(),
            capabilities: kept_for_others(),
        }
    }

    /// Only of this thread: Linux keeps users by thread.
    fn put_on(&self, own: &Own) -> Result<(), Errno> {
        if !self.groups.is_empty() {
            rustix::thread::set_thread_groups(&self.groups)?;
        }
        let (uid, gid) = (Uid::from_raw(self.asker.uid), Gid::from_raw(self.asker.gid));
        rustix::thread::set_thread_res_gid(None::<Gid>, gid, None::<Gid>)?;
        rustix::thread::set_thread_res_uid(None::<Uid>, uid, None::<Uid>)?;
        let effective = own.capabilities.permitted & self.capabilities;
        let sets = CapabilitySets {
            effective,
            ..own.capabilities
        };
        rustix::thread::set_capabilities(None, sets)
    }
}

struct BecomeRoot<'a> {
    own: &'a Own,
    groups: bool,
}

impl Drop for BecomeRoot<'_> {
    fn drop(&mut self) {
        let user = rustix::thread::set_thread_res_uid(None::<Uid>, Uid::ROOT, None::<Uid>);
        let rights = rustix::thread::set_capabilities(None, self.own.capabilities);
        let group = rustix::thread::set_thread_res_gid(None::<Gid>, Gid::ROOT, None::<Gid>);
        let groups = match self.groups {
            true => rustix::thread::set_thread_groups(&self.own.groups),
            false => Ok(()),
        };
        // A worker that stayed another user would make files of the wrong
        // owner from now on. Root was the real user all the time.
        let back = [user, rights, group, groups];
        assert!(back.iter().all(Result::is_ok), "cannot be root again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_and_rights_of_a_process_are_told() {
        let own = Asker {
            uid: 0,
            gid: 0,
            pid: std::process::id(),
        };
        let groups = rustix::process::getgroups().expect("they are told");
        assert_eq!(own.groups(), groups);
        let nobody = Asker { pid: 0, ..own };
        assert_eq!(nobody.groups(), []);
        assert!(nobody.has_fsetid(), "root, as far as one knows");
        assert!(!Asker { uid: 1, ..own }.has_fsetid());
    }
}
