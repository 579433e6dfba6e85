//! `#[derive(Message)]` for tombolo.
