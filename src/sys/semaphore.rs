//! The POSIX semaphore, in shared memory or under a name of its own.
//!
//! Its count survives any kill; its wake-up does not. Every wait above this layer is bounded
//! and looks again.
// Fences in the calls of glibc on memory that other processes write.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;

use super::clock;
use super::map::{At, Mapping};
use super::object::{self, Access, FileKind};

unsafe extern "C" {
    // glibc 2.30; the libc crate has no declaration of it.
    fn sem_clockwait(
        semaphore: *mut libc::sem_t,
        clock: libc::clockid_t,
        deadline: *const libc::timespec,
    ) -> libc::c_int;
}

/// What glibc puts before the name of a semaphore to get that of its object.
const PREFIX: &str = "sem.";

/// How often a semaphore may be replaced under its name while it is being opened.
const REPLACEMENTS: u32 = 100;

const SIZE: usize = size_of::<libc::sem_t>();

/// What glibc keeps in a semaphore; the same on both architectures.
#[repr(C)]
struct Words {
    value: AtomicU32,
    sleepers: AtomicU32,
    /// How the futex is reached. glibc hands it to the kernel and aborts if it is refused.
    scope: AtomicU32,
    unused: [AtomicU32; 5],
}

const _: () = {
    assert!(size_of::<Words>() == SIZE);
    assert!(align_of::<Words>() <= align_of::<libc::sem_t>());
};

/// A semaphore in shared memory; 32 bytes, 8-aligned. Written by everybody who uses it.
#[repr(transparent)]
pub(crate) struct Semaphore(UnsafeCell<libc::sem_t>);

// SAFETY: a semaphore is made for being used by many threads.
unsafe impl Send for Semaphore {}
// SAFETY: as above; the words looked at beside glibc's calls are looked at as atomics.
unsafe impl Sync for Semaphore {}

impl Semaphore {
    /// Writes a semaphore with `value` to `this`.
    ///
    /// # Errors
    /// `EINVAL` if `value` exceeds 2,147,483,647.
    ///
    /// # Safety
    /// `this` must point to 32 writable bytes, 8-aligned, that nobody uses yet.
    pub(crate) unsafe fn init(this: *mut Self, value: u32) -> io::Result<()> {
        // SAFETY: the memory is the caller's promise; the struct is transparent.
        done(unsafe { libc::sem_init(this.cast(), 1, value) })
    }

    /// Adds one, and wakes one who waits, if anybody does.
    ///
    /// # Errors
    /// `EOVERFLOW` if the count would exceed 2,147,483,647; `InvalidData` if it is damaged.
    pub(crate) fn post(&self) -> io::Result<()> {
        self.check()?;
        // SAFETY: initialised and sound.
        done(unsafe { libc::sem_post(self.0.get()) })
    }

    /// Takes one if there is one.
    ///
    /// # Errors
    /// `InvalidData` if it is damaged.
    pub(crate) fn try_wait(&self) -> io::Result<bool> {
        self.check()?;
        // SAFETY: initialised and sound.
        let call = || done(unsafe { libc::sem_trywait(self.0.get()) });
        taken(call)
    }

    /// Takes one, or gives up at `deadline_ns` of the monotonic clock. Signals do not end it.
    ///
    /// # Errors
    /// `InvalidData` if it is damaged.
    pub(crate) fn wait_until(&self, deadline_ns: Option<u64>) -> io::Result<bool> {
        self.check()?;
        let Some(deadline_ns) = deadline_ns else {
            // SAFETY: initialised and sound.
            return taken(|| done(unsafe { libc::sem_wait(self.0.get()) }));
        };
        let deadline = clock::timespec(deadline_ns);
        taken(|| {
            let clock = libc::CLOCK_MONOTONIC;
            // SAFETY: initialised and sound; the deadline outlives the call.
            done(unsafe { sem_clockwait(self.0.get(), clock, &raw const deadline) })
        })
    }

    /// The count, which may be another one by now.
    pub(crate) fn value(&self) -> u32 {
        let mut value = 0;
        // SAFETY: initialised; glibc reads one word.
        let answer = unsafe { libc::sem_getvalue(self.0.get(), &raw mut value) };
        if answer == 0 {
            u32::try_from(value).unwrap_or(0)
        } else {
            0
        }
    }

    /// Whether the word that says how sleepers are reached is what [`Semaphore::init`] writes.
    pub(crate) fn is_sound(&self) -> bool {
        self.words().scope.load(Relaxed) == shared_scope()
    }

