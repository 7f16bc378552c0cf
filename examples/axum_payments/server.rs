//! The server: the file, the engine, the listener, and their end.

use std::convert::Infallible;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use oncekey::Idempotency;
use oncekey::observe::MetricsObserver;
use oncekey_sqlite::SqliteStore;
use oncekey_tower::InFlight;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::books::{self, Moved};
use crate::counts::Counts;
use crate::options::Options;
use crate::pace::Pace;
use crate::prometheus::Prometheus;
use crate::service::{self, Service};

/// How soon the death of a whole process would be noticed. Not shortened with the time of the log: a disk
/// does not get faster with it.
const LEASE: Duration = Duration::from_secs(10);
/// How long a duplicate waits for the first request before it is told to come back, in milliseconds of
/// the log.
const WAIT: u64 = 15_000;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) counts: Counts,
    pub(crate) metrics: Prometheus,
    path: PathBuf,
    in_flight: InFlight,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
    sweeping: JoinHandle<Infallible>,
    /// Goes with the server, if the file is a temporary one.
    _folder: Option<tempfile::TempDir>,
}

impl Server {
    pub(crate) async fn start(options: &Options, pace: Pace) -> Result<Self, Box<dyn Error>> {
        let folder = if options.file.is_none() { Some(tempfile::tempdir()?) } else { None };
        let path = match (&options.file, &folder) {
            (Some(file), _) => file.clone(),
            (None, Some(folder)) => folder.path().join("payments.sqlite3"),
            (None, None) => PathBuf::from("payments.sqlite3"),
        };
        books::create(&path)?;
        let store = SqliteStore::open(&path)?;
        let (counts, metrics) = (Counts::default(), Prometheus::of_this_process());
        // What a retry does after a crash: it runs again, and finds what was booked.
        let idempotency = Idempotency::at_least_once(store.clone())
            .named("payments")
            .lease(LEASE)
            .wait_for_duplicate(pace.real(WAIT))
            .observer(MetricsObserver::new())
            .observer(counts.clone());
        let transactions = Idempotency::at_least_once(store.clone());
        transactions.validate()?;
        let sweeper = idempotency.sweeper();
        let layer = service::idempotency_layer(idempotency);
        // The layer, and the engine in it.
        layer.validate()?;
        let in_flight = layer.in_flight();
        let service = Arc::new(Service { store, transactions, pace });
        let layer = options.with_oncekey.then_some(layer);
        let router = service::router(service, layer, metrics.clone());

        // Without it, the file would grow for ever. For the keys of the transactions, too: they are in one store.
        let sweeping = tokio::spawn(async move { sweeper.run().await });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port.unwrap_or(0))).await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let stopped = async move {
                let _ = stopped.await;
            };
            axum::serve(listener, router).with_graceful_shutdown(stopped).await
        });
        Ok(Self {
            address,
            counts,
            metrics,
            path,
            in_flight,
            stop,
            serving,
            sweeping,
            _folder: folder,
        })
    }

    /// Stops accepting, waits for all that was begun, also for clients that are gone, and reads the books.
    pub(crate) async fn stop(self) -> Result<Vec<Moved>, Box<dyn Error>> {
        let _ = self.stop.send(());
        self.serving.await??;
        self.in_flight.drain().await;
        self.sweeping.abort();
        Ok(books::read(&self.path)?)
    }
}
