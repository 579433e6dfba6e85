//! What may stand at a name, or be missing, and the error of its own that each gives.
//!

mod common;

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::ExitCode;

use common::{Process, Space, is_root};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, mkfifo, setgid, setgroups, setuid};
use tombolo::{Error, Segment};
use tombolo_kit::{harness, isolated, note};

const NOBODY: u32 = 65_534;
const STRANGER: u32 = 12_345;

fn mode_of(space: &Space, name: &str) -> u32 {
    let found = fs::symlink_metadata(space.path(name)).expect("it is there");
    found.permissions().mode() & 0o7777
}

fn mode_is_exact_whatever_the_umask() {
    let space = Space::new("umask");
    for (mask, staged) in [(0o077, false), (0, false), (0o077, true), (0, true)] {
        isolated(|| {
            umask(Mode::from_bits_truncate(mask));
            for mode in [0o600, 0o640, 0o666, 0o660] {
                let name = format!("m-{mask:o}-{mode:o}-{staged}");
                let made = space
                    .options()
                    .mode(mode)
                    .staged_birth(staged)
                    .create_new(&name);
                assert_eq!(made.expect("created").stat().expect("stat").mode, mode);
                assert_eq!(mode_of(&space, &name), mode);
                space
                    .options()
                    .mode(mode)
                    .open(&name)
                    .expect("its own mode is accepted");
            }
        });
    }
    for bad in [0o400, 0o1600, 0o066, 0o10_600] {
        let error = space
            .options()
            .mode(bad)
            .create_new("bad")
            .expect_err("refused");
        assert!(
            matches!(error, Error::InvalidOption { option: "mode", .. }),
            "{error:?}"
        );
    }
}

fn wider_mode_than_accepted_is_refused() {
    let space = Space::new("wide");
    drop(
        space
            .options()
            .mode(0o666)
            .create_new("a")
            .expect("created"),
    );
    match space.options().open("a").expect_err("too wide") {
        Error::WrongMode {
            found, accepted, ..
        } => assert_eq!((found, accepted), (0o666, 0o600)),
        error => panic!("{error:?}"),
    }
    space.options().mode(0o666).open("a").expect("accepted");
    // A narrower one is no danger.
    drop(space.options().create_new("b").expect("created"));
    space.options().mode(0o666).open("b").expect("accepted");
}

/// What each way of opening and creating says of `name`.
fn refused(space: &Space, name: &str, wanted: impl Fn(&Error) -> bool) {
    for read_only in [false, true] {
        let error = space
            .options()
            .read_only(read_only)
            .open(name)
            .expect_err("opened");
        assert!(wanted(&error), "open: {error:?}");
    }
    let error = space.options().open_or_create(name).expect_err("opened");
    assert!(wanted(&error), "open_or_create: {error:?}");
    let error = space.options().create(name).expect_err("replaced");
    assert!(wanted(&error), "create: {error:?}");
    let error = space.options().create_new(name).expect_err("created");
    assert!(
        matches!(error, Error::AlreadyExists { .. }),
        "create_new: {error:?}"
    );
    let swept = Segment::sweep()
        .namespace(space.name())
        .even_idle(true)
        .run()
        .expect("swept");
    assert_eq!(
        swept.removed,
        Vec::<String>::new(),
        "it is nobody's to sweep"
    );
    assert!(space.exists(name));
}

fn not_a_segment(error: &Error) -> bool {
    matches!(error, Error::NotASegment { .. })
}

fn what_is_no_file_is_refused() {
    let space = Space::new("kinds");
    mkfifo(&space.path("fifo"), Mode::from_bits_truncate(0o600)).expect("a FIFO");
    refused(&space, "fifo", not_a_segment);
    symlink("/etc/passwd", space.path("link")).expect("a link");
    refused(&space, "link", not_a_segment);
    symlink(space.path("nowhere"), space.path("dangling")).expect("a link");
    refused(&space, "dangling", not_a_segment);
    assert!(!space.exists("nowhere"), "nothing is created behind a link");
    fs::create_dir(space.path("dir")).expect("a directory");
    refused(&space, "dir", not_a_segment);
    drop(UnixListener::bind(space.path("socket")).expect("a socket"));
    refused(&space, "socket", not_a_segment);
}

fn put(space: &Space, name: &str, bytes: &[u8]) {
    let mut file = File::create(space.path(name)).expect("a file");
    file.write_all(bytes).expect("written");
    file.set_permissions(Permissions::from_mode(0o600))
        .expect("chmod");
}

