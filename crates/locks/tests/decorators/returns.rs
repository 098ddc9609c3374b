//! What decorated functions return, form by form.

use std::fmt;

use locks::{Busy, ErrorKind, Outcome, customlock, lock, trylock};

use crate::alone;

/// An error of a program's own.
#[derive(Debug, PartialEq)]
struct Own(String);

impl From<locks::Error> for Own {
    fn from(error: locks::Error) -> Self {
        Self(format!("lock: {:?}", error.kind()))
    }
}

impl From<std::num::ParseIntError> for Own {
    fn from(error: std::num::ParseIntError) -> Self {
        Self(error.to_string())
    }
}

mod alias {
    //! A `Result` without parameters, and one with one.

    pub(super) type Result<T = u8, E = super::Own> = std::result::Result<T, E>;
}

type Answer = Result<u32, Own>;

#[lock]
async fn nothing() {}

#[lock]
fn nothing_now() {}

#[lock]
async fn value() -> u32 {
    7
}

#[trylock]
async fn tried() -> Option<u32> {
    None
}

#[trylock]
fn tried_now() -> Option<u32> {
    None
}

#[lock]
async fn result(text: &str) -> Result<u32, Own> {
    if text == "early" {
        return Ok(0);
    }
    Ok(text.parse::<u32>()? + 1)
}

#[lock]
fn result_now(text: &str) -> alias::Result<u32> {
    if text == "early" {
        return Ok(0);
    }
    Ok(text.parse::<u32>()? + 1)
}

#[trylock]
async fn tried_result(text: &str) -> Result<u32, Own> {
    Ok(text.parse()?)
}

#[trylock]
fn tried_alias(text: &str) -> alias::Result {
    Ok(text.parse()?)
}

#[trylock]
async fn tried_alias_of_one(text: &str) -> alias::Result<u32> {
    Ok(text.parse()?)
}

#[lock]
fn formatted() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    Err("own")?;
    Ok(())
}

#[tokio::test]
async fn the_table_of_the_page() {
    alone(async {
        let none: locks::Result<()> = nothing().await;
        none.unwrap();
        nothing_now().unwrap();
        assert_eq!(value().await.unwrap(), 7);
        assert_eq!(tried().await.unwrap(), Outcome::Ran(None));
        assert_eq!(tried_now().unwrap(), Outcome::Ran(None));
        assert_eq!(result("1").await, Ok(2));
        assert_eq!(result("early").await, Ok(0));
        assert_eq!(result("x").await, Err(Own("invalid digit found in string".to_owned())));
        assert_eq!(result_now("1"), Ok(2));
        assert_eq!(result_now("early"), Ok(0));
        assert_eq!(result_now("x"), Err(Own("invalid digit found in string".to_owned())));
        assert_eq!(tried_result("1").await, Ok(Outcome::Ran(1)));
        tried_result("x").await.unwrap_err();
        assert_eq!(tried_alias("1"), Ok(Outcome::Ran(1)));
        assert_eq!(tried_alias_of_one("1").await, Ok(Outcome::Ran(1)));
        assert_eq!(formatted().unwrap_err().to_string(), "own");
    })
    .await;
}

#[lock(returns = Answer)]
async fn aliased(text: &str) -> Answer {
    Ok(text.parse()?)
}

#[lock(returns = Result<Result<u32, fmt::Error>, locks::Error>)]
fn nested() -> Result<u32, fmt::Error> {
    Err(fmt::Error)
}

#[lock(returns = Result<u32, Own>)]
async fn converted() -> u32 {
    7
}

#[customlock("tried", wait = false, returns = Result<Outcome<u32>, Own>)]
async fn converted_try(text: &str) -> Answer {
    Ok(text.parse()?)
}

#[tokio::test]
async fn returns_overrides() {
    alone(async {
        assert_eq!(aliased("7").await, Ok(7));
        assert_eq!(nested().unwrap(), Err(fmt::Error));
        assert_eq!(converted().await, Ok(7));
        assert_eq!(converted_try("7").await, Ok(Outcome::Ran(7)));
    })
    .await;
}

