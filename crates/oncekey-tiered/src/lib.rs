#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod copies;
mod store;

pub use store::Tiered;