fn foreign_files_are_refused() {
    let space = Space::new("files");
    put(&space, "empty", b"");
    refused(&space, "empty", not_a_segment);
    put(&space, "short", b"tombolo\0");
    refused(&space, "short", not_a_segment);
    put(&space, "foreign", &[b'x'; 8192]);
    refused(&space, "foreign", not_a_segment);
    put(&space, "zero", &[0; 8192]);
    refused(&space, "zero", not_a_segment);
}

fn linked_file_is_refused() {
    let space = Space::new("linked");
    drop(space.options().create_new("a").expect("created"));
    fs::hard_link(space.path("a"), space.path("b")).expect("a second name");
    assert!(not_a_segment(
        &space.options().open("a").expect_err("two names")
    ));
}

/// A segment's bytes, changed.
fn changed(space: &Space, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    drop(space.options().create_new(name).expect("created"));
    let mut bytes = fs::read(space.path(name)).expect("read");
    change(&mut bytes);
    fs::write(space.path(name), bytes).expect("written");
}

fn damaged_headers_are_refused() {
    let space = Space::new("header");
    changed(&space, "magic", |bytes| bytes[0] ^= 1);
    assert!(not_a_segment(
        &space.options().open("magic").expect_err("magic")
    ));
    // The layout word: machine in the low half, minor version above, major version in the highest 16 bits.
    for (name, byte) in [("machine", 8), ("pointer", 11), ("major", 14)] {
        changed(&space, name, |bytes| bytes[byte] ^= 0x40);
        let error = space.options().open(name).expect_err("another layout");
        assert!(matches!(error, Error::WrongAbi { .. }), "{name}: {error:?}");
    }
    changed(&space, "minor", |bytes| bytes[12] ^= 1);
    space
        .options()
        .open("minor")
        .expect("a minor version adds at the end only");
    changed(&space, "cut", |bytes| bytes.truncate(8192));
    let error = space.options().open("cut").expect_err("truncated");
    assert!(
        matches!(error, Error::Damaged { what: "size", .. }),
        "{error:?}"
    );
    let words = [
        ("reserved", 16..24),
        ("size", 24..32),
        ("lines", 44..48),
        ("entries", 48..52),
    ];
    for (name, at) in words {
        changed(&space, name, |bytes| bytes[at.clone()].fill(0xff));
        let error = space.options().open(name).expect_err("out of bounds");
        assert!(matches!(error, Error::Damaged { .. }), "{name}: {error:?}");
        changed(&space, &format!("{name}0"), |bytes| bytes[at].fill(0));
        let error = space
            .options()
            .open(&format!("{name}0"))
            .expect_err("out of bounds");
        assert!(matches!(error, Error::Damaged { .. }), "{name}: {error:?}");
    }
}

fn lack_of_descriptors_is_its_own_error() {
    let space = Space::new("emfile");
    let _there = space.options().create_new("there").expect("created");
    isolated(|| {
        let open = || File::open("/dev/null");
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        // Every number of descriptors still to be had, from none to more than enough.
        let base = {
            let file = open().expect("one more");
            u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&file)).expect("a number")
        };
        let other = space.options().at_hint(0);
        for more in 0..10 {
            setrlimit(Resource::RLIMIT_NOFILE, base + more, hard).expect("a limit");
            let made = other.create_new("new");
            let lack = |error: &Error| {
                let Error::System { source, .. } = error else {
                    return false;
                };
                source.raw_os_error() == Some(libc::EMFILE)
            };
            match &made {
                Ok(_) => assert!(more > 0),
                Err(error) => assert!(lack(error), "{more} descriptors: {error:?}"),
            }
            let made = made.map(|segment| segment.unlink().expect("unlinked"));
            assert!(made.is_ok() || !space.exists("new"), "{more} descriptors");
            let _ = fs::remove_file(space.path("new"));
        }
        setrlimit(Resource::RLIMIT_NOFILE, base, hard).expect("a limit");
        let opened = Segment::options()
            .namespace(space.name())
            .read_only(true)
            .open("there");
        let error = opened.map(|_| ()).expect_err("no descriptor");
        assert!(
            matches!(&error, Error::System { source, .. }
            if source.raw_os_error() == Some(libc::EMFILE)),
            "{error:?}"
        );
    });
    assert_eq!(space.left(), [space.file("there")]);
}

