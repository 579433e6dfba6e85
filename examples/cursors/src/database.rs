//! A database with generated but realistic contents, in a directory of its own that goes with it.

use rusqlite::{Connection, OpenFlags, Result, params};
use std::path::{Path, PathBuf};

const CITIES: [&str; 12] = [
    "Bergen",
    "Bremen",
    "Bristol",
    "Cádiz",
    "Gdańsk",
    "Genova",
    "Göteborg",
    "Le Havre",
    "Lisboa",
    "Piraeus",
    "Rotterdam",
    "Valletta",
];
const FIRST: [&str; 10] = [
    "Ada", "Bela", "Chloé", "Dag", "Edith", "Finn", "Greta", "Hugo", "Iris", "Jan",
];
const LAST: [&str; 10] = [
    "Andersen", "Bianchi", "Costa", "Dubois", "Evans", "Fischer", "Gomes", "Horváth", "Ito",
    "Jansson",
];

/// A file that goes with its directory.
pub struct Database(PathBuf);

impl Database {
    /// Makes the tables, in one transaction, with so many orders, a tenth as many customers, and half as many movements of
    /// stock.
    pub fn create(orders: i64) -> Result<Self, Box<dyn std::error::Error>> {
        let directory =
            std::env::temp_dir().join(format!("tombolo-cursors-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let database = Self(directory);
        let mut connection = Connection::open(database.path())?;
        connection.execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
             CREATE TABLE customers (id INTEGER PRIMARY KEY, since INTEGER, credit INTEGER, name TEXT, city TEXT);
             CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER, placed INTEGER, cents INTEGER,
                                  pieces INTEGER, state INTEGER);
             CREATE TABLE movements (id INTEGER PRIMARY KEY, product INTEGER, at INTEGER, pieces INTEGER);",
        )?;
        let mut dice = Dice(0x2545_f491_4f6c_dd1d);
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare("INSERT INTO customers VALUES (?, ?, ?, ?, ?)")?;
            let customers = orders / 10;
            for id in 1..=customers {
                let name = format!(
                    "{} {}",
                    FIRST[dice.below(10) as usize],
                    LAST[dice.below(10) as usize]
                );
                // The larger a port, the more customers.
                let city = CITIES[dice.below(12).min(dice.below(12)) as usize];
                let since = 1_262_304_000 + dice.below(450_000_000);
                insert.execute(params![id, since, dice.below(500_000), name, city])?;
            }
            let mut insert = transaction.prepare("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)")?;
            for id in 1..=orders {
                let pieces = 1 + dice.below(6) * dice.below(4);
                let cents = pieces * (199 + dice.below(9_800));
                let state = 1 + dice.below(4).max(dice.below(3));
                let placed = 1_577_836_800 + id * 900 + dice.below(900);
                let customer = 1 + dice.below(customers.max(1));
                insert.execute(params![id, customer, placed, cents, pieces, state])?;
            }
            let mut insert = transaction.prepare("INSERT INTO movements VALUES (?, ?, ?, ?)")?;
            for id in 1..=orders / 2 {
                let pieces = if dice.below(5) == 0 {
                    100 + dice.below(400)
                } else {
                    -1 - dice.below(40)
                };
                insert.execute(params![
                    id,
                    dice.below(3_000),
                    1_577_836_800 + id * 1800,
                    pieces
                ])?;
            }
        }
        transaction.commit()?;
        Ok(database)
    }

    fn path(&self) -> PathBuf {
        self.0.join("shop.db")
    }

    /// A connection of its own, for reading.
    pub fn connect(&self) -> Result<Connection> {
        let path: &Path = &self.path();
        Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The same throws with every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as i64 % limit.max(1)
    }
}
