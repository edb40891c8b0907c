//! Room under construction.

mod procedure;

pub use procedure::{
    Access, Call, Footprint, Inputs, Outcome, Procedures, RangeAccess, Read, Rows, Write,
};