fn lack_of_memory_is_an_error_and_leaves_nothing() {
    let space = Space::new("enospc");
    if !is_root() {
        note("skipped: only root mounts a small file system");
        return;
    }
    isolated(|| {
        use nix::mount::{MsFlags, mount};
        if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS) {
            note(&format!("skipped: no mount namespace of our own: {error}"));
            return;
        }
        let none = None::<&str>;
        let mounted =
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).and_then(|()| {
                mount(
                    Some("t"),
                    "/dev/shm",
                    Some("tmpfs"),
                    MsFlags::empty(),
                    Some("size=1m"),
                )
            });
        if let Err(error) = mounted {
            note(&format!("skipped: no small file system: {error}"));
            return;
        }
        for staged in [false, true] {
            let error = space
                .options()
                .size(4 << 20)
                .staged_birth(staged)
                .create_new("big");
            match error.expect_err("too large") {
                Error::NoMemory { bytes, source, .. } => {
                    assert!(bytes > 4 << 20);
                    assert_eq!(source.raw_os_error(), Some(libc::ENOSPC));
                }
                error => panic!("{error:?}"),
            }
            assert_eq!(space.left(), Vec::<String>::new());
        }
        let segment = space
            .options()
            .size(256 << 10)
            .reserve(8 << 20)
            .create_new("grows");
        let segment = segment.expect("fits");
        let before = segment.stat().expect("stat");
        let error = segment.grow(4 << 20).expect_err("too large");
        assert!(matches!(error, Error::NoMemory { .. }), "{error:?}");
        let after = segment.stat().expect("stat");
        assert_eq!((before.size, before.memory), (after.size, after.memory));
        segment.grow(512 << 10).expect("fits");
        // The rest of the file system is filled; every page of ours can still be touched.
        let mut filler = File::create("/dev/shm/filler").expect("a file");
        while filler.write_all(&[1; 4096]).is_ok() {}
        let data =
            segment.construct::<tombolo::sync::Mutex<[u8; 200 << 10]>>("data", [0; 200 << 10]);
        data.expect("constructed")
            .lock()
            .expect("nobody died")
            .fill(7);
    });
}

/// Becomes another user for good; in a process of its own.
fn become_user(uid: u32) {
    setgroups(&[]).expect("root");
    setgid(Gid::from_raw(uid)).expect("root");
    setuid(Uid::from_raw(uid)).expect("root");
}

fn other_users_are_kept_out() {
    let space = Space::new("eacces");
    if !is_root() {
        note("skipped: only root becomes another user");
        return;
    }
    let segment = space.options().create_new("mine").expect("created");
    drop(
        space
            .options()
            .mode(0o666)
            .create_new("open")
            .expect("created"),
    );
    isolated(|| {
        become_user(NOBODY);
        for read_only in [false, true] {
            let error = space
                .options()
                .read_only(read_only)
                .open("mine")
                .expect_err("0600");
            assert!(matches!(error, Error::NoPermission { .. }), "{error:?}");
        }
        let error = space.options().create_new("mine").expect_err("taken");
        assert!(matches!(error, Error::AlreadyExists { .. }), "{error:?}");
        match space
            .options()
            .mode(0o666)
            .open("open")
            .expect_err("another owner's")
        {
            Error::ForeignOwner { uid, ours, .. } => assert_eq!((uid, ours), (0, NOBODY)),
            error => panic!("{error:?}"),
        }
        let error = space
            .options()
            .mode(0o666)
            .create("open")
            .expect_err("another owner's");
        assert!(matches!(error, Error::ForeignOwner { .. }), "{error:?}");
        let opened = space
            .options()
            .mode(0o666)
            .accept_owner(0)
            .open("open")
            .expect("accepted");
        assert!(matches!(opened.unlink(), Err(Error::NoPermission { .. })));
        let error = opened.set_permissions(0o600).expect_err("not ours");
        assert!(matches!(error, Error::NoPermission { .. }), "{error:?}");
    });
    assert!(space.exists("open") && space.exists("mine"));
    drop(segment);
}

fn squatter_is_not_believed() {
    let space = Space::new("squat");
    if !is_root() {
        note("skipped: only root becomes another user");
        return;
    }
    isolated(|| {
        become_user(STRANGER);
        drop(
            space
                .options()
                .mode(0o666)
                .remove_with_last(false)
                .create_new("name")
                .expect("made"),
        );
    });
    let options = space.options().mode(0o666);
    assert!(matches!(
        options.open("name"),
        Err(Error::ForeignOwner { uid: STRANGER, .. })
    ));
    assert!(matches!(
        options.open_or_create("name"),
        Err(Error::ForeignOwner { .. })
    ));
    assert!(matches!(
        options.create("name"),
        Err(Error::ForeignOwner { .. })
    ));
    assert!(matches!(
        options.create_new("name"),
        Err(Error::AlreadyExists { .. })
    ));
    let swept = Segment::sweep()
        .namespace(space.name())
        .even_idle(true)
        .run()
        .expect("swept");
    assert!(swept.removed.is_empty());
    drop(
        options
            .clone()
            .accept_owner(STRANGER)
            .open("name")
            .expect("accepted"),
    );
    // By group: the members' bits may be set, the others' not.
    fs::set_permissions(space.path("name"), Permissions::from_mode(0o660)).expect("root");
    let by_group = space.options().accept_group(STRANGER);
    drop(by_group.open("name").expect("accepted"));
    fs::set_permissions(space.path("name"), Permissions::from_mode(0o666)).expect("root");
    assert!(matches!(
        by_group.open("name"),
        Err(Error::WrongMode {
            accepted: 0o660,
            ..
        })
    ));
}

