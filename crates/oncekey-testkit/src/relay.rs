//! [`Relay`]: a wire over TCP that can be cut, slowed down, or made to swallow.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::Lose;

/// A relay in front of a server on this machine.
pub struct Relay {
    port: u16,
    plan: Arc<Plan>,
}

#[derive(Default)]
struct Plan {
    /// What to do to the next exchange in which the client sends this text.
    next: Mutex<Option<(Act, Vec<u8>)>>,
    /// How many acts were carried out.
    done: AtomicUsize,
    refuse: AtomicBool,
    black_hole: AtomicBool,
    delay: Mutex<Duration>,
    open: Mutex<Vec<TcpStream>>,
}

#[derive(Clone, Copy)]
enum Act {
    Lose(Lose),
    /// The client loses its connection, and the server gets what was sent that much later.
    Hold(Duration),
}

impl Relay {
    /// A relay to the server on `port` that does nothing but hand on.
    #[must_use]
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let plan = Arc::<Plan>::default();
        let relay = Self { port: own, plan: plan.clone() };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if plan.refuse.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                hand_on(client, server, &plan);
            }
        });
        relay
    }

    /// The port of the relay.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// `redis://127.0.0.1:port/`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Loses that part of the next exchange in which the client sends `text`, once, and the connection.
    pub fn lose(&self, what: Lose, text: impl AsRef<[u8]>) {
        *self.plan.next.lock().unwrap() = Some((Act::Lose(what), text.as_ref().to_vec()));
    }

    /// Holds back for `late` what the client sends together with `text`, once; its connection is lost at
    /// once.
    pub fn deliver_late(&self, text: impl AsRef<[u8]>, late: Duration) {
        *self.plan.next.lock().unwrap() = Some((Act::Hold(late), text.as_ref().to_vec()));
    }

    /// How many exchanges were lost or held back.
    #[must_use]
    pub fn done(&self) -> usize {
        self.plan.done.load(Ordering::SeqCst)
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refuse: bool) {
        self.plan.refuse.store(refuse, Ordering::SeqCst);
    }

    /// Whether everything is swallowed, both ways, on connections that stay open.
    pub fn black_hole(&self, swallow: bool) {
        self.plan.black_hole.store(swallow, Ordering::SeqCst);
    }

    /// How long everything takes on its way, in each direction.
    pub fn delay(&self, delay: Duration) {
        *self.plan.delay.lock().unwrap() = delay;
    }

    /// Closes all connections.
    pub fn cut(&self) {
        for stream in self.plan.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Copies both ways on two threads, until one side ends or the plan says so.
fn hand_on(client: TcpStream, server: TcpStream, plan: &Arc<Plan>) {
    plan.open.lock().unwrap().extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
    let losing = Arc::new(AtomicBool::new(false));
    let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (there, told) = (plan.clone(), losing.clone());
    thread::spawn(move || {
        let late = to_server.try_clone().unwrap();
        let gone = from_client.try_clone().unwrap();
        copy(from_client, to_server, &there, |sent| {
            let act = there.next.lock().unwrap().take_if(|(_, text)| contains(sent, text));
            let Some((act, _)) = act else { return true };
            there.done.fetch_add(1, Ordering::SeqCst);
            match act {
                Act::Lose(Lose::Request) => false,
                Act::Lose(Lose::Answer) => {
                    told.store(true, Ordering::SeqCst);
                    true
                }
                Act::Hold(time) => {
                    told.store(true, Ordering::SeqCst);
                    let _ = gone.shutdown(Shutdown::Both);
                    thread::sleep(time);
                    let _ = (&late).write_all(sent);
                    // So that the server has read it before the connection ends.
                    thread::sleep(Duration::from_millis(50));
                    false
                }
            }
        });
    });
    let back = plan.clone();
    thread::spawn(move || copy(server, client, &back, |_| !losing.load(Ordering::SeqCst)));
}

/// Passes on what `passes`, and closes both sides at the first that does not.
fn copy(
    mut from: TcpStream,
    mut to: TcpStream,
    plan: &Plan,
    mut passes: impl FnMut(&[u8]) -> bool,
) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        if plan.black_hole.load(Ordering::SeqCst) {
            continue;
        }
        let delay = *plan.delay.lock().unwrap();
        if !delay.is_zero() {
            thread::sleep(delay);
        }
        if !passes(&buffer[..len]) || to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.refuse(true);
        self.cut();
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("port", &self.port).finish_non_exhaustive()
    }
}
