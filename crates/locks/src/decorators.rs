//! The decorators, with their pages.

use locks_api::{Locks, Result};

/// Runs the function under a lock that is named after it: `my_crate::my_module::my_function`. Waits for the lock.
///
/// For functions, `async` or not. A method has to be given a name, which [`customlock`] takes.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// use locks::{lock, with_default};
///
/// #[lock(timeout = "5s")]
/// async fn rebuild_index(pages: u32) -> u32 {
///     pages * 2
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let locks = locks::connect("memory:").await?;
/// # with_default(&locks, async {
/// assert_eq!(rebuild_index(21).await?, 42); // a locks::Result<u32> now
/// # Ok::<(), locks::Error>(())
/// # }).await
/// # }).unwrap();
/// # }
/// ```
///
/// # Which locks
///
/// Those of `locks = …`; else the default: the [`Locks`] of [`with_default`](crate::with_default) or [`install`](crate::install), else what the environment
/// variable `LOCKS_URL` names, else the file backend in its default directory. The default is opened by the first call that needs it and
/// stays for the life of the process.
///
/// # What it returns
///
/// Errors of the lock are values, so the return type has to have room for them. A type whose last part is named `Result` is kept, and its error must be
/// convertible from [`locks::Error`](crate::Error); any other becomes a `Result`. With [`trylock`], [`tryfilelock`] and `wait = false` the value is an
/// [`Outcome`](crate::Outcome), so that a skipped call can't be confused with anything the function returns.
///
/// | written | `#[lock]` | `#[trylock]`, `wait = false` |
/// |---|---|---|
/// | nothing | `Result<(), locks::Error>` | `Result<Outcome<()>, locks::Error>` |
/// | `T` | `Result<T, locks::Error>` | `Result<Outcome<T>, locks::Error>` |
/// | `Option<T>` | `Result<Option<T>, locks::Error>` | `Result<Outcome<Option<T>>, locks::Error>` |
/// | `impl Trait` | `Result<impl Trait, locks::Error>` | `Result<Outcome<impl Trait>, locks::Error>` |
/// | `Result<T, E>` | the same | `Result<Outcome<T>, E>` |
/// | `anyhow::Result<T>`, `io::Result<T>` and the like | the same | `anyhow::Result<Outcome<T>>` |
/// | `Result`, an alias without parameters | the same | that `Result` with `Outcome` around its value |
/// | anything, with `returns = X` | `X` | `X` |
///
/// `returns = X` is for a `Result` of another name, and for an error that can't be converted. `X` is a `Result` whose error is convertible from
/// `locks::Error`, and whose value is what the body gives: or, if the body gives a `Result` with the same error, what is in that.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// use std::num::ParseIntError;
///
/// #[locks::lock(returns = Result<Result<u32, ParseIntError>, locks::Error>)]
/// async fn parsed(text: &str) -> Result<u32, ParseIntError> {
///     text.parse()
/// }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let locks = locks::connect("memory:").await?;
/// # locks::with_default(&locks, async {
/// assert_eq!(parsed("42").await?, Ok(42));
/// # Ok::<(), locks::Error>(())
/// # }).await
/// # }).unwrap();
/// # }
/// ```
///
/// # Options
///
/// | option | |
/// |---|---|
/// | `wait = false` | skips the call if the lock is held, as [`trylock`] |
/// | `timeout = "5s"` | waits for so long at most, then [`ErrorKind::Timeout`](crate::ErrorKind::Timeout); `"0s"` tries once |
/// | `ttl = "30s"` | as [`Lock::ttl`](crate::Lock::ttl) |
/// | `locks = self.locks` | the [`Locks`] to use: an expression, which may use the arguments; it is borrowed |
/// | `shared` | as a reader of the [`RwLock`](crate::RwLock) of this name |
/// | `permits = 3` | as one of so many, with a permit of the [`Semaphore`](crate::Semaphore) of this name |
/// | `on_lost = "cancel"` | an async body whose lock is lost is dropped at its next await: the default |
/// | `on_lost = "continue"` | it goes on to its end, as a synchronous body always does |
/// | `label = "import of {file}"` | as [`Lock::label`](crate::Lock::label); text as in names, or an expression |
/// | `returns = X` | see above |
/// | `crate = path` | where `locks` is to be found: `::locks` if not said |
///
/// A time is text like `"5s"`, `"200ms"` or `"1h 30m"`, which the compiler checks, or an expression of type
/// [`Duration`](std::time::Duration). `timeout`, `ttl`, `permits` and `label` may use the arguments, too.
///
/// # A lost lock
///
/// A body whose lock was lost ends with [`ErrorKind::Lost`](crate::ErrorKind::Lost), whether it was dropped or went on; what it returned is dropped. While it runs it can ask
/// [`current`](crate::current) whether it still holds the lock, and for the fencing token.
///
/// # Inside the body
///
/// Other decorated functions can be called. The same lock again, on the same task or thread, is an
/// [`ErrorKind::WouldDeadlock`](crate::ErrorKind::WouldDeadlock) instead of a wait without end. A task or thread that is spawned inside is on its own.
///
/// # Expands to
///
/// ```text
/// async fn rebuild_index(pages: u32) -> Result<u32, locks::Error> {
///     let call = on_default("my_crate::rebuild_index").timeout(Duration::new(5, 0));
///     call.run(async move { pages * 2 }).await
/// }
/// ```
///
/// with full paths, and with `run_blocking(move || …)` for a function that is not async. Nothing in it can panic but the body. To see an expansion, compile
/// with the environment variable `LOCKS_EXPAND` set to the function's name, or to `1` for all. (cargo compiles again only what has changed:
/// `touch` the file first.)
///
/// # Limitations
///
/// - The lock covers what happens until the function returns. A value that works later is not covered: an iterator or a stream that is returned, a task that is spawned.
///   A function that returns a future and is not an `async fn` is refused. What `async_trait` makes of one is known.
/// - The name has no types in it. All instances of a generic function share one lock; so do functions of the same name in the bodies of different functions of one module.
/// - The name changes when the function is moved or renamed, and programs of two versions then don't exclude each other. With [`customlock`] it stays.
/// - A method needs a name. The compiler says so in words if `self` or `Self` is in its signature, and otherwise that it can't find `a_method_must_be_given_a_name…`.
/// - `const`, `extern "C"` and never-returning functions are refused.
/// - A synchronous function waits on its thread, and so does everything else of an executor that it is called on.
/// - A trait's method has to be declared with the return type that the decorated one has.
///
/// # Release after commit
///
/// The lock is given back when the function returns. If the function writes to a database, its transaction has to be committed by then: commit inside
/// the function. With a transaction that the caller commits later, the next holder reads the state from before it, and updates are lost. So decorate the function that begins and
/// commits the transaction, not one that it calls.
#[doc(inline)]
pub use locks_macros::lock;