fn dead_segment_of_another_user_is_taken_over_not_removed() {
    let space = Space::new("takeover");
    if !is_root() {
        note("skipped: only root becomes another user");
        return;
    }
    let maker = Process::run(|| {
        let options = space.options().mode(0o666).remove_with_last(true);
        let segment = options.create_new("name").expect("made");
        std::mem::forget(segment);
    });
    maker.ends_well();
    let inode = space.inode("name").expect("left behind");
    isolated(|| {
        become_user(NOBODY);
        let options = space.options().mode(0o666).accept_owner(0);
        options
            .open("name")
            .expect("may be used, though not be removed");
    });
    assert_eq!(space.inode("name"), Some(inode));
    assert!(matches!(
        space.options().mode(0o666).open("name"),
        Err(Error::NotFound { .. })
    ));
    assert!(!space.exists("name"), "its owner's next attach removed it");
}

fn owner_and_group_are_set() {
    let space = Space::new("chown");
    if !is_root() {
        note("skipped: only root gives away");
        return;
    }
    let segment = space
        .options()
        .owner(NOBODY)
        .group(NOBODY)
        .mode(0o660)
        .create_new("a");
    let segment = segment.expect("created");
    let stat = segment.stat().expect("stat");
    assert_eq!((stat.uid, stat.gid, stat.mode), (NOBODY, NOBODY, 0o660));
    segment.set_owner(Some(0), None).expect("root");
    segment.set_permissions(0o640).expect("root");
    let stat = segment.stat().expect("stat");
    assert_eq!((stat.uid, stat.gid, stat.mode), (0, NOBODY, 0o640));
    let found = nix::sys::stat::fstat(segment.descriptor().expect("fd").as_fd()).expect("fstat");
    assert_eq!(
        (found.st_uid, found.st_gid, found.st_mode & 0o777),
        (0, NOBODY, 0o640)
    );
    let error = segment.set_permissions(0o4600).expect_err("beyond 0777");
    assert!(
        matches!(error, Error::InvalidOption { option: "mode", .. }),
        "{error:?}"
    );
}

fn names_follow_the_rule() {
    let space = Space::new("names");
    for bad in [
        "",
        ".",
        "..",
        "/x",
        "a/b",
        "-x",
        "_x",
        "a b",
        "a\n",
        &"x".repeat(201),
    ] {
        for made in [space.options().create_new(bad), space.options().open(bad)] {
            assert!(matches!(made, Err(Error::InvalidName { .. })), "{bad:?}");
        }
    }
    let long = "x".repeat(200);
    for staged in [false, true] {
        let segment = space
            .options()
            .staged_birth(staged)
            .create_new(&long)
            .expect("the longest");
        assert!(segment.unlink().expect("unlinked"));
    }
    for bad in ["", "a.b", "a/b", &"x".repeat(41)] {
        let made = Segment::options().namespace(bad).create_new("x");
        assert!(matches!(made, Err(Error::InvalidName { .. })), "{bad:?}");
    }
}

fn main() -> ExitCode {
    harness(&[
        (
            "mode_is_exact_whatever_the_umask",
            mode_is_exact_whatever_the_umask,
        ),
        (
            "wider_mode_than_accepted_is_refused",
            wider_mode_than_accepted_is_refused,
        ),
        ("what_is_no_file_is_refused", what_is_no_file_is_refused),
        ("foreign_files_are_refused", foreign_files_are_refused),
        ("linked_file_is_refused", linked_file_is_refused),
        ("damaged_headers_are_refused", damaged_headers_are_refused),
        (
            "lack_of_descriptors_is_its_own_error",
            lack_of_descriptors_is_its_own_error,
        ),
        (
            "lack_of_memory_is_an_error_and_leaves_nothing",
            lack_of_memory_is_an_error_and_leaves_nothing,
        ),
        ("other_users_are_kept_out", other_users_are_kept_out),
        ("squatter_is_not_believed", squatter_is_not_believed),
        (
            "dead_segment_of_another_user_is_taken_over_not_removed",
            dead_segment_of_another_user_is_taken_over_not_removed,
        ),
        ("owner_and_group_are_set", owner_and_group_are_set),
        ("names_follow_the_rule", names_follow_the_rule),
    ])
}
