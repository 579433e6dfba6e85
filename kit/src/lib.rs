//! A killing machine for protocols in shared memory.