#[lock]
fn opaque(limit: u32) -> impl Iterator<Item = u32> + Send {
    (0..limit).map(|x| x * 2)
}

#[lock]
async fn opaque_later<'a>(words: &'a [&'a str]) -> impl Iterator<Item = String> + use<'a> {
    words.iter().map(|word| word.to_uppercase())
}

#[lock]
async fn opaque_in_a_result(ok: bool) -> Result<impl Iterator<Item = u32>, Own> {
    if !ok {
        return Err(Own("no".to_owned()));
    }
    Ok(0..3)
}

#[trylock]
fn opaque_try() -> Result<impl fmt::Display, Own> {
    Ok("shown")
}

#[lock]
async fn boxed(first: bool) -> Box<dyn fmt::Display + Send> {
    if first {
        return Box::new(1);
    }
    Box::new("two")
}

#[lock]
fn boxed_now(first: bool) -> Box<dyn fmt::Display + Send> {
    if first {
        return Box::new(1);
    }
    Box::new("two")
}

#[lock]
async fn borrowed(list: &mut Vec<u32>) -> &mut u32 {
    list.push(7);
    list.last_mut().unwrap()
}

#[lock]
fn borrowed_now<'a>(list: &'a mut Vec<u32>, _other: &str) -> &'a [u32] {
    list.push(7);
    list
}

#[lock]
async fn never_by_the_end(stop: bool) -> u32 {
    loop {
        if stop {
            return 7;
        }
    }
}

#[tokio::test]
async fn types_that_can_not_be_named_and_those_that_borrow() {
    alone(async {
        assert_eq!(opaque(3).unwrap().sum::<u32>(), 6);
        assert_eq!(opaque_later(&["a"]).await.unwrap().collect::<String>(), "A");
        assert_eq!(opaque_in_a_result(true).await.unwrap().count(), 3);
        assert!(opaque_in_a_result(false).await.is_err());
        assert_eq!(opaque_try().unwrap().ran().unwrap().to_string(), "shown");
        assert_eq!(boxed(true).await.unwrap().to_string() + &boxed(false).await.unwrap().to_string(), "1two");
        assert_eq!(boxed_now(true).unwrap().to_string() + &boxed_now(false).unwrap().to_string(), "1two");
        let mut list = vec![1];
        *borrowed(&mut list).await.unwrap() += 1;
        assert_eq!(borrowed_now(&mut list, "").unwrap(), [1, 8, 7]);
        assert_eq!(never_by_the_end(true).await.unwrap(), 7);
    })
    .await;
}

#[customlock("one", timeout = "20ms")]
async fn impatient() -> Result<u32, Own> {
    Ok(1)
}

#[customlock("one", timeout = "0s")]
fn impatient_now() -> u32 {
    1
}

#[customlock("one", wait = false)]
async fn skipped() -> u32 {
    1
}

#[customlock("one", wait = false)]
fn skipped_now() -> Result<u32, Own> {
    Ok(1)
}

#[tokio::test]
async fn a_busy_lock_is_told() {
    let locks = crate::memory().await;
    locks::with_default(&locks, async {
        let guard = locks.lock("one").acquire().await.unwrap();
        assert_eq!(impatient().await, Err(Own("lock: Timeout".to_owned())));
        assert_eq!(impatient_now().unwrap_err().kind(), ErrorKind::Timeout);
        let Outcome::Skipped(Busy::Held { by: Some(by) }) = skipped().await.unwrap() else {
            panic!("it ran")
        };
        assert_eq!(by.pid, Some(std::process::id()));
        assert!(skipped_now().unwrap().is_skipped());
        drop(guard);
        assert_eq!(impatient().await, Ok(1));
        assert_eq!(skipped_now(), Ok(Outcome::Ran(1)));
    })
    .await;
}
