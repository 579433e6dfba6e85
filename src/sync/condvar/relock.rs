//! A lock that is given up for a while.
//!
//! This file fences in the making of a handle and a guard from the parts of a guard.
#![allow(unsafe_code)]

use crate::layout::Region;
use crate::message::Message;
use crate::object::raw::Raw;
use crate::object::{Object, Shared};
use crate::participant::Attachment;
use crate::sync::guard::{Hold, MutexGuard};
use crate::sync::mutex::{Head, Mutex};
use crate::sync::poison::{LockError, LockFailure, Poisoned};
use std::ptr::{self, NonNull};
use std::sync::Arc;

/// The lock of a guard, to be taken again: what comes back lives as long as the guard did.
pub(super) struct Relock<'a, T: Message> {
    lock: Shared<Mutex<T>>,
    head: NonNull<Head>,
    attachment: &'a Attachment,
}

impl<'a, T: Message> Relock<'a, T> {
    /// For a guard of a lock in the segment of `other`.
    pub(super) fn of<O: Object>(
        guard: &MutexGuard<'a, T>,
        other: &Shared<O>,
    ) -> Result<Self, LockFailure> {
        let (head, attachment) = guard.home();
        if !ptr::eq(Arc::as_ptr(other.attachment()), attachment) {
            return Err(LockFailure::OtherMutex);
        }
        let len = Mutex::<T>::len();
        // SAFETY: bounded when the guard's own handle was made; mapped as long as the attachment, which the new one keeps.
        let region = unsafe { Region::new(head.cast(), len) };
        let view = Mutex::<T>::check(&region).map_err(|_| LockFailure::Damaged)?;
        let attachment_of_ours = Arc::clone(other.attachment());
        Ok(Self {
            lock: Shared::new(attachment_of_ours, other.name().into(), region, view),
            head,
            attachment,
        })
    }

    /// Where the mutex begins, in bytes from the segment's start.
    pub(super) fn offset(&self) -> u64 {
        let start = self.attachment.mapping().as_ptr().addr().get();
        self.head.addr().get().wrapping_sub(start) as u64
    }

    /// Locks.
    pub(super) fn lock(&self) -> Result<MutexGuard<'a, T>, LockError<MutexGuard<'a, T>>> {
        match self.lock.lock() {
            Ok(guard) => Ok(self.prolong(guard)),
            Err(LockError::Poisoned(poisoned)) => {
                let cause = poisoned.cause();
                let guard = self.prolong(poisoned.into_inner());
                Err(LockError::Poisoned(Poisoned::new(guard, cause)))
            }
            Err(LockError::Failed(failure)) => Err(LockError::Failed(failure)),
        }
    }

    fn prolong(&self, guard: MutexGuard<'_, T>) -> MutexGuard<'a, T> {
        // SAFETY: the head that the first guard had, in the same attachment.
        MutexGuard::new(unsafe { Hold::new(self.head, self.attachment, guard.into_mark()) })
    }
}
