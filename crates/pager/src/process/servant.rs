//! How a servant is born and sets itself up, by injected calls.
//!
//! The program's own descriptors, limits and filters have no part in it: all but
//! one call are the servant's, which has its own table of descriptors. At its end
//! the servant can do nothing but its few calls on its few ranges. Everything that
//! is mapped for it is not inherited by a fork.

use std::fs::{self, File};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI32};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use zcache_sys::fd::PidFd;
use zcache_sys::process::{raise_limit, read_memory, write_memory};
use zcache_sys::ptrace::{self, Stop};
use zcache_sys::seccomp::ServantCalls;
use zcache_sys::servant::{self, CODE_BYTES, Command, ENTRY_CALL, ENTRY_LOOP, RING_BYTES, Ring};
use zcache_sys::shared::SharedMap;
use zcache_sys::uffd::{
    FEATURE_EVENT_REMAP, FEATURE_MOVE, FEATURE_POISON, FEATURE_SIGBUS, FEATURE_THREAD_ID,
    UFFDIO_MOVE, USERFAULTFD_IOC_NEW, Uffd,
};

use super::care_error::{CareError, is_gone};
use super::inject::Injection;
use super::script::Claim;
use super::tracer::Tracer;
use crate::budget::PAGE_BYTES;
use crate::space::hands::{Kernel, PEN_PAGES, Places, Servant};
use crate::sync::{Mutex, RwLock, lock};

const AT_SYSINFO_EHDR: u64 = 33;
const NOBODY: u64 = u64::MAX;
const PROT_READ: u64 = libc::PROT_READ as u64;
const PROT_RW: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
const PROT_RX: u64 = (libc::PROT_READ | libc::PROT_EXEC) as u64;
const MAP_SHARED: u64 = libc::MAP_SHARED as u64;
const MAP_OVER: u64 = libc::MAP_FIXED as u64;
const MAP_NOT_OVER: u64 = libc::MAP_FIXED_NOREPLACE as u64;
const MAP_RESERVED: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as u64;
/// Descriptors that a servant needs at once.
const DESCRIPTORS: u64 = 16;
const CAPABILITY_VERSION_3: u64 = 0x2008_0522;
/// Within this a servant is ready, if it runs at all.
const SOON: Duration = Duration::from_millis(3);

/// What a space had before it gets a servant.
#[derive(Clone, Copy)]
pub(super) enum Before<'a> {
    /// Nothing: it is a new image.
    Nothing,
    /// Its parent had the pager's mappings there, and it has nothing there: what
    /// lies elsewhere unmapped may be the program's to use again.
    Parent(Places),
    /// All of this, but the servant was lost.
    Lost(&'a Kernel),
}

/// Everything of a space but what is known of its pages.
pub(super) struct Care {
    pub(super) hands: Kernel,
    pub(super) uffd: Arc<Uffd>,
    pub(super) servant: Arc<Servant>,
    pub(super) leash: Leash,
}

/// Ends a servant that came to no space, since its process was killed meanwhile.
pub(super) struct Leash(pub(super) Option<Arc<Servant>>);

impl Drop for Leash {
    fn drop(&mut self) {
        if let Some(servant) = &self.0 {
            // It may have ended already.
            let _ = servant.pidfd.signal(libc::SIGKILL);
        }
    }
}

