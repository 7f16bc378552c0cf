//! Moves money between two accounts, and gets the same request a hundred times at once: it is moved once.
//!
//! Debit, credit and the record of the request commit in one transaction. `bank.rs` says how, for SQLite
//! and for PostgreSQL.
//!
//! ```console
//! $ cargo run -p oncekey-examples --example transfer
//! $ cargo run -p oncekey-examples --example transfer -- --store sqlite:bank.sqlite3
//! $ cargo run -p oncekey-examples --example transfer -- --store "postgres:host=/run/postgresql user=app"
//! ```

mod bank;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use bank::{Bank, Transfer};
use oncekey::{Key, Scope};

const HELP: &str = "transfer [--store sqlite:PATH | --store postgres:URL]\n\
                    Without a store it uses a SQLite file of its own.";
/// How often the same request comes.
const COPIES: usize = 100;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match run(&arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("transfer: {error}");
            ExitCode::from(2)
        }
    }
}

/// Transfers, prints what came of it, and returns whether all is as it must be.
async fn run(arguments: &[String]) -> Result<bool, bank::AnyError> {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (bank, _folder) = match arguments[..] {
        [] => {
            let folder = Folder::new()?;
            (Bank::in_sqlite(&folder.0.join("bank.sqlite3"))?, Some(folder))
        }
        ["--store", store] => match store.split_once(':') {
            Some(("sqlite", path)) => (Bank::in_sqlite(path.as_ref())?, None),
            Some(("postgres", url)) => (Bank::in_postgres(url).await?, None),
            _ => return Err(HELP.into()),
        },
        _ => return Err(HELP.into()),
    };
    let bank = Arc::new(bank);
    let before = bank.balances().await?;
    println!("before: alice has {}, bob has {}", before.alice, before.bob);

    // The client sent it once. A proxy, a queue and an impatient user did the rest. Each run of this
    // program is another request.
    let request = format!("{}-{:?}", std::process::id(), std::time::SystemTime::now());
    let key = Key::new(&Scope::new("alice", "POST /transfers")?, request)?;
    let transfer = Transfer { amount: 30 };
    let copies: Vec<_> = (0..COPIES)
        .map(|_| {
            let (bank, key) = (Arc::clone(&bank), key.clone());
            tokio::spawn(async move { bank.transfer(&key, transfer).await })
        })
        .collect();
    let mut moved = 0;
    let mut receipts = Vec::new();
    for copy in copies {
        let outcome = copy.await??;
        moved += usize::from(!outcome.is_replay());
        receipts.push(outcome.into_value());
    }
    receipts.dedup();

    let after = bank.balances().await?;
    println!("{COPIES} copies of a request to transfer {} from alice to bob", transfer.amount);
    println!("{moved} moved money, {} got its receipt", COPIES - moved);
    println!("after: alice has {}, bob has {}", after.alice, after.bob);

    let good = moved == 1
        && receipts.len() == 1
        && after.alice == before.alice - transfer.amount
        && after.bob == before.bob + transfer.amount;
    println!("{}", if good { "all is right" } else { "THIS IS WRONG" });
    Ok(good)
}

/// A folder that is removed with what is in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("oncekey-transfer-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use oncekey_testkit::Postgres;

    use super::{Folder, run};

    #[tokio::test]
    async fn the_money_is_moved_once_by_each_request() {
        let folder = Folder::new().unwrap();
        let file = folder.0.join("twice.sqlite3");
        let store = ["--store".to_owned(), format!("sqlite:{}", file.display())];
        assert!(run(&store).await.unwrap());
        assert!(run(&store).await.unwrap());
        assert!(run(&[]).await.unwrap());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_money_is_moved_once_in_postgres() {
        let server = Postgres::start();
        let store = ["--store".to_owned(), format!("postgres:{}", server.connection_string())];
        assert!(run(&store).await.unwrap());
        assert!(run(&store).await.unwrap());
    }

    #[tokio::test]
    async fn what_is_not_understood_is_told() {
        for wrong in ["--store", "--help", "sqlite:x"] {
            assert!(run(&[wrong.to_owned()]).await.is_err());
        }
    }
}
