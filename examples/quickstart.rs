//! The shortest use: the second call gets the answer of the first, and the card is charged once.

use oncekey::{Fingerprint, Idempotency, Key, Scope};
use oncekey_memory::MemoryStore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let idempotency = Idempotency::at_least_once(MemoryStore::new());
    let key = Key::new(&Scope::new("customer-42", "POST /payments")?, "order-17")?;
    let fingerprint = Fingerprint::of("100 EUR");

    for _ in 0..2 {
        let charge = |_attempt| async {
            println!("charging the card");
            Ok::<_, std::io::Error>("receipt 1".to_owned())
        };
        let outcome = idempotency.run(&key, &fingerprint, charge).await?;
        println!("{}, replay: {}", outcome.value(), outcome.is_replay());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_readme_shows_this_very_code() {
        let code = include_str!("quickstart.rs");
        let (_, code) = code.split_once("\n\n").unwrap();
        let (code, _) = code.split_once("\n#[cfg(test)]").unwrap();
        assert!(include_str!("../README.md").contains(code.trim()));
    }

    #[test]
    fn it_runs() {
        super::main().unwrap();
    }
}
