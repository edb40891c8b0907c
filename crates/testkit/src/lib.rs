#![doc = include_str!("../README.md")]

pub mod canary;
pub mod check;
pub mod disk;
mod error;
pub mod fuzz;
pub mod history;
pub mod process;
pub mod proxy;
mod shuffle;
pub mod sim;

pub use error::TestkitError;
