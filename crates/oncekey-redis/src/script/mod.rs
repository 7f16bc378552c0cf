//! The scripts: the rules of the core, one call a command, one key a call.
//!
//! Each is safe to send again: it names its attempt. Each reads the time once, on the server. The last
//! thing that it may fail at is its one write.

use std::sync::LazyLock;

use redis::Cmd;

/// A script, and the name by which the server knows it.
pub(crate) struct Script {
    text: String,
    digest: String,
}

impl Script {
    fn new(flags: &str, parts: &[&str]) -> Self {
        let text = format!("#!lua{flags}\n{}", parts.join("\n"));
        let digest = redis::Script::new(&text).get_hash().to_owned();
        Self { text, digest }
    }

    /// What is sent when it is known to the server.
    pub(crate) fn by_digest(&self, name: &[u8], arguments: &[&[u8]]) -> Cmd {
        call("EVALSHA", &self.digest, name, arguments)
    }

    /// What is sent when it is not.
    pub(crate) fn by_text(&self, name: &[u8], arguments: &[&[u8]]) -> Cmd {
        call("EVAL", &self.text, name, arguments)
    }
}

fn call(verb: &str, script: &str, name: &[u8], arguments: &[&[u8]]) -> Cmd {
    let len: usize = arguments.iter().map(|argument| argument.len()).sum();
    let len = verb.len() + script.len() + name.len() + len + 16;
    let mut command = Cmd::with_capacity(4 + arguments.len(), len);
    command.arg(verb).arg(script).arg(1).arg(name);
    for argument in arguments {
        command.arg(*argument);
    }
    command
}

/// All scripts, for a server with room or for a full one.
pub(crate) struct Scripts {
    pub(crate) claim: Script,
    pub(crate) renew: Script,
    pub(crate) replace: Script,
    pub(crate) complete: Script,
    pub(crate) abandon: Script,
    pub(crate) settle: Script,
    pub(crate) evict: Script,
    pub(crate) get: Script,
    pub(crate) watch: Script,
}

impl Scripts {
    fn new(flags: &str) -> Self {
        let script = |text| Script::new(flags, &[include_str!("record.lua"), text]);
        Self {
            claim: script(include_str!("claim.lua")),
            renew: script(include_str!("renew.lua")),
            replace: Script::new(flags, &[include_str!("replace.lua")]),
            complete: script(include_str!("complete.lua")),
            abandon: script(include_str!("abandon.lua")),
            settle: script(include_str!("settle.lua")),
            evict: script(include_str!("evict.lua")),
            get: script(include_str!("get.lua")),
            watch: script(include_str!("watch.lua")),
        }
    }
}

/// Refused by a server that is full.
pub(crate) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts::new(""));

/// Run by a full server too: what ends an attempt needs little room, and must be recorded.
pub(crate) static FULL_SCRIPTS: LazyLock<Scripts> =
    LazyLock::new(|| Scripts::new(" flags=allow-oom"));

/// The codes with which the scripts answer.
pub(crate) mod code {
    pub(crate) const OK: i64 = 1;
    pub(crate) const LOST: i64 = 2;
    pub(crate) const GONE: i64 = 3;
    pub(crate) const COMPARE: i64 = 4;
    pub(crate) const BUSY: i64 = 5;
    pub(crate) const TOO_LARGE: i64 = 6;
    pub(crate) const CORRUPT: i64 = 20;
    pub(crate) const NEWER: i64 = 21;

    /// Of a claim.
    pub(crate) mod claim {
        pub(crate) const ACQUIRED: i64 = 1;
        pub(crate) const REPLAY: i64 = 2;
        pub(crate) const BUSY: i64 = 3;
        pub(crate) const MISMATCH: i64 = 4;
        pub(crate) const INTERRUPTED: i64 = 5;
        pub(crate) const RETIRED: i64 = 6;
        pub(crate) const SPENT: i64 = 7;
        pub(crate) const FULL: i64 = 8;
        /// To be sent again, with the check of what was found.
        pub(crate) const LOOK: i64 = 9;
    }
}