impl Tracer {
    /// Has a servant be born in the address space of a stopped thread, and sets it
    /// up. `before` is what the space had until it lost its servant.
    pub(super) async fn give_servant(
        self: &Rc<Self>,
        injection: &Injection<'_>,
        program: &Claim,
        before: Before<'_>,
    ) -> Result<Care, CareError> {
        let flags = libc::CLONE_VM as u64;
        if !bears_at_home(program.task) {
            return Err(CareError::BornElsewhere);
        }
        let filtered = self.is_filtered(program.task);
        let born = injection
            .call(
                "clone of the helper",
                libc::SYS_clone,
                [flags, 0, 0, 0, 0, 0],
            )
            .await;
        let inner_pid = born? as i32;
        let pid = injection.born().ok_or(CareError::Ended)?;
        let claim = self.claim_newborn(pid).await?;
        let set_up = self
            .set_up(&claim, program.task, inner_pid, before, filtered)
            .await;
        if set_up.is_err() {
            if !claim.has_ended() {
                let _ = zcache_sys::process::kill(pid, libc::SIGKILL);
            }
            while !claim.has_ended() {
                self.scripts.stop_of(&claim).await;
            }
            drop(claim);
            // Its parent would be asked to wait for it some day.
            let wait = [inner_pid as u64, 0, libc::__WALL as u64, 0, 0, 0];
            let _ = injection.call("wait", libc::SYS_wait4, wait).await;
        }
        set_up
    }

    /// What a servant does before it serves.
    async fn set_up(
        self: &Rc<Self>,
        claim: &Claim,
        program_pid: i32,
        inner_pid: i32,
        before: Before<'_>,
        filtered: bool,
    ) -> Result<Care, CareError> {
        let own = CareError::own;
        let pid = claim.task;
        // The program's filters would be asked about the servant for ever.
        if filtered && ptrace::suspend_filters(pid, true).is_err() {
            return Err(CareError::Filtered);
        }
        ptrace::set_signal_mask(pid, u64::MAX).map_err(own("blocking signals"))?;
        for resource in [libc::RLIMIT_AS, libc::RLIMIT_DATA, libc::RLIMIT_MEMLOCK] {
            raise_limit(pid, resource, libc::RLIM_INFINITY);
        }
        raise_limit(pid, libc::RLIMIT_NOFILE, DESCRIPTORS);
        // It was born by the instruction before the one at which it stands.
        let birth = ptrace::registers(pid).map_err(own("reading registers"))?;
        let mut its = Injection::servant(self, claim, birth.rip - 2)?;
        let pidfd = PidFd::open(pid).map_err(own("pidfd_open of the helper"))?;
        let take = |number: u64| pidfd.take_fd(number as i32).map_err(own("pidfd_getfd"));
        let all = u64::from(u32::MAX);
        its.call("close_range", libc::SYS_close_range, [0, all, 0, 0, 0, 0])
            .await?;
        let name = find_vdso(program_pid)?;
        let (map, code, ring) = map_code_and_ring(&its, &pidfd, name, before).await?;
        its.set_instruction(code + ENTRY_CALL);
        let flags = libc::EFD_CLOEXEC as u64;
        let bell = its
            .call("eventfd", libc::SYS_eventfd2, [0, flags, 0, 0, 0, 0])
            .await?;
        let ring = Ring::new(map, take(bell)?, bell, ring);
        let places = self.find_places(&its, before, code, ring.address()).await?;
        let first = !matches!(before, Before::Lost(_));
        let made = self.userfaultfds(&its, &pidfd, first).await?;
        let (uffd, shadow_uffd, shadow_fd, spare) = made;
        let uffd = match (uffd, before) {
            (Some(uffd), _) => Arc::new(uffd),
            (None, Before::Lost(kernel)) => Arc::clone(&kernel.uffd),
            (None, _) => return Err(CareError::Ended),
        };
        if let Before::Lost(kernel) = before {
            // Its slots are nobody's for a moment; nobody reads them meanwhile.
            let _ = lock(&kernel.shadow_uffd).unregister(places.shadow, places.shadow_bytes);
        }
        shadow_uffd
            .register(places.shadow, places.shadow_bytes)
            .map_err(own("registering the shadow"))?;
        let calls = ServantCalls {
            ring: places.ring,
            bell,
            move_fd: shadow_fd,
            move_request: UFFDIO_MOVE,
            shadow: (places.shadow, places.shadow_bytes),
            pen: (places.pen, PEN_PAGES * PAGE_BYTES),
        };
        let mut commands = forbid_inheritance(&places);
        commands.extend(spare.map(|fd| must(libc::SYS_close, [fd, 0, 0, 0, 0])));
        commands.extend(give_up_rights(&ring, (!filtered).then_some(&calls)));
        ring.submit(&commands);
        self.let_serve(&its, code, &ring)?;
        self.until_ready(claim, &ring).await?;
        let servant = Servant {
            pid,
            inner_pid,
            guard_slot: OnceLock::new(),
            pidfd,
            shadow_fd,
            gone: AtomicBool::new(false),
        };
        care(program_pid, servant, uffd, shadow_uffd, ring, places)
    }

