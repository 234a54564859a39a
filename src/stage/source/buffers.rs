//! Buffers of chunks, used again: a buffer fresh from the system costs a page fault for each 4 KiB of it, which is more
//! than it takes to fill it.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Most buffers that wait to be used again. In flight there may be more; those are freed.
const IDLE_MAX: usize = 6;
/// Larger buffers (of records that are larger than a chunk) are freed.
const BYTES_MAX: usize = 8 << 20;

static IDLE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// An empty buffer with at least this much room.
pub(super) fn take(room: usize) -> Vec<u8> {
    let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut buffer = idle.unwrap_or_default();
    buffer.reserve(room);
    buffer
}

/// What was written into a buffer; when nobody holds any of it any more, the buffer is used again.
pub(super) fn lend(buffer: Vec<u8>) -> Bytes {
    Bytes::from_owner(Lent(buffer))
}

struct Lent(Vec<u8>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.0);
        if buffer.capacity() > BYTES_MAX {
            return;
        }
        buffer.clear();
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_keeps_its_buffer_from_being_used_again() {
        let mut buffer = take(100);
        buffer.extend_from_slice(b"first and second");
        let place = buffer.as_ptr();
        let whole = lend(buffer);
        let part = whole.slice(0..5);
        drop(whole);
        let others: Vec<Vec<u8>> = (0..IDLE_MAX + 1).map(|_| take(10)).collect();
        assert!(others.iter().all(|other| other.as_ptr() != place));
        assert_eq!(part, "first");
    }
}