/// Runs the function if the lock that is named after it is free, and skips it otherwise.
///
/// [`Outcome`](crate::Outcome) says which, and who holds the lock. Otherwise as [`lock`], whose page has the options, what is returned,
/// *Limitations* and *Release after commit*.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// use locks::{Outcome, trylock};
///
/// #[trylock]
/// async fn nightly_report() -> u32 {
///     42
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let locks = locks::connect("memory:").await?;
/// # locks::with_default(&locks, async {
/// match nightly_report().await? {
///     Outcome::Ran(answer) => assert_eq!(answer, 42),
///     Outcome::Skipped(busy) => println!("it runs already: {busy}"),
/// }
/// # Ok::<(), locks::Error>(())
/// # }).await
/// # }).unwrap();
/// # }
/// ```
///
/// # Expands to
///
/// ```text
/// async fn nightly_report() -> Result<Outcome<u32>, locks::Error> {
///     let call = on_default("my_crate::nightly_report");
///     call.try_run(async move { 42 }).await
/// }
/// ```
#[doc(inline)]
pub use locks_macros::trylock;

/// Runs the function under the lock of a name, which may depend on the arguments.
///
/// The name comes first, then the options of [`lock`], whose page has also what is returned, *Limitations* and *Release after commit*.
///
/// ```
/// # #[cfg(feature = "memory")] {
/// use locks::{Locks, customlock};
///
/// #[customlock("whatever")] // fixed
/// fn first(x: u32) -> u32 {
///     x
/// }
///
/// #[customlock("fancylock{x}")] // text with arguments
/// fn second(x: u32, y: u32) -> u32 {
///     x + y
/// }
///
/// #[customlock(|x, _| format!("fancylock{x}"))] // a closure of the arguments, or a function
/// fn third(x: u32, y: u32) -> u32 {
///     x + y
/// }
///
/// struct Account {
///     id: u64,
///     locks: Locks,
/// }
///
/// impl Account {
///     #[customlock("account/{self.id}", locks = self.locks)]
///     fn close(&mut self) -> bool {
///         self.id > 0
///     }
/// }
///
/// # let locks = locks::with_default_blocking;
/// # let store = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(locks::connect("memory:")).unwrap();
/// # locks(&store, || {
/// assert_eq!(first(1)? + second(1, 2)? + third(1, 2)?, 7);
/// assert!(Account { id: 7, locks: store.clone() }.close()?);
/// # Ok::<(), locks::Error>(())
/// # }).unwrap();
/// # }
/// ```
///
/// # Names
///
/// - **Text** may hold arguments in braces, their fields and a format: `"{x}"`, `"{self.id}"`, `"{order.customer.0:08}"`. The compiler checks that they exist and
///   can be displayed. A brace is written twice. Anything else than arguments is refused, so that a name never depends on what is not seen in the call.
/// - **A closure** is given all arguments by reference, `self` included, and what it returns is used as `&str`. Their types need not be said.
/// - **A function**, by its path, is given the same.
///
/// Text without arguments is checked against the rules of [`LockName`](crate::LockName) by the compiler. A name that breaks them at run time is an
/// [`ErrorKind::InvalidName`](crate::ErrorKind::InvalidName).
///
/// # Expands to
///
/// ```text
/// fn second(x: u32, y: u32) -> Result<u32, locks::Error> {
///     let call = on_default(format!("fancylock{}", x));
///     call.run_blocking(move || -> u32 { x + y })
/// }
/// ```
#[doc(inline)]
pub use locks_macros::customlock;

