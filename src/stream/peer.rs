//! Who is at the other side, checked against the kernel's word.

use crate::layout::Tag;
use crate::participant::{Attachment, read_line};
use crate::sys::process;
use std::io::{self, ErrorKind};

/// Who is, or was, at the other side of a stream; made by [`Stream::peer`](super::Stream::peer) and its sisters.
///
/// A process says itself which number it has when it attaches. Before that is believed, the kernel is asked: a process of
/// that number must run, have the stream's memory mapped, and run as the user that it says. So a number that has been reused,
/// or that is somebody else's, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// Its process id.
    pub pid: u32,
    /// Its effective user id.
    pub uid: u32,
    /// Its effective group id.
    pub gid: u32,
}

/// Who is at the other side of a connection, or why nobody can say.
pub(super) type Known = Result<Peer, ErrorKind>;

/// Asks the kernel whether `tag`'s process is who its line says.
pub(super) fn identify(attachment: &Attachment, tag: Option<Tag>) -> io::Result<Peer> {
    let absent = || io::Error::new(ErrorKind::NotConnected, "nobody is at the other side");
    let tag = tag.ok_or_else(absent)?;
    let line = attachment.line(tag.line()).ok_or_else(absent)?;
    let claimed = read_line(line)
        .filter(|facts| facts.tag == tag)
        .ok_or_else(absent)?;
    if attachment.is_dead(tag) {
        let text = format!("process {} at the other side is gone", claimed.pid);
        return Err(io::Error::new(ErrorKind::NotConnected, text));
    }
    if !process::shows_our_namespace() {
        let text = "who is at the other side cannot be asked without /proc";
        return Err(io::Error::new(ErrorKind::Unsupported, text));
    }
    let refuse = |what: &str| {
        let pid = claimed.pid;
        // One that is dying shows nothing of this any more. When the kernel does not show it either, it is dead on proof.
        let is_gone = process::is_exiting(pid) || attachment.is_dead(tag);
        let kind = match is_gone {
            true => ErrorKind::NotConnected,
            false => ErrorKind::PermissionDenied,
        };
        let text = format!("who is at the other side is not process {pid}: {what}");
        Err(io::Error::new(kind, text))
    };
    let Some((uid, gid)) = process::effective_ids(claimed.pid) else {
        return refuse("the kernel shows none of that number");
    };
    if claimed.pid == process::pid() && attachment.tag() != Some(tag) {
        return refuse("that is this process");
    }
    if uid != claimed.uid {
        return refuse("that one runs as another user");
    }
    if !process::thread_may_map(claimed.pid, attachment.probe().inode()) {
        return refuse("that one does not have this stream");
    }
    let pid = claimed.pid;
    Ok(Peer { pid, uid, gid })
}

/// What is kept of the answer: a connection works where nobody can be asked, too.
pub(super) fn kept(answer: io::Result<Peer>) -> io::Result<Known> {
    match answer {
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Err(ErrorKind::Unsupported)),
        answer => answer.map(Ok),
    }
}
