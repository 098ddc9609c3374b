//! The `Locks` that decorated functions use when they name none.

use std::cell::RefCell;
use std::pin::pin;
use std::sync::OnceLock;

use crate::error::{Error, ErrorKind};
use crate::locks::Locks;

/// The process's, once it was installed or opened.
static DEFAULT: OnceLock<Locks> = OnceLock::new();

/// The file backend's in its default directory, once it was opened.
static FILES: OnceLock<Locks> = OnceLock::new();

thread_local! {
    /// Those that bodies of this thread were given for themselves, innermost last. Here only while a poll lasts.
    static SCOPED: RefCell<Vec<Locks>> = const { RefCell::new(Vec::new()) };
}

/// Makes `locks` the ones that decorated functions use when they name none, for the whole process and for good.
///
/// For applications, once, at their start; a library takes its [`Locks`] as an argument. Whoever installs them keeps a clone to
/// [close](Locks::close) at the end. Without a call, decorated functions use what `LOCKS_URL` names and otherwise the file backend.
///
/// # Errors
///
/// [`ErrorKind::Config`] if there are others already, also if a decorated function had to open some before.
///
/// # Example
///
/// ```
/// use locks_api::{Locks, install};
/// use locks_backend_memory::MemoryBackend;
///
/// install(Locks::new(MemoryBackend::new()))?;
/// assert!(install(Locks::new(MemoryBackend::new())).is_err());
/// # Ok::<(), locks_api::Error>(())
/// ```
pub fn install(locks: Locks) -> Result<(), Error> {
    DEFAULT.set(locks).map_err(|_| {
        let message = "this process has its default already, installed earlier or opened by a decorated function \
                       that ran before";
        Error::new(ErrorKind::Config, message)
    })
}

/// Runs `body` with `locks` as the default of all that it calls on its own task: for tests, which can't share one for the process.
///
/// Tasks and threads that it spawns have the process's default.
///
/// # Cancel safety
///
/// Dropping the future drops the body.
///
/// # Example
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use locks_api::{Locks, with_default};
/// use locks_backend_memory::MemoryBackend;
///
/// let locks = Locks::new(MemoryBackend::new());
/// let answer = with_default(&locks, async { 6 * 7 }).await; // calls decorated functions
/// assert_eq!(answer, 42);
/// # });
/// ```
pub async fn with_default<B: Future>(locks: &Locks, body: B) -> B::Output {
    let mut place = Some(locks.clone());
    let mut body = pin!(body);
    std::future::poll_fn(|context| {
        let _scope = Scope::enter(&mut place);
        body.as_mut().poll(context)
    })
    .await
}

/// [`with_default`] for a body that does not await: the default of all that it calls on its own thread.
///
/// ```
/// use locks_api::{Locks, with_default_blocking};
/// use locks_backend_memory::MemoryBackend;
///
/// let locks = Locks::new(MemoryBackend::new());
/// assert_eq!(with_default_blocking(&locks, || 6 * 7), 42); // calls decorated functions
/// ```
pub fn with_default_blocking<T>(locks: &Locks, body: impl FnOnce() -> T) -> T {
    let mut place = Some(locks.clone());
    let _scope = Scope::enter(&mut place);
    body()
}

/// What `with` makes of the default: the innermost that was given for a scope, else the process's, which `open` opens if there is none yet.
pub(crate) fn of_process<T>(
    open: impl FnOnce() -> Result<Locks, Error>,
    with: impl FnOnce(&Locks) -> T,
) -> Result<T, Error> {
    let scoped = SCOPED.try_with(|scoped| scoped.borrow().last().cloned()).ok().flatten();
    match &scoped {
        Some(locks) => Ok(with(locks)),
        None => opened(&DEFAULT, open).map(with),
    }
}

/// What `with` makes of the file backend's, which `open` opens if they are not open yet.
pub(crate) fn of_files<T>(
    open: impl FnOnce() -> Result<Locks, Error>,
    with: impl FnOnce(&Locks) -> T,
) -> Result<T, Error> {
    opened(&FILES, open).map(with)
}

/// Of two threads that open at the same time, one opens for nothing.
fn opened(
    place: &'static OnceLock<Locks>,
    open: impl FnOnce() -> Result<Locks, Error>,
) -> Result<&'static Locks, Error> {
    match place.get() {
        Some(locks) => Ok(locks),
        None => open().map(|locks| place.get_or_init(|| locks)),
    }
}

/// While it lives, these are the thread's default. It ends even if the body panics.
struct Scope<'a>(&'a mut Option<Locks>);

impl<'a> Scope<'a> {
    fn enter(place: &'a mut Option<Locks>) -> Self {
        SCOPED.with_borrow_mut(|scoped| scoped.extend(place.take()));
        Self(place)
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        *self.0 = SCOPED.with_borrow_mut(Vec::pop);
    }
}