    fn check(&self) -> io::Result<()> {
        if self.is_sound() {
            Ok(())
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }

    fn words(&self) -> &Words {
        // SAFETY: as large, no less aligned, and atomics throughout; glibc, too, touches these
        // words with atomic instructions.
        unsafe { &*self.0.get().cast() }
    }
}

/// The scope word of a semaphore that processes share; 0 until it has been learned, which is
/// glibc's word for the other scope.
fn shared_scope() -> u32 {
    static SCOPE: AtomicU32 = AtomicU32::new(0);
    match SCOPE.load(Relaxed) {
        0 => {
            let scope = fresh(0).map_or(0, |bytes| {
                let start = std::mem::offset_of!(Words, scope);
                let word = bytes
                    .get(start..start + 4)
                    .and_then(|word| word.try_into().ok());
                u32::from_ne_bytes(word.unwrap_or_default())
            });
            SCOPE.store(scope, Relaxed);
            scope
        }
        scope => scope,
    }
}

/// The bytes of a semaphore with `value`.
fn fresh(value: u32) -> io::Result<[u8; SIZE]> {
    let mut memory = MaybeUninit::<Semaphore>::zeroed();
    // SAFETY: memory of our own, of the right size and alignment.
    unsafe { Semaphore::init(memory.as_mut_ptr(), value) }?;
    let bytes = memory.as_ptr().cast::<[u8; SIZE]>();
    // SAFETY: as large, and every byte has been written: the memory was zeroed.
    Ok(unsafe { bytes.read() })
}

fn done(answer: libc::c_int) -> io::Result<()> {
    Ok(Errno::result(answer).map(drop)?)
}

/// Calls until it is not a signal that ended the call.
fn taken(mut call: impl FnMut() -> io::Result<()>) -> io::Result<bool> {
    loop {
        match call() {
            Ok(()) => return Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN | libc::ETIMEDOUT) => return Ok(false),
                _ => return Err(error),
            },
        }
    }
}

/// A semaphore that has a name of its own, as `sem_open` knows it; closed when dropped, and
/// unlinked by [`NamedSemaphore::unlink`] only.
///
/// Its name is a file name without a slash and without glibc's prefix.
#[derive(Debug)]
pub(crate) struct NamedSemaphore {
    semaphore: NonNull<Semaphore>,
    /// `None` if `sem_open` made the mapping.
    mapping: Option<Mapping>,
}

// SAFETY: the semaphore may be used by every thread, and closing works from every thread.
unsafe impl Send for NamedSemaphore {}
// SAFETY: as above.
unsafe impl Sync for NamedSemaphore {}

impl NamedSemaphore {
    /// Creates a semaphore with `value`, and with exactly the permission bits `mode`, whatever
    /// the umask. It appears under its name complete, or not at all.
    ///
    /// # Errors
    /// `EEXIST` if the name is taken, `EINVAL` if `value` exceeds 2,147,483,647 or the name is
    /// none, `ENAMETOOLONG`, `ENOSPC`, `EMFILE`.
    pub(crate) fn create_new(name: &str, mode: u32, value: u32) -> io::Result<Self> {
        let bytes = fresh(value)?;
        match object::create_unnamed() {
            Ok(fd) => {
                let mut file = File::from(fd);
                file.write_all(&bytes)?;
                object::set_mode(file.as_fd(), mode)?;
                let access = Access::ReadWrite;
                let mapping = Mapping::new(file.as_fd(), SIZE, access, At::Anywhere, false)?;
                object::publish(file.as_fd(), &object_name(name)?)?;
                Ok(Self {
                    semaphore: mapping.as_ptr().cast(),
                    mapping: Some(mapping),
                })
            }
            // No unnamed files here: glibc's way, whose mode the umask narrows for a moment.
            Err(error) if is_missing(&error) => Self::create_by_glibc(name, mode, value),
            Err(error) => Err(error),
        }
    }

    fn create_by_glibc(name: &str, mode: u32, value: u32) -> io::Result<Self> {
        let path = path(name)?;
        let flags = libc::O_CREAT | libc::O_EXCL;
        // SAFETY: a string that ends, and the arguments that `O_CREAT` asks for.
        let opened = unsafe { libc::sem_open(path.as_ptr(), flags, mode, value) };
        let semaphore = Self::opened(opened)?;
        let fd = object::open(&object_name(name)?, Access::ReadWrite)?;
        object::set_mode(fd.as_fd(), mode)?;
        Ok(semaphore)
    }

