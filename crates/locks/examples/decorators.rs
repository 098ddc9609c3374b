//! Every piece of Rust on the page about decorators, run.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;

use locks::{Outcome, with_default};

mod forms {
    //! The functions of django-locks.

    // region: forms
    use locks::{customlock, lock, trylock};

    #[lock]
    pub async fn myfunc(x: u32, y: u32, z: u32) -> u32 {
        x + y + z // one at a time, wherever the store reaches
    }

    #[trylock]
    pub async fn skipped_if_running(x: u32, y: u32, z: u32) -> u32 {
        x + y + z
    }

    #[customlock("whatever")]
    pub fn fixed(x: u32, y: u32, z: u32) -> u32 {
        x + y + z
    }

    #[customlock("fancylock{x}")]
    pub fn one_for_each_x(x: u32, y: u32, z: u32) -> u32 {
        x + y + z
    }

    #[customlock(|x, y, _| format!("fancylock{}", x.min(y)))]
    pub fn computed(x: u32, y: u32, z: u32) -> u32 {
        x + y + z
    }
    // endregion
}

mod files {
    //! The twins that always use the file backend.

    // region: files
    use locks::{customfilelock, filelock, tryfilelock};

    #[filelock]
    pub fn one_on_this_machine(x: u32) -> u32 {
        x
    }

    #[tryfilelock]
    pub fn skipped_on_this_machine(x: u32) -> u32 {
        x
    }

    #[customfilelock("device/{x}", timeout = "5s")]
    pub fn one_for_each_device(x: u32) -> u32 {
        x
    }
    // endregion
}

// region: methods
use locks::{Locks, customlock};

struct Account {
    id: u64,
    balance: i64,
    locks: Locks,
}

impl Account {
    #[customlock("account/{self.id}", locks = self.locks, timeout = "5s")]
    async fn withdraw(&mut self, amount: i64) -> Result<i64, Refused> {
        if amount > self.balance {
            return Err(Refused::TooMuch);
        }
        self.balance -= amount;
        Ok(self.balance)
    }
}

#[derive(Debug)]
enum Refused {
    TooMuch,
    Lock(locks::Error),
}

impl From<locks::Error> for Refused {
    fn from(error: locks::Error) -> Self {
        Self::Lock(error)
    }
}
// endregion

mod tokens {
    //! A synchronous body that asks for its lock.

    // region: current
    use locks::{current, lock};

    #[lock]
    pub fn write_all(rows: &[u32], table: &mut Vec<(u64, u32)>) -> Option<usize> {
        for row in rows {
            let lock = current().filter(|lock| lock.is_held())?; // lost: stop here
            table.push((lock.fencing_token().get(), *row)); // the table refuses smaller tokens
        }
        Some(rows.len())
    }
    // endregion
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let url = format!("file:{}", directory.path().display());
    install(&url).await?;
    calls().await?;
    methods(&url).await?;
    scoped().await?;
    // region: close
    locks::default_locks()?.close().await?;
    // endregion
    Ok(())
}

async fn install(url: &str) -> locks::Result<()> {
    // region: install
    let locks = locks::connect(url).await?;
    locks::install(locks)?;
    // endregion
    Ok(())
}

async fn calls() -> locks::Result<()> {
    use forms::{computed, fixed, myfunc, one_for_each_x, skipped_if_running};
    // region: calls
    let sum = myfunc(1, 2, 3).await?;
    assert_eq!(sum, 6);

    match skipped_if_running(1, 2, 3).await? {
        Outcome::Ran(sum) => assert_eq!(sum, 6),
        Outcome::Skipped(busy) => println!("it runs already: {busy}"),
    }
    // endregion
    assert_eq!(fixed(1, 2, 3)? + one_for_each_x(1, 2, 3)? + computed(1, 2, 3)?, 18);
    let mut table = Vec::new();
    assert_eq!(tokens::write_all(&[1, 2], &mut table)?, Some(2));
    assert_eq!(table.len(), 2);
    assert_eq!(files::one_on_this_machine(1)? + files::one_for_each_device(1)?, 2);
    if files::skipped_on_this_machine(1)?.is_skipped() {
        println!("another run of this example was there first");
    }
    Ok(())
}

async fn methods(url: &str) -> Result<(), Box<dyn Error>> {
    let mut account = Account { id: 7, balance: 10, locks: locks::connect(url).await? };
    assert!(matches!(account.withdraw(7).await, Ok(3)));
    match account.withdraw(7).await {
        Err(Refused::TooMuch) => println!("refused"),
        Err(Refused::Lock(error)) => return Err(error.into()),
        Ok(balance) => println!("{balance} are left"),
    }
    Ok(())
}

async fn scoped() -> locks::Result<()> {
    use forms::myfunc;
    // region: scoped
    let locks: Locks = locks::connect("memory:").await?;
    let sum = with_default(&locks, async { myfunc(1, 2, 3).await }).await?;
    assert_eq!(sum, 6);
    // endregion
    Ok(())
}