    /// Has the servant go into its loop.
    fn let_serve(&self, its: &Injection<'_>, code: u64, ring: &Ring) -> Result<(), CareError> {
        let mut registers = *its.saved();
        registers.rip = code + ENTRY_LOOP;
        registers.r12 = ring.address();
        registers.rbp = self.pager.secret;
        registers.orig_rax = u64::MAX;
        registers.rax = 0;
        ptrace::set_registers(its.task(), &registers)
            .and_then(|()| ptrace::resume(its.task(), 0))
            .map_err(CareError::own("ptrace"))
    }

    /// Where the pager's mappings are to lie: where they are, where the parent has
    /// them, or where the kernel chooses. The shadow and the pen are mapped there.
    async fn find_places(
        &self,
        its: &Injection<'_>,
        before: Before<'_>,
        code: u64,
        ring: u64,
    ) -> Result<Places, CareError> {
        let (shadow, pen) = match before {
            Before::Lost(kernel) => return Ok(kernel.places),
            Before::Parent(places) => (Some(places.shadow), Some(places.pen)),
            Before::Nothing => (None, None),
        };
        let shadow_bytes = self.pager.sizes.shadow_slots * PAGE_BYTES;
        let shadow = self.reserve(its, shadow, shadow_bytes, PROT_RW).await?;
        let pen = self.reserve(its, pen, PEN_PAGES * PAGE_BYTES, 0).await?;
        Ok(Places {
            code,
            ring,
            shadow,
            shadow_bytes,
            pen,
        })
    }

    /// Maps `len` bytes at a place that was the parent's, or at one of the kernel's
    /// choice that does not reach a multiple of 4 GiB, since a filter compares
    /// words of 32 bits.
    async fn reserve(
        &self,
        its: &Injection<'_>,
        at: Option<u64>,
        len: u64,
        access: u64,
    ) -> Result<u64, CareError> {
        if let Some(at) = at {
            let how = MAP_RESERVED | MAP_NOT_OVER;
            let arguments = [at, len, access, how, NOBODY, self.pager.secret];
            return its
                .call("mmap of the shadow", libc::SYS_mmap, arguments)
                .await;
        }
        let arguments = [0, len, access, MAP_RESERVED, NOBODY, self.pager.secret];
        let map = || its.call("mmap of the shadow", libc::SYS_mmap, arguments);
        let start = map().await?;
        // The end is compared too, so it may not lie on a multiple either.
        if start >> 32 == (start + len) >> 32 {
            return Ok(start);
        }
        let other = map().await?;
        let arguments = [start, len, 0, 0, 0, self.pager.secret];
        its.call("munmap", libc::SYS_munmap, arguments).await?;
        Ok(other)
    }

    /// Waits until a servant has done what it does before it serves. That takes a
    /// moment; if it takes longer, others are not kept waiting.
    async fn until_ready(&self, claim: &Claim, ring: &Ring) -> Result<(), CareError> {
        if ring.finish(SOON, || true).is_ok() {
            return Ok(());
        }
        let ready = || {
            match self.scripts.take_stop(claim) {
                Some(Stop::Exited(_) | Stop::Signaled(_)) => return Some(Err(CareError::Ended)),
                Some(_) => drop(ptrace::resume(claim.task, 0)),
                None => {}
            }
            ring.finish(Duration::ZERO, || true)
                .is_ok()
                .then_some(Ok(()))
        };
        self.scripts.until(ready).await
    }