    /// Opens the semaphore called `name`.
    ///
    /// # Errors
    /// `ENOENT` if there is none, `EINVAL` if what stands there is none or the name is none,
    /// `EAGAIN` if others replace it all the time, `EACCES`, `ELOOP`, `EMFILE`.
    pub(crate) fn open(name: &str) -> io::Result<Self> {
        let (path, object_name) = (path(name)?, object_name(name)?);
        // glibc takes a file of any length, and its first touch would be a fault. So the object
        // is looked at first, and whether the name still leads to it afterwards.
        for _ in 0..REPLACEMENTS {
            let fd = object::open(&object_name, Access::ReadWrite)?;
            let ours = object::status(fd.as_fd())?;
            if ours.kind != FileKind::Regular || ours.size < SIZE as u64 {
                return Err(Errno::EINVAL.into());
            }
            // SAFETY: a string that ends.
            let opened = Self::opened(unsafe { libc::sem_open(path.as_ptr(), 0) })?;
            let named = object::status_of(&object_name)?;
            if (ours.dev, ours.ino) == (named.dev, named.ino) {
                return Ok(opened);
            }
        }
        Err(Errno::EAGAIN.into())
    }

    fn opened(semaphore: *mut libc::sem_t) -> io::Result<Self> {
        if semaphore == libc::SEM_FAILED {
            return Err(io::Error::last_os_error());
        }
        let semaphore = NonNull::new(semaphore).ok_or(Errno::EINVAL)?;
        Ok(Self {
            semaphore: semaphore.cast(),
            mapping: None,
        })
    }

    /// Removes the name; who has the semaphore open keeps it.
    ///
    /// # Errors
    /// `ENOENT` if there is none, `EACCES` if it is not ours to remove.
    pub(crate) fn unlink(name: &str) -> io::Result<()> {
        let path = path(name)?;
        // SAFETY: a string that ends.
        done(unsafe { libc::sem_unlink(path.as_ptr()) })
    }
}

impl Deref for NamedSemaphore {
    type Target = Semaphore;

    fn deref(&self) -> &Semaphore {
        // SAFETY: mapped until `self` is dropped, by `sem_open` or by us; any bytes are a
        // semaphore, sound or not.
        unsafe { self.semaphore.as_ref() }
    }
}

impl Drop for NamedSemaphore {
    fn drop(&mut self) {
        if self.mapping.is_none() {
            // SAFETY: `sem_open` gave it to us, once for each handle.
            let closed = unsafe { libc::sem_close(self.semaphore.as_ptr().cast()) };
            debug_assert!(closed == 0, "what was opened can be closed");
        }
    }
}

fn object_name(name: &str) -> io::Result<String> {
    check_name(name)?;
    Ok(format!("{PREFIX}{name}"))
}

fn path(name: &str) -> io::Result<CString> {
    check_name(name)?;
    Ok(CString::new(format!("/{name}"))?)
}

fn check_name(name: &str) -> io::Result<()> {
    let bad = name.is_empty() || name.contains(['/', '\0']);
    if bad {
        Err(Errno::EINVAL.into())
    } else {
        Ok(())
    }
}

