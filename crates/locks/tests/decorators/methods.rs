//! Methods, traits, generics.

use std::fmt::{Debug, Display};
use std::marker::PhantomData;
use std::sync::Arc;

use locks::{Locks, Outcome, current, customlock, lock};

use crate::{alone, memory};

struct Account<T> {
    id: T,
    balance: u32,
    locks: Locks,
}

impl<T: Display + Clone + Send + Sync> Account<T> {
    #[customlock("account/{self.id}", locks = self.locks)]
    fn by_reference(&self) -> T {
        self.id.clone()
    }

    #[customlock("account/{self.id}", locks = self.locks)]
    async fn by_reference_later(&self, more: u32) -> u32 {
        self.balance + more
    }

    #[customlock("account/{self.id}", locks = &self.locks, timeout = "5s")]
    async fn by_mutable(&mut self, more: u32) -> &mut u32 {
        self.balance += more;
        &mut self.balance
    }

    #[customlock(|this, more| format!("account/{}/{more}", this.id), locks = self.locks.clone())]
    fn by_mutable_now(&mut self, more: u32) -> &mut u32 {
        self.balance += more;
        &mut self.balance
    }

    #[customlock(Self::name_of, locks = self.locks, wait = false)]
    async fn by_value(self) -> (T, String) {
        (self.id, current().unwrap().name().to_owned())
    }

    #[customlock("account/{self.id}", locks = self.locks)]
    fn counted(self: Arc<Self>) -> usize {
        Arc::strong_count(&self)
    }

    #[customlock("accounts", locks = locks)]
    fn new(id: T, locks: &Locks) -> Self
    where
        T: PartialEq,
    {
        Self { id, balance: 0, locks: locks.clone() }
    }

    fn name_of(&self) -> String {
        format!("by value/{}", self.id)
    }
}

#[tokio::test]
async fn methods_of_a_generic_type() {
    let locks = memory().await;
    let mut account = Account::new("seven", &locks).unwrap();
    assert_eq!(account.by_reference().unwrap(), "seven");
    assert_eq!(account.by_reference_later(1).await.unwrap(), 1);
    *account.by_mutable(2).await.unwrap() += 1;
    *account.by_mutable_now(3).unwrap() += 1;
    assert_eq!(account.balance, 7);
    let outcome = account.by_value().await.unwrap();
    assert_eq!(outcome, Outcome::Ran(("seven", "by value/seven".to_owned())));
    let account = Arc::new(Account::new(7, &locks).unwrap());
    assert_eq!(account.counted().unwrap(), 1);
}

trait Job {
    type Output;

    fn run(&mut self) -> Result<Self::Output, locks::Error>;

    fn run_later(&self) -> impl Future<Output = locks::Result<u32>> + Send;

    #[customlock("default")]
    fn with_a_default(&self) -> u32 {
        7
    }
}

struct Plain<'a, T> {
    name: &'a str,
    kind: PhantomData<T>,
}

impl<T: Debug + Default + Sync> Job for Plain<'_, T> {
    type Output = T;

    #[customlock("job/{self.name}")]
    fn run(&mut self) -> Self::Output {
        T::default()
    }

    #[customlock("job/{self.name}")]
    async fn run_later(&self) -> u32 {
        7
    }
}

#[tokio::test]
async fn methods_of_traits() {
    alone(async {
        let mut plain = Plain::<u8> { name: "x", kind: PhantomData };
        assert_eq!(plain.run().unwrap(), 0);
        assert_eq!(plain.run_later().await.unwrap(), 7);
        assert_eq!(plain.with_a_default().unwrap(), 7);
    })
    .await;
}

#[lock]
async fn generic<'a, T, const N: usize>(list: [&'a T; N], extra: impl Into<String> + Send) -> (&'a T, String)
where
    T: Ord + Sync + ?Sized,
{
    (list.into_iter().max().unwrap(), extra.into())
}

#[lock]
pub(crate) fn not_send(number: *const u32) -> bool {
    number.is_null()
}

#[must_use]
#[inline]
#[lock]
#[doc(alias = "below")]
fn attributes(text: String) -> usize {
    text.len()
}

macro_rules! decorated {
    ($name:ident($argument:ident: $type:ty) -> $output:ty) => {
        #[customlock(|$argument| format!("{}", $argument))]
        fn $name($argument: $type) -> $output {
            Ok(format!("{}{}", $argument, current().is_some()))
        }
    };
}

decorated!(written_by_a_macro(x: &'static str) -> locks::Result<String>);

mod in_tests {
    //! With the attributes of tests.

    use locks::{current, customlock, filelock};

    use crate::memory;

    fn unique() -> String {
        format!("locks-test/{}", std::process::id())
    }

    #[customlock(unique, locks = memory().await)]
    #[tokio::test]
    async fn above() {
        assert!(current().is_some());
    }

    #[tokio::test]
    #[customlock(unique, locks = tokio::runtime::Runtime::new().unwrap().block_on(memory()))]
    async fn below() {
        // What the attribute above has made of it is a function that waits for all this.
        assert!(current().is_some());
    }

    #[test]
    #[filelock]
    fn plain() {
        assert!(current().is_some());
    }
}

#[tokio::test]
async fn all_sorts_of_signatures() {
    fn is_send<T: Send>(future: T) -> T {
        future
    }
    alone(async {
        let text = "text".to_owned();
        let (max, more) = is_send(generic(["a", "c", "b"], "more")).await.unwrap();
        assert_eq!((max, more), ("c", "more".to_owned()));
        assert!(!not_send(&raw const NUMBER).unwrap());
        assert_eq!(attributes(text).unwrap(), 4);
        assert_eq!(written_by_a_macro("x").unwrap(), "xtrue");
    })
    .await;
}

static NUMBER: u32 = 7;