    /// Makes the userfaultfds of a space: that of its pages, if it has none, and
    /// the shadow's. Returns them, the number that the shadow's has in the servant,
    /// and that of one that the servant does not need.
    async fn userfaultfds(
        &self,
        its: &Injection<'_>,
        pidfd: &PidFd,
        first: bool,
    ) -> Result<(Option<Uffd>, Uffd, u64, Option<u64>), CareError> {
        let own = CareError::own;
        let take = |number: u64| pidfd.take_fd(number as i32).map_err(own("pidfd_getfd"));
        let flags = (libc::O_CLOEXEC | libc::O_NONBLOCK) as u64;
        let by_call = || its.call("userfaultfd", libc::SYS_userfaultfd, [flags, 0, 0, 0, 0, 0]);
        let mut tried = by_call().await;
        let mut device = None;
        if let Err(CareError::Call {
            errno: libc::EPERM, ..
        }) = tried
            && self.pager.device.is_some()
        {
            let number = self.send_device(its, pidfd).await?;
            device = Some(number);
            let made = [number, USERFAULTFD_IOC_NEW, flags, 0, 0, 0];
            tried = its.call("userfaultfd", libc::SYS_ioctl, made).await;
        }
        let mut number = tried?;
        let mut spare = None;
        let mut uffd = None;
        if first {
            let taken = Uffd::from_fd(take(number)?);
            let features = FEATURE_EVENT_REMAP | FEATURE_THREAD_ID | FEATURE_POISON | FEATURE_MOVE;
            taken
                .handshake(features)
                .map_err(own("userfaultfd features"))?;
            uffd = Some(taken);
            spare = Some(number);
            number = match device {
                None => by_call().await?,
                Some(device) => {
                    let made = [device, USERFAULTFD_IOC_NEW, flags, 0, 0, 0];
                    its.call("userfaultfd", libc::SYS_ioctl, made).await?
                }
            };
        }
        let shadow_uffd = Uffd::from_fd(take(number)?);
        shadow_uffd
            .handshake(FEATURE_MOVE | FEATURE_SIGBUS)
            .map_err(own("userfaultfd features (UFFDIO_MOVE needs Linux 6.8)"))?;
        if let Some(device) = device {
            its.call("close", libc::SYS_close, [device, 0, 0, 0, 0, 0])
                .await?;
        }
        Ok((uffd, shadow_uffd, number, spare))
    }

    /// Gives the servant the pager's device to make userfaultfds by, so that it
    /// does not matter what the program may open, or as whom. Returns its number
    /// there.
    async fn send_device(&self, its: &Injection<'_>, pidfd: &PidFd) -> Result<u64, CareError> {
        let Some(device) = &self.pager.device else {
            return Err(CareError::Call {
                what: "userfaultfd",
                errno: libc::EPERM,
            });
        };
        let secret = self.pager.secret;
        let place = [0, PAGE_BYTES, PROT_RW, MAP_RESERVED, NOBODY, secret];
        let scratch = its.call("mmap", libc::SYS_mmap, place).await?;
        let kind = (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as u64;
        let pair = [libc::AF_UNIX as u64, kind, 0, scratch, 0, 0];
        its.call("socketpair", libc::SYS_socketpair, pair).await?;
        let mut numbers = [0u8; 8];
        let own = CareError::own;
        read_memory(its.task(), scratch, &mut numbers).map_err(own("reading the program"))?;
        let number =
            |at: usize| u64::from(u32::from_ne_bytes(std::array::from_fn(|i| numbers[at + i])));
        let (ours, theirs) = (number(0), number(4));
        let socket = pidfd.take_fd(ours as i32).map_err(own("pidfd_getfd"))?;
        zcache_sys::socket::send_descriptor(&socket, device).map_err(own("sending the device"))?;
        let message = zcache_sys::socket::receiving_message(scratch);
        write_memory(its.task(), scratch, &message.bytes).map_err(own("writing to the program"))?;
        let close_on_exec = libc::MSG_CMSG_CLOEXEC as u64;
        its.call(
            "recvmsg",
            libc::SYS_recvmsg,
            [theirs, scratch, close_on_exec, 0, 0, 0],
        )
        .await?;
        let mut number = [0u8; 4];
        read_memory(its.task(), message.descriptor_at, &mut number)
            .map_err(own("reading the program"))?;
        for socket in [ours, theirs] {
            its.call("close", libc::SYS_close, [socket, 0, 0, 0, 0, 0])
                .await?;
        }
        let dropped = [scratch, PAGE_BYTES, 0, 0, 0, secret];
        its.call("munmap", libc::SYS_munmap, dropped).await?;
        Ok(u64::from(u32::from_ne_bytes(number)))
    }
}

/// Whether the children of a process are born in its own PID namespace.
fn bears_at_home(pid: i32) -> bool {
    let space = |name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).ok();
    let children = space("pid_for_children");
    children.is_some() && children == space("pid")
}

