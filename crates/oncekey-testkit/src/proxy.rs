//! [`Proxy`]: a wire to a server that can be cut at a chosen moment, or made to swallow.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::Postgres;
use crate::process;

/// What is lost of one exchange, together with its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lose {
    /// What the client sent: the server does not see it.
    Request,
    /// What the server answered, all of it.
    Answer,
}

/// A proxy in front of a [`Postgres`].
pub struct Proxy {
    folder: PathBuf,
    plan: Arc<Plan>,
}

#[derive(Default)]
struct Plan {
    /// What to lose, the text that the exchange begins with, and whether everything is swallowed from then on.
    next: Mutex<Option<(Lose, String, bool)>>,
    refuse: AtomicBool,
    black_hole: AtomicBool,
}

impl Proxy {
    /// A proxy that loses nothing yet.
    #[must_use]
    pub fn start(postgres: &Postgres) -> Self {
        let folder = process::new_folder("px");
        let port = Postgres::PORT;
        let listener = UnixListener::bind(folder.join(format!(".s.PGSQL.{port}"))).unwrap();
        let server = postgres.host().join(format!(".s.PGSQL.{port}"));
        let plan = Arc::<Plan>::default();
        let proxy = Self { folder, plan: plan.clone() };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if plan.refuse.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = UnixStream::connect(&server) else { continue };
                relay(client, server, &plan);
            }
        });
        proxy
    }

    /// Loses that part of the next exchange in which the client sends `text`, once.
    pub fn lose(&self, what: Lose, text: &str) {
        *self.plan.next.lock().unwrap() = Some((what, text.to_owned(), false));
    }

    /// The same; everything else is [swallowed](Self::black_hole) from then on.
    pub fn lose_and_swallow(&self, what: Lose, text: &str) {
        *self.plan.next.lock().unwrap() = Some((what, text.to_owned(), true));
    }

    /// Whether everything is swallowed, both ways, on connections that stay open.
    pub fn black_hole(&self, swallow: bool) {
        self.plan.black_hole.store(swallow, Ordering::SeqCst);
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refuse: bool) {
        self.plan.refuse.store(refuse, Ordering::SeqCst);
    }

    /// The folder with the socket: the `host` of a connection.
    #[must_use]
    pub fn host(&self) -> &Path {
        &self.folder
    }

    /// A connection string of the form `host=.. port=.. user=.. dbname=..`.
    #[must_use]
    pub fn connection_string(&self) -> String {
        format!(
            "host={} port={} user={user} dbname={user}",
            self.folder.display(),
            Postgres::PORT,
            user = Postgres::USER
        )
    }
}

/// Copies both ways on two threads, until one side ends or the plan says so.
fn relay(client: UnixStream, server: UnixStream, plan: &Arc<Plan>) {
    let losing = Arc::new(AtomicBool::new(false));
    let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (there, told) = (plan.clone(), losing.clone());
    thread::spawn(move || {
        copy(from_client, to_server, &there, |sent| {
            let mut next = there.next.lock().unwrap();
            let lost = next.take_if(|(_, text, _)| contains(sent, text.as_bytes()));
            if let Some((_, _, true)) = lost {
                there.black_hole.store(true, Ordering::SeqCst);
            }
            match lost {
                Some((Lose::Request, ..)) => false,
                Some((Lose::Answer, ..)) => {
                    told.store(true, Ordering::SeqCst);
                    true
                }
                None => true,
            }
        });
    });
    let back = plan.clone();
    thread::spawn(move || copy(server, client, &back, |_| !losing.load(Ordering::SeqCst)));
}

/// Passes on what `passes`, and closes both sides at the first that does not.
fn copy(
    mut from: UnixStream,
    mut to: UnixStream,
    plan: &Plan,
    mut passes: impl FnMut(&[u8]) -> bool,
) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        // What makes it swallow passes itself.
        let is_swallowed = plan.black_hole.load(Ordering::SeqCst);
        if !passes(&buffer[..len]) {
            break;
        }
        if !is_swallowed && to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.refuse(true);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("folder", &self.folder).finish_non_exhaustive()
    }
}
