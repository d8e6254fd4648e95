//! Memory that O_DIRECT accepts: aligned to a page, recycled through a bounded free list. All of it is
//! initialised from the start, so a buffer is at any time a plain slice of bytes.

use holdfast_types::BLOCK_BYTES;
use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError},
};

/// The alignment of every buffer: what any disk accepts.
pub(crate) const ALIGN: usize = BLOCK_BYTES;
/// What the free list keeps at most; what comes back beyond it goes to the allocator.
const FREE_BYTES_MAX: usize = 16 << 20;
/// Buffers up to a MiB come in powers of two from a block on and are recycled.
const CLASSES: usize = 9;

#[derive(Debug, Default)]
struct Free {
    bytes: usize,
    classes: [Vec<Memory>; CLASSES],
}

/// Where buffers come from. Cheap to clone; buffers find their way back from any thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct BufferPool(Arc<Mutex<Free>>);

/// The size class that holds `len` bytes, and its size; None where buffers are not recycled.
fn class_of(len: usize) -> Option<(usize, usize)> {
    let size = len.next_power_of_two().max(BLOCK_BYTES);
    let class = (size / BLOCK_BYTES).trailing_zeros() as usize;
    (class < CLASSES).then_some((class, size))
}

impl BufferPool {
    /// A buffer of `len` bytes, a positive multiple of a block. Its content is arbitrary.
    pub(crate) fn take(&self, len: usize) -> Buffer {
        assert!(len > 0 && len.is_multiple_of(BLOCK_BYTES), "a buffer holds whole blocks");
        let memory = match class_of(len) {
            None => Memory::new(len),
            Some((class, size)) => {
                let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                match free.classes[class].pop() {
                    Some(memory) => {
                        free.bytes -= size;
                        memory
                    }
                    None => Memory::new(size),
                }
            }
        };
        Buffer { memory: Some(memory), len, pool: self.clone() }
    }

    fn give_back(&self, memory: Memory) {
        let size = memory.layout.size();
        if let Some((class, class_size)) = class_of(size)
            && class_size == size
        {
            let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if free.bytes + size <= FREE_BYTES_MAX {
                free.bytes += size;
                free.classes[class].push(memory);
            }
        }
    }
}

/// An aligned allocation of initialised bytes.
#[derive(Debug)]
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the allocation is owned by this value alone, like a Box<[u8]>.
unsafe impl Send for Memory {}
// SAFETY: a shared reference gives shared access to the bytes only.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(size: usize) -> Memory {
        let layout = Layout::from_size_align(size, ALIGN).expect("sizes stay far below isize::MAX");
        // SAFETY: the layout has a positive size.
        let start = unsafe { alloc_zeroed(layout) };
        match NonNull::new(start) {
            Some(start) => Memory { start, layout },
            None => handle_alloc_error(layout),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed only here.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Aligned bytes that go back to their pool when dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// Some until dropped.
    memory: Option<Memory>,
    len: usize,
    pool: BufferPool,
}

impl Buffer {
    fn memory(&self) -> &Memory {
        self.memory.as_ref().expect("only drop takes it")
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.memory().start.as_ptr()
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: `len` initialised bytes start there, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.memory().start.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes start there, and `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.memory().start.as_ptr(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.pool.give_back(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_come_back() {
        let pool = BufferPool::default();
        let mut buffer = pool.take(3 * BLOCK_BYTES);
        assert_eq!(buffer.as_mut_ptr() as usize % ALIGN, 0);
        assert_eq!(buffer.as_ref().len(), 3 * BLOCK_BYTES);
        let first = buffer.as_mut_ptr() as usize;
        drop(buffer);
        assert_eq!(pool.take(4 * BLOCK_BYTES).as_mut_ptr() as usize, first, "the same memory is used again");
    }

    #[test]
    fn the_free_list_is_bounded() {
        let pool = BufferPool::default();
        let many: Vec<Buffer> = (0..64).map(|_| pool.take(1 << 20)).collect();
        drop(many);
        drop(pool.take(8 << 20));
        assert!(pool.0.lock().unwrap().bytes <= FREE_BYTES_MAX);
    }
}
