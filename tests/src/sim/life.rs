//! The scripted life of a cluster, and node 1's death at every write and sync
//! of it.
//!
//! The life is told in chapters. Each begins on the disks that the chapter
//! before left after an orderly stop, so that a death costs one chapter and not
//! the whole life. A *point* is one run of a chapter in which the disk of node 1
//! loses its power during one operation; the machine is started again on what
//! the disk kept, the script goes on, and in the end nothing may be missing.

mod chapter;
mod command;
mod point;
mod report;
mod script;
mod sweep;
mod warden;

pub use chapter::Chapter;
pub use command::SweepArgs;
pub use point::{Ills, Point, PointReport};
pub use report::SweepReport;
pub use sweep::{Life, Share};
