//! The log of the repository, played over real sockets, and the commands that `--serve` prints.

use std::sync::Arc;
use std::time::Duration;

use oncekey::{Failure, Fingerprint, Idempotency, Key, Scope};
use oncekey_sqlite::SqliteStore;

use super::options::Options;
use super::pace::Pace;
use super::report::Report;
use super::server::Server;
use super::{log, play, run};

fn played(options: &Options) -> Report {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(play(options)).unwrap()
}

#[test]
fn nobody_is_charged_twice() {
    let report = played(&Options { speed: 100, ..Options::default() });

    assert_eq!(report.failures(), [""; 0], "{report}");
    // All of it has happened, so the checks were not true for want of trouble.
    for what in [
        "hung up in the middle",
        "told to try again",
        "got `declined`",
        "got 422, key reused",
        "left without an answer",
        "of all answers, replays",
        "waited for another",
        "released, nothing done",
        "gave up, outcome unknown",
        "takeovers",
    ] {
        assert!(report.number(what) > 0, "{what}: {report}");
    }
    let answers = report.number("got a receipt")
        + report.number("got `declined`")
        + report.number("got 422, key reused")
        + report.number("left without an answer");
    assert_eq!(answers, report.number("requests in the log"), "{report}");
}

#[test]
fn without_oncekey_the_checks_fail() {
    let report = played(&Options { speed: 100, with_oncekey: false, ..Options::default() });

    let failures = report.failures();
    assert!(failures.contains(&"no order was charged twice"), "{report}");
    assert!(failures.contains(&"every duplicate got the same answer"), "{report}");
}

/// What the printed commands do, by another client.
#[tokio::test]
async fn a_server_that_stays_up_answers() {
    let folder = tempfile::tempdir().unwrap();
    let file = Some(folder.path().join("kept.sqlite3"));
    let options = Options { file, ..Options::default() };
    let order = |amount| serde_json::json!({ "order": "17", "operation": "charge", "amount": amount, "currency": "EUR" });
    for restart in [false, true] {
        let server = Server::start(&options, Pace::new(1_000)).await.unwrap();
        let url = format!("http://{}", server.address);
        let client = reqwest::Client::new();
        let pay = |key: Option<&'static str>, amount| {
            let request = client.post(format!("{url}/payments")).bearer_auth("oak");
            let request = request.json(&order(amount));
            match key {
                Some(key) => request.header("Idempotency-Key", key).send(),
                None => request.send(),
            }
        };
        let first = pay(Some("\"order-17\""), 100).await.unwrap();
        assert_eq!(first.status(), 201);
        // The file outlives the process that wrote it.
        assert_eq!(first.headers().contains_key("idempotent-replayed"), restart);
        let again = pay(Some("order-17"), 100).await.unwrap();
        assert_eq!(again.headers()["idempotent-replayed"], "true");
        assert_eq!(first.bytes().await.unwrap(), again.bytes().await.unwrap());
        assert_eq!(pay(Some("\"order-17\""), 200).await.unwrap().status(), 422);
        assert_eq!(pay(None, 100).await.unwrap().status(), 400);
        let stranger = client.post(format!("{url}/payments")).header("Idempotency-Key", "a");
        assert_eq!(stranger.send().await.unwrap().status(), 401);

        let metrics = client.get(format!("{url}/metrics")).send().await.unwrap();
        let metrics = metrics.text().await.unwrap();
        for line in [
            "event=\"replayed\"",
            "event=\"mismatch\"",
            "idempotency_problems_total{operation=\"payments\",kind=\"key-missing\"}",
            "idempotency_replay_seconds_bucket{operation=\"payments\"",
        ] {
            assert!(metrics.contains(line), "{line} is not in {metrics}");
        }
        let books = server.stop().await.unwrap();
        assert_eq!(books.iter().map(|it| it.times).sum::<u64>(), 1);
    }
}

#[tokio::test]
async fn a_server_that_stays_up_removes_what_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kept.sqlite3");
    let store = SqliteStore::open(&path).unwrap();
    let engine = Idempotency::at_least_once(store).hold(Duration::from_millis(1));
    let key = Key::new(&Scope::new("oak", "payments").unwrap(), "of yesterday").unwrap();
    let fingerprint = Fingerprint::of("");
    let refused = async |_| Err::<u32, _>(Failure::NotStarted("closed"));
    engine.run_classified(&key, &fingerprint, refused).await.unwrap_err();
    let look = async || engine.operator().inspect(&key).await.unwrap();
    while look().await.is_some_and(|it| it.now < it.record.forget_at) {}
    assert!(look().await.is_some(), "nobody has removed it");

    let options = Options { file: Some(path), ..Options::default() };
    let server = Server::start(&options, Pace::new(1_000)).await.unwrap();
    let swept = async {
        while look().await.is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), swept).await.expect("somebody sweeps");
    server.stop().await.unwrap();
}

#[test]
fn help_is_help_and_nonsense_is_an_error() {
    let mut out = Vec::new();
    assert!(run(["--help".to_owned()], &mut out).unwrap());
    assert!(String::from_utf8(out).unwrap().contains("--serve"));
    assert!(run(["--log".to_owned(), "nowhere".to_owned()], &mut Vec::new()).is_err());
}

#[test]
fn the_log_is_shared_with_the_other_example() {
    let requests: Vec<Arc<log::Request>> = log::read(&Options::default().log).unwrap();
    assert!(requests.iter().all(|request| request.key().is_ok()));
}
