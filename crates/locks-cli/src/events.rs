//! `--json` and `--json-fd`: what happens, for programs.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::SystemTime;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::json::Object;

/// Where events go, if anywhere.
#[derive(Debug)]
pub(crate) struct Events {
    to: Option<File>,
}

impl Events {
    pub(crate) fn new(to: Option<File>) -> Self {
        Self { to }
    }

    /// Whether anybody listens.
    pub(crate) fn are_told(&self) -> bool {
        self.to.is_some()
    }

    /// Writes one event in one line, if somebody listens. Who does not read misses it: nothing waits for them.
    pub(crate) fn tell(&self, event: &str, fields: impl FnOnce(Object) -> Object) {
        let Some(mut to) = self.to.as_ref() else { return };
        let object = Object::default().text("event", event).time("time", SystemTime::now());
        let mut line = fields(object).finish();
        line.push('\n');
        let ready = poll(&mut [PollFd::new(to.as_fd(), PollFlags::POLLOUT)], PollTimeout::ZERO);
        if ready.is_ok_and(|ready| ready > 0) {
            to.write_all(line.as_bytes()).ok();
        }
    }
}
