//! The conformance kit on a real server, which every fault case has to itself, in both modes.

mod session;
mod space;

use session::Sessions;
use space::{Sound, Space};

locks_conformance::main!(Space<Sound>, Sessions);
