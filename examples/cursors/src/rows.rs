//! The rows that cross: three types, as the three tables have them.

use tombolo::Message;
use tombolo::message::Str;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Message)]
#[repr(u32)]
pub enum State {
    Placed = 1,
    Paid = 2,
    Shipped = 3,
    Returned = 4,
}

impl State {
    pub fn from_number(number: u32) -> Option<Self> {
        [State::Placed, State::Paid, State::Shipped, State::Returned]
            .into_iter()
            .find(|state| *state as u32 == number)
    }
}

#[derive(Clone, Copy, Debug, Message)]
#[repr(C)]
pub struct Order {
    pub id: i64,
    pub customer: i64,
    /// Seconds since 1970.
    pub placed: i64,
    pub cents: i64,
    pub pieces: u32,
    pub state: State,
}

#[derive(Clone, Copy, Debug, Message)]
#[repr(C)]
pub struct Customer {
    pub id: i64,
    pub since: i64,
    pub credit: i64,
    pub name: Str<36>,
    pub city: Str<20>,
}

#[derive(Clone, Copy, Debug, Message)]
#[repr(C)]
pub struct Movement {
    pub id: i64,
    pub product: i64,
    pub at: i64,
    /// In or out of stock.
    pub pieces: i64,
}
