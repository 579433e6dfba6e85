//! Shared memory for processes that may die.
