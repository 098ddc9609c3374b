//! The conformance kit on a real server, which every fault case has to itself.

mod space;

use space::{Sound, Space};

locks_conformance::main!(Space<Sound>);
