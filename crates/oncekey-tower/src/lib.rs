#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod answer;
mod body;
mod config;
mod executor;
mod future;
mod in_flight;
mod layer;
mod principal;
mod run;
mod service;
mod streams;

pub use body::{RequestBody, ResponseBody};
pub use executor::{Executor, Task};
pub use future::ResponseFuture;
pub use in_flight::InFlight;
pub use layer::IdempotencyLayer;
pub use principal::Principal;
pub use service::IdempotencyService;

pub use oncekey_http;
