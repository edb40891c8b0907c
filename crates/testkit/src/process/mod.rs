//! Real processes: started, waited for, stopped, killed.

mod child;
mod http;
mod ports;

pub use child::{Child, ProcessSpec, Signal};
pub use http::{HTTP_ANSWER_BYTES_MAX, HttpAnswer, get};
pub use ports::{FreePorts, free_ports};