/// Maps code and ring from a memory file that is sealed before; returns the pager's
/// own mapping of it, and where both lie. `name` is the address of any short text.
async fn map_code_and_ring(
    its: &Injection<'_>,
    pidfd: &PidFd,
    name: u64,
    before: Before<'_>,
) -> Result<(SharedMap, u64, u64), CareError> {
    let own = CareError::own;
    let flags = u64::from(libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
    let arguments = [name, flags, 0, 0, 0, 0];
    let file = its
        .call("memfd_create", libc::SYS_memfd_create, arguments)
        .await?;
    let taken = pidfd.take_fd(file as i32).map_err(own("pidfd_getfd"))?;
    let map = servant::prepare_file(&taken).map_err(own("the helper's code"))?;
    let (at, how) = match before {
        Before::Nothing => ([0, 0], MAP_SHARED),
        Before::Parent(places) => ([places.code, places.ring], MAP_SHARED | MAP_NOT_OVER),
        Before::Lost(kernel) => {
            let places = kernel.places;
            ([places.code, places.ring], MAP_SHARED | MAP_OVER)
        }
    };
    let code = [at[0], CODE_BYTES, PROT_RX, how, file, 0];
    let code = its
        .call("mmap of the helper's code", libc::SYS_mmap, code)
        .await?;
    let ring = [at[1], RING_BYTES, PROT_READ, how, file, CODE_BYTES];
    let ring = its
        .call("mmap of the helper's ring", libc::SYS_mmap, ring)
        .await?;
    // A limit of three descriptors is enough.
    its.call("close", libc::SYS_close, [file, 0, 0, 0, 0, 0])
        .await?;
    Ok((map, code, ring))
}

/// What the pager keeps of a servant that serves, and opens of its process.
fn care(
    program_pid: i32,
    servant: Servant,
    uffd: Arc<Uffd>,
    shadow_uffd: Uffd,
    ring: Ring,
    places: Places,
) -> Result<Care, CareError> {
    let servant = Arc::new(servant);
    let leash = Leash(Some(Arc::clone(&servant)));
    let open = |name: &str| {
        File::open(format!("/proc/{program_pid}/{name}"))
            .map_err(CareError::own("opening the program's memory"))
    };
    let hands = Kernel {
        uffd: Arc::clone(&uffd),
        shadow_uffd: Mutex::new(shadow_uffd),
        ring: Mutex::new(ring),
        servant: RwLock::new(Some(Arc::clone(&servant))),
        pagemap: open("pagemap")?,
        memory: open("mem")?,
        maps: open("maps")?,
        smaps: open("smaps")?,
        places,
        thread: AtomicI32::new(program_pid),
    };
    Ok(Care {
        hands,
        uffd,
        servant,
        leash,
    })
}

fn must(number: i64, arguments: [u64; 5]) -> Command {
    Command {
        number,
        must: true,
        arguments,
    }
}

/// Where it does not matter whether it works.
fn may(number: i64, arguments: [u64; 5]) -> Command {
    Command {
        must: false,
        ..must(number, arguments)
    }
}

/// Keeps the pager's mappings from children.
fn forbid_inheritance(places: &Places) -> Vec<Command> {
    let forbid = |(start, len)| {
        let advice = libc::MADV_DONTFORK as u64;
        must(libc::SYS_madvise, [start, len, advice, 0, 0])
    };
    let mut commands: Vec<Command> = places.ranges().into_iter().map(forbid).collect();
    // Kernels without huge pages refuse the advice about them.
    let advice = libc::MADV_NOHUGEPAGE as u64;
    let arguments = [places.shadow, places.shadow_bytes, advice, 0, 0];
    commands.push(may(libc::SYS_madvise, arguments));
    commands
}

/// Cuts what ties the servant to the program, and leaves it no right but to its
/// few calls. Without `calls` the program's filters are suspended for it, and with
/// them its own would be; that nobody commands it but the ring binds it then.
fn give_up_rights(ring: &Ring, calls: Option<&ServantCalls>) -> Vec<Command> {
    let root = ring.put(0, &[u64::from(b'/')]);
    let name = ring.put(64, &words(b"zcache-servant\0\0"));
    let header = ring.put(128, &[CAPABILITY_VERSION_3]);
    let none = ring.put(192, &[0, 0, 0]);
    let (set_name, no_new) = (libc::PR_SET_NAME as u64, libc::PR_SET_NO_NEW_PRIVS as u64);
    let mut commands = vec![
        must(libc::SYS_setsid, [0; 5]),
        // Whoever has left its root behind may have none to go to.
        may(libc::SYS_chdir, [root, 0, 0, 0, 0]),
        must(libc::SYS_prctl, [set_name, name, 0, 0, 0]),
        must(libc::SYS_prctl, [no_new, 1, 0, 0, 0]),
        must(libc::SYS_capset, [header, none, 0, 0, 0]),
    ];
    if let Some(calls) = calls {
        let filter = calls.filter();
        let code: Vec<u64> = filter
            .iter()
            .map(|one| {
                u64::from(one.code)
                    | u64::from(one.jt) << 16
                    | u64::from(one.jf) << 24
                    | u64::from(one.k) << 32
            })
            .collect();
        let code = ring.put(512, &code);
        let program = ring.put(256, &[filter.len() as u64, code]);
        let mode = u64::from(libc::SECCOMP_SET_MODE_FILTER);
        commands.push(must(libc::SYS_seccomp, [mode, 0, program, 0, 0]));
    }
    commands
}

fn words(bytes: &[u8; 16]) -> [u64; 2] {
    std::array::from_fn(|word| {
        u64::from_ne_bytes(std::array::from_fn(|index| bytes[word * 8 + index]))
    })
}

/// Finds the process's vDSO.
pub(super) fn find_vdso(pid: i32) -> Result<u64, CareError> {
    let auxv = match fs::read(format!("/proc/{pid}/auxv")) {
        // Of a process that was killed there is nothing any more.
        Ok(auxv) if auxv.is_empty() => return Err(CareError::Ended),
        Ok(auxv) => auxv,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(CareError::NoEntry);
        }
        Err(error) if is_gone(&error) => return Err(CareError::Ended),
        Err(error) => {
            return Err(CareError::own("reading what the program was started with")(
                error,
            ));
        }
    };
    let word = |bytes: &[u8]| u64::from_ne_bytes(std::array::from_fn(|i| bytes[i]));
    let mut pairs = auxv.chunks_exact(16);
    let found = pairs.find(|pair| word(&pair[..8]) == AT_SYSINFO_EHDR);
    found.map(|pair| word(&pair[8..])).ok_or(CareError::NoEntry)
}