/// Whether the error says that there are no unnamed files.
fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT)
    )
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::super::clock::Deadline;
    use super::super::object::tests::TestName;
    use super::*;

    fn soon() -> Option<u64> {
        Some(Deadline::after(Duration::from_millis(2)).ns())
    }

    fn far() -> Option<u64> {
        Some(Deadline::after(Duration::from_secs(60)).ns())
    }

    fn semaphore(value: u32) -> Box<Semaphore> {
        let mut memory = Box::new(MaybeUninit::<Semaphore>::zeroed());
        // SAFETY: memory of our own.
        unsafe { Semaphore::init(memory.as_mut_ptr(), value) }.unwrap();
        // SAFETY: just initialised.
        unsafe { Box::from_raw(Box::into_raw(memory).cast()) }
    }

    #[test]
    fn counts() {
        let semaphore = semaphore(2);
        assert_eq!(semaphore.value(), 2);
        assert!(semaphore.try_wait().unwrap());
        assert!(semaphore.wait_until(None).unwrap());
        assert!(!semaphore.try_wait().unwrap());
        assert!(!semaphore.wait_until(soon()).unwrap());
        assert!(!semaphore.wait_until(Some(0)).unwrap());
        semaphore.post().unwrap();
        assert!(semaphore.wait_until(far()).unwrap());
        assert_eq!(semaphore.value(), 0);
    }

    #[test]
    fn has_an_end() {
        let most = i32::MAX.unsigned_abs();
        let semaphore = semaphore(most);
        let error = semaphore.post().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EOVERFLOW));
        assert!(fresh(most + 1).is_err());
    }

    #[test]
    fn post_wakes_a_sleeper() {
        let semaphore = semaphore(0);
        thread::scope(|scope| {
            for deadline in [None, far()] {
                let semaphore = &semaphore;
                let sleeper = scope.spawn(move || semaphore.wait_until(deadline).unwrap());
                while semaphore.words().sleepers.load(Relaxed) == 0 {
                    assert!(!sleeper.is_finished());
                    thread::yield_now();
                }
                semaphore.post().unwrap();
                assert!(sleeper.join().unwrap());
            }
        });
    }

    #[test]
    fn damaged_scope_is_refused() {
        let semaphore = semaphore(1);
        assert!(semaphore.is_sound());
        let scope = semaphore.words().scope.load(Relaxed);
        for wrong in [0, scope ^ 1, u32::MAX] {
            semaphore.words().scope.store(wrong, Relaxed);
            assert!(!semaphore.is_sound());
            assert!(semaphore.post().is_err());
            assert!(semaphore.try_wait().is_err());
            assert!(semaphore.wait_until(Some(0)).is_err());
        }
    }

    /// The name of a semaphore, whose object is unlinked in the end.
    fn name(subject: &str) -> (String, TestName) {
        let mut object = TestName::new(subject);
        let name = object.0.clone();
        object.0.insert_str(0, PREFIX);
        (name, object)
    }

    #[test]
    fn name_leads_to_one_semaphore() {
        let (name, object) = name("named");
        assert!(NamedSemaphore::open(&name).is_err());
        let ours = NamedSemaphore::create_new(&name, 0o666, 3).unwrap();
        let status = object::status_of(&object.0).unwrap();
        assert_eq!(
            (status.mode, status.size, status.links),
            (0o666, SIZE as u64, 1)
        );
        let taken = NamedSemaphore::create_new(&name, 0o600, 0).err().unwrap();
        assert_eq!(taken.raw_os_error(), Some(libc::EEXIST));

        let theirs = NamedSemaphore::open(&name).unwrap();
        let again = NamedSemaphore::open(&name).unwrap();
        assert_eq!((theirs.value(), again.value()), (3, 3));
        thread::scope(|scope| {
            for _ in 0..3 {
                assert!(theirs.try_wait().unwrap());
            }
            let sleeper = scope.spawn(|| theirs.wait_until(far()).unwrap());
            ours.post().unwrap();
            assert!(sleeper.join().unwrap());
        });
        drop(again);
        theirs.post().unwrap();
        NamedSemaphore::unlink(&name).unwrap();
        assert_eq!(ours.value(), 1);
        let gone = NamedSemaphore::unlink(&name).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn glibc_makes_the_same_bytes() {
        let (name, object) = name("glibc");
        let made = NamedSemaphore::create_by_glibc(&name, 0o640, 7).unwrap();
        assert_eq!(object::status_of(&object.0).unwrap().mode, 0o640);
        let bytes = std::fs::read(format!("/dev/shm/{}", object.0)).unwrap();
        assert_eq!(bytes, fresh(7).unwrap());
        assert!(made.is_sound());
        assert_eq!(made.value(), 7);
    }

    #[test]
    fn what_is_no_semaphore_is_refused() {
        let (name, object) = name("short");
        let fd = object::create_staged(&object.0).unwrap();
        assert!(NamedSemaphore::open(&name).is_err());
        // Long enough, and all zero.
        object::resize(fd.as_fd(), SIZE as u64).unwrap();
        let zeros = NamedSemaphore::open(&name).unwrap();
        assert!(!zeros.is_sound());
        assert!(zeros.post().is_err());
        for bad in ["", "a/b", "/a"] {
            assert!(NamedSemaphore::create_new(bad, 0o600, 0).is_err());
            assert!(NamedSemaphore::open(bad).is_err());
            assert!(NamedSemaphore::unlink(bad).is_err());
        }
        let long = "x".repeat(252);
        assert!(NamedSemaphore::create_new(&long, 0o600, 0).is_err());
    }
}
