//! Hears of what happens to lock files: one inotify instance and one thread, only while somebody listens.
//!
//! What it hears is a hint. A process that dies closes its files a moment before the kernel frees their locks, so whatever was heard is told
//! again a little later.

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::Bell;

/// Elsewhere nothing is offered that would need it.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) struct Bell;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Bell {
    pub(crate) fn new(_store: std::sync::Weak<crate::store::Store>) -> Self {
        Self
    }

    pub(crate) fn listen(&self, _name: &locks_api::LockName) {}

    pub(crate) fn watch(&self, _name: &locks_api::LockName) -> locks_api::Result<()> {
        Err(locks_api::Error::new(locks_api::ErrorKind::Unsupported, "this system has no inotify"))
    }

    pub(crate) fn unwatch(&self, _name: &locks_api::LockName) {}

    pub(crate) fn stop(&self) {}
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux {
    use std::collections::{HashMap, HashSet};
    use std::io;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
    use std::thread;
    use std::time::{Duration, Instant};

    use locks_api::{LockName, Result};
    use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
    use rustix::io::Errno;

    use crate::error::classify;
    use crate::store::Store;

    /// When what was heard is told again, counted from the time before.
    const AGAIN: [Duration; 3] =
        [Duration::from_millis(2), Duration::from_millis(20), Duration::from_millis(200)];

    /// How long the thread stays when nobody listens any more.
    const LINGER: Duration = Duration::from_secs(1);

    /// Tells of lock files that change.
    pub(crate) struct Bell {
        store: Weak<Store>,
        running: Mutex<Option<Arc<Running>>>,
    }

    struct Running {
        inotify: OwnedFd,
        /// Written to when the thread is to look up.
        wake: OwnedFd,
        state: Mutex<State>,
    }

    #[derive(Default)]
    struct State {
        wanted: HashMap<LockName, Wanted>,
        stopped: bool,
    }

    struct Wanted {
        /// The kernel's number for the file.
        watch: i32,
        /// Whether [`Events::changed`](locks_api::spi::Events::changed) is to be called.
        is_watched: bool,
        /// How many threads wait for a nudge.
        listeners: usize,
        /// When it is told again, and for which time.
        again: Option<(Instant, usize)>,
    }

    /// While it lives, threads that wait for this lock are nudged when its file changes.
    pub(crate) struct Listening<'a> {
        bell: &'a Bell,
        name: LockName,
    }

    impl Drop for Listening<'_> {
        fn drop(&mut self) {
            self.bell.leave(&self.name, |wanted| wanted.listeners -= 1);
        }
    }

    impl Bell {
        pub(crate) fn new(store: Weak<Store>) -> Self {
            Self { store, running: Mutex::default() }
        }

        /// Nudges threads that wait for this lock. `None` if the system can't: then they look for themselves.
        pub(crate) fn listen(&self, name: &LockName) -> Option<Listening<'_>> {
            self.want(name, |wanted| wanted.listeners += 1).ok()?;
            Some(Listening { bell: self, name: name.clone() })
        }

        /// Calls [`Events::changed`](locks_api::spi::Events::changed) from now on.
        pub(crate) fn watch(&self, name: &LockName) -> Result<()> {
            self.want(name, |wanted| wanted.is_watched = true)
        }

        pub(crate) fn unwatch(&self, name: &LockName) {
            self.leave(name, |wanted| wanted.is_watched = false);
        }

        /// Ends the thread.
        pub(crate) fn stop(&self) {
            if let Some(running) = lock(&self.running).take() {
                lock(&running.state).stopped = true;
                running.wake();
            }
        }

        fn want(&self, name: &LockName, change: impl FnOnce(&mut Wanted)) -> Result<()> {
            let Some(store) = self.store.upgrade() else { return Ok(()) };
            let mut slot = lock(&self.running);
            let running = match &*slot {
                Some(running) => Arc::clone(running),
                None => {
                    let running = Running::start(self.store.clone())?;
                    *slot = Some(Arc::clone(&running));
                    running
                }
            };
            let mut state = lock(&running.state);
            let watch = running.add(&store, name)?;
            let wanted = state.wanted.entry(name.clone()).or_insert(Wanted {
                watch,
                is_watched: false,
                listeners: 0,
                again: None,
            });
            wanted.watch = watch;
            change(wanted);
            Ok(())
        }

        fn leave(&self, name: &LockName, change: impl FnOnce(&mut Wanted)) {
            let Some(running) = lock(&self.running).clone() else { return };
            let mut state = lock(&running.state);
            let Some(wanted) = state.wanted.get_mut(name) else { return };
            change(wanted);
            if !wanted.is_watched && wanted.listeners == 0 {
                // Gone already if the file is.
                drop(inotify::remove_watch(&running.inotify, wanted.watch).map_err(io::Error::from));
                state.wanted.remove(name);
                running.wake();
            }
        }

        /// The thread has had nothing to do for a while. False if that has just changed.
        fn retire(&self, retiring: &Arc<Running>) -> bool {
            let mut slot = lock(&self.running);
            let mut state = lock(&retiring.state);
            if !state.wanted.is_empty() {
                return false;
            }
            state.stopped = true;
            if slot.as_ref().is_some_and(|running| Arc::ptr_eq(running, retiring)) {
                *slot = None;
            }
            true
        }
    }

    impl Running {
        fn start(store: Weak<Store>) -> Result<Arc<Self>> {
            let failed = |error: io::Error| classify(error, "can't listen to lock files");
            let running = Arc::new(Self {
                inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
                    .map_err(|error| failed(error.into()))?,
                wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                    .map_err(|error| failed(error.into()))?,
                state: Mutex::default(),
            });
            let thread = Arc::clone(&running);
            thread::Builder::new()
                .name("locks-file-bell".to_owned())
                .spawn(move || thread.run(&store))
                .map_err(failed)?;
            Ok(running)
        }

        /// Adds a watch for the file of this lock, which is made if it is not there.
        fn add(&self, store: &Store, name: &LockName) -> Result<i32> {
            let file = store.open_side_file(name)?;
            let flags = WatchFlags::CLOSE_WRITE
                | WatchFlags::MODIFY
                | WatchFlags::ATTRIB
                | WatchFlags::MOVE_SELF
                | WatchFlags::DELETE_SELF;
            inotify::add_watch(&self.inotify, file.path(), flags)
                .map_err(|error| file.failed("listen to", error.into()))
        }

        fn wake(&self) {
            // Full only if the thread has not looked for an age, and then it is about to.
            drop(rustix::io::write(&self.wake, &1_u64.to_ne_bytes()).map_err(io::Error::from));
        }

        fn run(self: Arc<Self>, store: &Weak<Store>) {
            loop {
                let heard = self.hear();
                let Some(store) = store.upgrade() else { return };
                let Some(told) = self.due(&store, &heard) else { return };
                for (name, is_watched) in &told {
                    store.nudge(name);
                    if *is_watched && let Some(events) = store.events() {
                        events.changed(name.clone());
                    }
                }
                if lock(&self.state).wanted.is_empty() && heard.is_empty() && store.bell.retire(&self) {
                    return;
                }
            }
        }

        /// Waits for the next thing to do; what the kernel has to say, by its numbers.
        fn hear(&self) -> Vec<(i32, ReadFlags)> {
            let pause = {
                let state = lock(&self.state);
                let now = Instant::now();
                let next = state.wanted.values().filter_map(|wanted| wanted.again).map(|(at, _)| at).min();
                let next = next.map(|at| at.saturating_duration_since(now));
                if state.stopped {
                    return Vec::new();
                }
                if state.wanted.is_empty() { Some(LINGER) } else { next }
            };
            let mut fds = [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
            let pause = pause.map(|pause| Timespec {
                tv_sec: pause.as_secs() as i64,
                tv_nsec: (pause.subsec_nanos() + 1).min(999_999_999).into(),
            });
            // Interrupted or not, what is there is looked at.
            drop(poll(&mut fds, pause.as_ref()).map_err(io::Error::from));
            let mut heard = Vec::new();
            if !fds[1].revents().is_empty() {
                drop(rustix::io::read(&self.wake, &mut [0; 8]).map_err(io::Error::from));
                // Not nothing: the thread is not to retire.
                heard.push((-1, ReadFlags::empty()));
            }
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
            loop {
                match events.next() {
                    Ok(event) => heard.push((event.wd(), event.events())),
                    Err(Errno::INTR) => {}
                    Err(_) => return heard,
                }
            }
        }

        /// Of which locks something is to be told now, and whether to everybody. `None` if the thread is to end.
        fn due(&self, store: &Store, heard: &[(i32, ReadFlags)]) -> Option<Vec<(LockName, bool)>> {
            let mut state = lock(&self.state);
            if state.stopped {
                return None;
            }
            let now = Instant::now();
            let overflown = heard.iter().any(|(_, flags)| flags.contains(ReadFlags::QUEUE_OVERFLOW));
            let files: HashSet<i32> = heard.iter().map(|(watch, _)| *watch).collect();
            let replaced =
                ReadFlags::ATTRIB | ReadFlags::MOVE_SELF | ReadFlags::DELETE_SELF | ReadFlags::IGNORED;
            let moved: HashSet<i32> = heard
                .iter()
                .filter(|(_, flags)| flags.intersects(replaced))
                .map(|(watch, _)| *watch)
                .collect();
            let mut told = Vec::new();
            for (name, wanted) in &mut state.wanted {
                let is_heard = overflown || files.contains(&wanted.watch);
                if moved.contains(&wanted.watch)
                    && let Ok(watch) = self.add(store, name)
                {
                    wanted.watch = watch;
                }
                let time = match wanted.again {
                    _ if is_heard => 0,
                    Some((at, time)) if at <= now => time,
                    _ => continue,
                };
                wanted.again = AGAIN.get(time).map(|pause| (now + *pause, time + 1));
                told.push((name.clone(), wanted.is_watched));
            }
            Some(told)
        }
    }

    fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