/// As [`lock`](macro@lock), always with the file backend in its default directory: between the processes of one user on one machine.
///
/// Neither an installed default nor `LOCKS_URL` changes that, and there is no option `locks`. Calls share the locks of a `#[lock]` that falls back to the file
/// backend. The page of [`lock`](macro@lock) has the options, what is returned, *Expands to* (with `on_files`), *Limitations* and *Release after commit*.
///
/// ```
/// #[locks::filelock(timeout = "5s")]
/// fn compact() -> u32 {
///     42
/// }
/// # let _of_this_user = compact;
/// ```
#[cfg(feature = "file")]
#[doc(inline)]
pub use locks_macros::filelock;

/// As [`trylock`](macro@trylock), always with the file backend: see [`filelock`](macro@filelock).
///
/// ```
/// #[locks::tryfilelock]
/// fn compact() {}
/// # let _of_this_user = compact;
/// ```
#[cfg(feature = "file")]
#[doc(inline)]
pub use locks_macros::tryfilelock;

/// As [`customlock`](macro@customlock), always with the file backend: see [`filelock`](macro@filelock).
///
/// ```
/// #[locks::customfilelock("device/{number}")]
/// fn flash(number: u8) {
///     println!("flashing {number}");
/// }
/// # let _of_this_user = flash;
/// ```
#[cfg(feature = "file")]
#[doc(inline)]
pub use locks_macros::customfilelock;

/// The [`Locks`] that decorated functions use here when they name none, opened if they were not: to use other kinds of locks of the same store,
/// and to [close](Locks::close) them at the end of the program.
///
/// See [*Which locks*](macro@lock#which-locks).
///
/// # Errors
///
/// As [`connect`](crate::connect), with what `LOCKS_URL` says or for the file backend. It is tried again with the next call.
pub fn default_locks() -> Result<Locks> {
    crate::decorated::of_process()
}
