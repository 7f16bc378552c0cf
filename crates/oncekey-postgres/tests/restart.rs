//! What survives a crash of the server, by the rules of the suite.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod postgres_fixture;

use oncekey_conformance::rules::reopen;

use postgres_fixture::{PostgresFixture, block_on};

#[test]
fn an_answer_survives() {
    block_on(async {
        let fixture = PostgresFixture::alone().await;
        reopen::an_answer_survives(&fixture).await.unwrap();
        reopen::tokens_increase_across_a_restart(&fixture).await.unwrap();
    });
}
