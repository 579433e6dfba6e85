//! The twenty cursors: what each selects, how its worker loads it, and what the parent makes of it.

use crate::database::Database;
use crate::rows::{Customer, Movement, Order, State};
use rusqlite::{Connection, Row};
use std::error::Error;
use tombolo::Message;
use tombolo::gather::{Buffer, Rows, Worker};

pub const CURSORS: u32 = 20;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What is added up of a cursor's rows, by the parent and by SQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub rows: i64,
    pub first: i64,
    pub second: i64,
}

/// A cursor: a part of one table.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    pub table: &'static str,
    /// Its part, and of how many.
    part: i64,
    parts: i64,
}

impl Cursor {
    pub fn number(worker: u32) -> Self {
        let worker = i64::from(worker);
        let (table, part, parts) = match worker {
            0..10 => ("orders", worker, 10),
            10..14 => ("customers", worker - 10, 4),
            _ => ("movements", worker - 14, 6),
        };
        Self { table, part, parts }
    }

    /// The first and the last number of its part.
    fn bounds(&self, connection: &Connection) -> rusqlite::Result<[i64; 2]> {
        let last = format!("SELECT MAX(id) FROM {}", self.table);
        let last: Option<i64> = connection.query_row(&last, [], |row| row.get(0))?;
        let until = |part| last.unwrap_or(0) * part / self.parts;
        Ok([until(self.part) + 1, until(self.part + 1)])
    }

    /// What a worker does: count, ask for as much memory, load, submit. `at_row` is called with each row's number.
    pub fn load(
        &self,
        database: &Database,
        worker: &mut Worker,
        mut at_row: impl FnMut(usize),
    ) -> Result<()> {
        let connection = database.connect()?;
        let bounds = self.bounds(&connection)?;
        let count = format!(
            "SELECT COUNT(*) FROM {} WHERE id BETWEEN ? AND ?",
            self.table
        );
        let count: i64 = connection.query_row(&count, bounds, |row| row.get(0))?;
        let count = usize::try_from(count)?;
        match self.table {
            "orders" => {
                let empty = Order {
                    id: 0,
                    customer: 0,
                    placed: 0,
                    cents: 0,
                    pieces: 0,
                    state: State::Placed,
                };
                self.rows(
                    (&connection, bounds),
                    worker.buffer_filled(count, empty)?,
                    order,
                    &mut at_row,
                )
            }
            "customers" => self.rows(
                (&connection, bounds),
                worker.buffer(count)?,
                customer,
                &mut at_row,
            ),
            // As if the count had been wrong: the buffer grows while it is loaded.
            _ => self.rows(
                (&connection, bounds),
                worker.buffer(count / 3)?,
                movement,
                &mut at_row,
            ),
        }
    }

    fn rows<T: Message>(
        &self,
        (connection, bounds): (&Connection, [i64; 2]),
        mut buffer: Buffer<'_, T>,
        read: fn(&Row<'_>) -> Result<T>,
        at_row: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let query = format!(
            "SELECT * FROM {} WHERE id BETWEEN ? AND ? ORDER BY id",
            self.table
        );
        let mut statement = connection.prepare(&query)?;
        let mut rows = statement.query(bounds)?;
        while let Some(row) = rows.next()? {
            if buffer.loaded() == buffer.len() {
                buffer.grow(buffer.len() * 2 + 1)?;
            }
            at_row(buffer.loaded());
            buffer.push(read(row)?)?;
        }
        at_row(usize::MAX);
        Ok(buffer.submit_loaded()?)
    }

    /// What the rows add up to, where they lie.
    pub fn totals(&self, rows: &Rows) -> tombolo::Result<Totals> {
        let sums: (i64, i64) = match self.table {
            "orders" => {
                let orders = rows.as_slice::<Order>()?;
                let paid =
                    |order: &&Order| order.state != State::Placed && order.state != State::Returned;
                let paid = orders.iter().filter(paid).map(|order| order.cents).sum();
                let keys = |order: &Order| {
                    i64::from(order.pieces) + order.customer + order.placed % 1000 + order.id % 7
                };
                (paid, orders.iter().map(keys).sum())
            }
            "customers" => {
                let customers = rows.as_slice::<Customer>()?;
                let letters =
                    |c: &Customer| (c.name.chars().count() + c.city.chars().count()) as i64;
                let keys = |c: &Customer| c.credit + c.since % 1000 + c.id % 7;
                (
                    customers.iter().map(letters).sum(),
                    customers.iter().map(keys).sum(),
                )
            }
            _ => {
                let moves = rows.as_slice::<Movement>()?;
                let keys = |m: &Movement| m.product + m.at % 1000 + m.id % 7;
                (
                    moves.iter().map(|m| m.pieces).sum(),
                    moves.iter().map(keys).sum(),
                )
            }
        };
        Ok(Totals {
            rows: rows.len() as i64,
            first: sums.0,
            second: sums.1,
        })
    }

    /// The same, by SQL.
    pub fn expected(&self, connection: &Connection) -> rusqlite::Result<Totals> {
        let bounds = self.bounds(connection)?;
        let sums = match self.table {
            "orders" => {
                "SUM(CASE WHEN state IN (2, 3) THEN cents ELSE 0 END), SUM(pieces + customer + placed % 1000 + id % 7)"
            }
            "customers" => "SUM(LENGTH(name) + LENGTH(city)), SUM(credit + since % 1000 + id % 7)",
            _ => "SUM(pieces), SUM(product + at % 1000 + id % 7)",
        };
        let query = format!(
            "SELECT COUNT(*), {sums} FROM {} WHERE id BETWEEN ? AND ?",
            self.table
        );
        connection.query_row(&query, bounds, |row| {
            let sum = |at: usize| row.get::<_, Option<i64>>(at).map(Option::unwrap_or_default);
            Ok(Totals {
                rows: row.get(0)?,
                first: sum(1)?,
                second: sum(2)?,
            })
        })
    }
}

fn order(row: &Row<'_>) -> Result<Order> {
    let state = State::from_number(row.get(5)?).ok_or("an order in no known state")?;
    let (id, customer, placed) = (row.get(0)?, row.get(1)?, row.get(2)?);
    let (cents, pieces) = (row.get(3)?, row.get(4)?);
    Ok(Order {
        id,
        customer,
        placed,
        cents,
        pieces,
        state,
    })
}

fn customer(row: &Row<'_>) -> Result<Customer> {
    let (name, city) = (
        row.get_ref(3)?.as_str()?.try_into()?,
        row.get_ref(4)?.as_str()?.try_into()?,
    );
    let (id, since, credit) = (row.get(0)?, row.get(1)?, row.get(2)?);
    Ok(Customer {
        id,
        since,
        credit,
        name,
        city,
    })
}

fn movement(row: &Row<'_>) -> Result<Movement> {
    let (id, product, at, pieces) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
    Ok(Movement {
        id,
        product,
        at,
        pieces,
    })
}
