#![forbid(unsafe_code)]
#![deny(warnings)]

use tombolo::Message;
use tombolo::message::from_bytes;

const BASE: i64 = i64::MIN;

#[derive(Clone, Copy, Debug, PartialEq, Message)]
#[repr(u8)]
enum Light {
    Red = 1,
    Yellow,
    Green = 255,
}

#[derive(Clone, Copy, Debug, PartialEq, Message)]
#[repr(i64)]
enum Wide {
    Low = BASE,
    r#High = i64::MAX,
}

#[derive(Clone, Copy, Debug, PartialEq, Message)]
#[repr(u16)]
enum Only {
    One = 7,
}

fn main() {
    for byte in 0..=255 {
        let light = match byte {
            1 => Some(Light::Red),
            2 => Some(Light::Yellow),
            255 => Some(Light::Green),
            _ => None,
        };
        assert_eq!(from_bytes::<Light>(&[byte]), light);
    }
    assert_eq!(from_bytes(&i64::MIN.to_ne_bytes()), Some(Wide::Low));
    assert_eq!(from_bytes(&i64::MAX.to_ne_bytes()), Some(Wide::High));
    assert_eq!(from_bytes::<Wide>(&0i64.to_ne_bytes()), None);
    assert_eq!(from_bytes(&7u16.to_ne_bytes()), Some(Only::One));
    assert_eq!(from_bytes::<Only>(&[7]), None);
    assert_eq!(
        Wide::LAYOUT.describe(),
        format!("0 8 8 . Wide: i64\n0 8 8 ::Low = {}\n0 8 8 ::High = {}\n", i64::MIN, i64::MAX),
    );
}
