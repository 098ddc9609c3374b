//! The functions of django-locks, in all six forms, and the other kinds of locks.

use locks::{
    Locks, Mode, Outcome, current, customfilelock, customlock, filelock, lock, tryfilelock, trylock,
    with_default, with_default_blocking,
};

use crate::memory;

/// Each of the three functions of django-locks, and their three twins, in a module of their own.
macro_rules! django {
    ($module:ident $($async:ident)?: $lock:ident $trylock:ident $customlock:ident) => {
        mod $module {
            use super::*;

            #[$lock]
            pub(super) $($async)? fn waits(x: u32, y: u32, z: u32) -> u32 {
                assert!(current().is_some_and(|lock| lock.is_held()));
                x + y + z
            }

            #[$trylock]
            pub(super) $($async)? fn skips(x: u32, y: u32, z: u32) -> u32 {
                assert!(current().is_some_and(|lock| lock.is_held()));
                x + y + z
            }

            #[$customlock(|x, _y, _z| format!("locks-test/{}/fancylock{x}", std::process::id()))]
            pub(super) $($async)? fn is_named(x: u32, y: u32, z: u32) -> u32 {
                assert!(current().is_some_and(|lock| lock.name().ends_with("fancylock1")));
                x + y + z
            }
        }
    };
}

django!(later async: lock trylock customlock);
django!(now: lock trylock customlock);
django!(files_later async: filelock tryfilelock customfilelock);
django!(files_now: filelock tryfilelock customfilelock);

async fn all_forms(locks: &Locks) {
    with_default(locks, async {
        assert_eq!(later::waits(1, 2, 3).await.unwrap(), 6);
        assert_eq!(later::skips(1, 2, 3).await.unwrap(), Outcome::Ran(6));
        assert_eq!(later::is_named(1, 2, 3).await.unwrap(), 6);
        assert_eq!(files_later::waits(1, 2, 3).await.unwrap(), 6);
        assert_eq!(files_later::skips(1, 2, 3).await.unwrap(), Outcome::Ran(6));
        assert_eq!(files_later::is_named(1, 2, 3).await.unwrap(), 6);
    })
    .await;
    with_default_blocking(locks, || {
        assert_eq!(now::waits(1, 2, 3).unwrap(), 6);
        assert_eq!(now::skips(1, 2, 3).unwrap(), Outcome::Ran(6));
        assert_eq!(now::is_named(1, 2, 3).unwrap(), 6);
        assert_eq!(files_now::waits(1, 2, 3).unwrap(), 6);
        assert_eq!(files_now::skips(1, 2, 3).unwrap(), Outcome::Ran(6));
        assert_eq!(files_now::is_named(1, 2, 3).unwrap(), 6);
    });
}

#[tokio::test]
async fn all_forms_in_memory_and_in_files() {
    all_forms(&memory().await).await;
    let directory = tempfile::tempdir().unwrap();
    all_forms(&locks::connect(&format!("file:{}", directory.path().display())).await.unwrap()).await;
}

#[customlock("shared", shared)]
async fn reads() -> Mode {
    current().unwrap().mode()
}

#[customlock("permits", permits = limit)]
fn one_of(limit: u32) -> Mode {
    current().unwrap().mode()
}

#[customlock("options", ttl = "10s", timeout = std::time::Duration::from_secs(limit), on_lost = "continue")]
async fn options(limit: u64) -> Mode {
    current().unwrap().mode()
}

#[tokio::test]
async fn the_other_kinds() {
    let locks = memory().await;
    with_default(&locks, async {
        let reader = locks.rw_lock("shared").read().await.unwrap();
        assert_eq!(reads().await.unwrap(), Mode::Shared);
        drop(reader);
        let permit = locks.semaphore("permits", 2).acquire().await.unwrap();
        assert_eq!(one_of(2).unwrap(), Mode::Permits { count: 1, limit: 2 });
        drop(permit);
        assert_eq!(options(5).await.unwrap(), Mode::Exclusive);
    })
    .await;
}

mod renamed {
    //! The library under another name.

    pub(super) mod their {
        //! Where somebody passes it on.
        pub(crate) use locks as mutexes;
    }

    #[locks::customlock("renamed", crate = crate::bodies::renamed::their::mutexes)]
    pub(super) fn function() -> u32 {
        7
    }
}

#[tokio::test]
async fn the_library_under_another_name() {
    assert_eq!(with_default_blocking(&memory().await, renamed::function).unwrap(), 7);
}
