//! The log that is in the repository, played faster, with all its checks.

use std::process::Command;
use std::sync::Arc;

use super::journal::Journal;
use super::lives::Folder;
use super::log::{self, Fate, Request};
use super::options::Options;
use super::pace::Pace;
use super::report::Report;
use super::stores::Place;
use super::{generate, lives, play_and_report, play_many_lives, play_one_life, run};

/// What the log was made from; its README says so too.
const SEED: u64 = 2026;
const SPEED: u32 = 150;

fn requests() -> Vec<Arc<Request>> {
    log::read(&Options::default().log).unwrap()
}

fn report(options: &Options) -> Report {
    let requests = requests();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let journal = Arc::new(Journal::of_one_life(Pace::new(options.speed)));
    let folder = Folder::new().unwrap();
    let played = play_and_report(options, &requests, journal, folder.path());
    runtime.block_on(played).unwrap()
}

#[test]
fn the_log_is_what_the_generator_makes() {
    let made = generate::generate(SEED).unwrap();
    let kept = std::fs::read_to_string(Options::default().log).unwrap();
    assert!(made == kept, "make the log again with `--generate {SEED}`");
}

#[test]
fn everything_that_can_go_wrong_is_in_the_log() {
    let requests = requests();
    for fate in [
        Fate::Normal,
        Fate::HangUp,
        Fate::Gone,
        Fate::CrashBefore,
        Fate::CrashOnTheWay,
        Fate::CrashAfter,
        Fate::CrashBetween,
        Fate::Declined,
        Fate::Refused,
        Fate::CallLost,
        Fate::ReplyLost,
        Fate::Slow,
    ] {
        let count = requests.iter().filter(|request| request.fate == fate).count();
        assert!(count >= 5, "{fate:?} is there {count} times");
    }
}

#[test]
fn nobody_is_charged_twice() {
    let options = Options { speed: SPEED, store: Place::Memory, ..Options::default() };
    let report = report(&options);

    assert_eq!(report.failures(), [""; 0], "{report}");
    // All of it has happened, so the checks were not true for want of trouble.
    for what in [
        "replayed",
        "waited",
        "refused: busy",
        "refused: mismatch",
        "released",
        "gave up",
        "takeovers",
        "verified: done",
        "verified: not done",
        "late calls turned away",
        "lost their worker",
        "hung up",
        "found done",
    ] {
        assert!(report.number(what) > 0, "{what}: {report}");
    }
    let verdicts = report.number("verified: done") + report.number("verified: not done");
    // A verdict may be missing where the one that took over was stopped before it had one.
    assert!(verdicts <= report.number("takeovers"), "{report}");
    let answers = report.number("got a receipt")
        + report.number("got `declined`")
        + report.number("got `mismatch`")
        + report.number("of these never came back");
    assert_eq!(answers, report.number("requests"), "{report}");
}

/// The test is its own service: started with the folder of the play, it is one of its lives.
#[test]
fn nobody_is_charged_twice_by_a_service_that_is_killed_in_mid_charge() {
    let options = Options { speed: 60, kill_every: 400, ..Options::default() };
    if let Some(folder) = std::env::var_os(lives::FOLDER) {
        let (report, good) = play_one_life(&options, folder.as_ref()).unwrap();
        std::fs::write(std::path::Path::new(&folder).with_extension("report"), &report).unwrap();
        assert!(good, "{report}");
        return;
    }
    let life = || {
        let mut life = Command::new(std::env::current_exe()?);
        let name = "tests::nobody_is_charged_twice_by_a_service_that_is_killed_in_mid_charge";
        life.args([name, "--exact", "--nocapture"]);
        Ok(life)
    };
    assert!(play_many_lives(&options, life).unwrap(), "a check failed, or the service did");
    let path = std::env::temp_dir().join(format!("payments-{}.report", std::process::id()));
    let report = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    let kills = report.lines().find(|line| line.contains("killed, and started again"));
    assert!(kills.is_some_and(|line| !line.contains(" 1 ")), "several times: {report}");
}

#[test]
fn without_oncekey_the_checks_fail() {
    let options = Options { speed: SPEED, with_oncekey: false, ..Options::default() };
    let report = report(&options);

    let failures = report.failures();
    assert!(failures.contains(&"no order was charged twice"), "{report}");
    assert!(failures.contains(&"no order was refunded twice"), "{report}");
    assert!(failures.contains(&"every duplicate got the same answer"), "{report}");
    assert!(failures.contains(&"no money moved unseen"), "{report}");
}

#[test]
fn a_log_of_ones_own_can_be_played() {
    let path = std::env::temp_dir().join(format!("oncekey-{}.jsonl", std::process::id()));
    let path = path.to_str().unwrap();
    let line =
        r#"{"at":0,"account":"a","order":"1","operation":"charge","amount":5,"currency":"EUR"}"#;
    std::fs::write(path, format!("{line}\n{line}\n")).unwrap();
    let mut out = Vec::new();
    let mut played = |more: &[&str]| {
        let arguments = ["--log", path, "--speed", "150", "--store", "memory"]
            .into_iter()
            .chain(more.iter().copied());
        run(arguments.map(str::to_owned), &mut out)
    };

    assert!(played(&[]).unwrap(), "one charge for two requests");
    assert!(!played(&["--without"]).unwrap(), "two charges for two requests");
    std::fs::write(path, "no request\n").unwrap();
    let bad = played(&[]).unwrap_err().to_string();
    std::fs::remove_file(path).unwrap();

    let out = String::from_utf8(out).unwrap();
    assert!(out.contains("OK  (1 order, 1 charge)"), "{out}");
    assert!(out.contains("1 of a: 2 times"), "{out}");
    assert!(bad.ends_with(".jsonl:1: column 2: expected ident"), "{bad}");
}
