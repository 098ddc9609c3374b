//! Which lock a decorated function takes.

use locks::{current, customlock, lock, trylock};

use crate::alone;

/// The name of the lock that the caller runs under.
fn held() -> String {
    current().unwrap().name().to_owned()
}

#[lock]
async fn after_itself() -> String {
    held()
}

#[lock]
fn after_itself_too() -> String {
    held()
}

#[trylock]
async fn r#try() -> String {
    held()
}

mod inner {
    //! A module in between.

    #[locks::lock]
    pub(super) fn function() -> String {
        super::held()
    }
}

#[tokio::test]
async fn without_a_name_it_is_the_function() {
    alone(async {
        assert_eq!(after_itself().await.unwrap(), "decorators::names::after_itself");
        assert_eq!(after_itself_too().unwrap(), "decorators::names::after_itself_too");
        assert_eq!(r#try().await.unwrap().ran().unwrap(), "decorators::names::try");
        assert_eq!(inner::function().unwrap(), "decorators::names::inner::function");
    })
    .await;
}

struct Order {
    customer: Customer,
    parts: (u8, &'static str),
}

struct Customer {
    id: u32,
}

#[customlock("what{{ev}}er")]
fn fixed(_x: u32) -> String {
    held()
}

#[customlock("fancylock{x}")]
async fn argument(x: u32, y: u32, z: u32) -> String {
    format!("{} {y} {z}", held())
}

#[customlock("{order.customer.id:04}/{order.parts.0}-{ order.parts.1 }/{{{word:?}}}")]
fn fields(order: &Order, word: String) -> String {
    held() + &word
}

#[customlock(r"{left}\{right}{list:?}")]
fn patterns((left, mut right): (u32, u32), [first, ..]: [u8; 3], list: Vec<u8>) -> String {
    right += u32::from(first);
    format!("{} {right} {}", held(), list.len())
}

#[customlock("{x}")]
fn any_displayed(x: impl std::fmt::Display) -> String {
    drop(x);
    held()
}

/// The names that the expansion uses itself hide nothing.
#[customlock("{call}{output}")]
async fn hidden(call: u32, output: u32) -> u32 {
    call + output
}

#[tokio::test]
async fn text_holds_arguments() {
    alone(async {
        assert_eq!(fixed(1).unwrap(), "what{ev}er");
        assert_eq!(argument(7, 8, 9).await.unwrap(), "fancylock7 8 9");
        let order = Order { customer: Customer { id: 42 }, parts: (1, "a") };
        assert_eq!(fields(&order, "w".to_owned()).unwrap(), "0042/1-a/{\"w\"}w");
        assert_eq!(patterns((1, 2), [3, 4, 5], vec![6]).unwrap(), r"1\2[6] 5 1");
        assert_eq!(any_displayed("abc".to_owned()).unwrap(), "abc");
        assert_eq!(hidden(3, 4).await.unwrap(), 7);
    })
    .await;
}

#[customlock(|x, _y, _z| format!("fancylock{x}"))]
async fn closure(x: String, y: u32, z: Vec<u32>) -> String {
    format!("{} {x}{y}{}", held(), z.len())
}

/// The types of the arguments are known in the closure, and it may return early.
#[customlock(|x, n: &u32| -> String {
    if x.is_empty() {
        return "nothing".to_owned();
    }
    x.chars().take(usize::try_from(*n).unwrap_or(usize::MAX)).collect()
})]
fn typed(x: String, n: u32) -> String {
    format!("{} {x}{n}", held())
}

#[customlock(|x| x)]
fn borrowed(x: String) -> String {
    format!("{} {}", held(), x)
}

mod naming {
    //! A function of the arguments.

    pub(super) fn joined(x: &str, y: &u32) -> String {
        format!("{x}-{y}")
    }
}

#[customlock(naming::joined)]
fn function(x: &str, y: u32) -> String {
    format!("{} {x}", y) + &held()
}

#[customlock(naming::joined, timeout = "1s")]
fn function_with_options(x: String, y: u32) -> String {
    drop(x);
    format!("{y}") + &held()
}

#[customlock(|| "constant")]
fn without_arguments() -> String {
    held()
}

#[tokio::test]
async fn a_closure_or_a_function_makes_a_name() {
    alone(async {
        assert_eq!(closure("a".to_owned(), 2, vec![3]).await.unwrap(), "fancylocka a21");
        assert_eq!(typed("abcd".to_owned(), 2).unwrap(), "ab abcd2");
        assert_eq!(typed(String::new(), 2).unwrap(), "nothing 2");
        assert_eq!(borrowed("b".to_owned()).unwrap(), "b b");
        assert_eq!(function("a", 1).unwrap(), "1 aa-1");
        assert_eq!(function_with_options("a".to_owned(), 1).unwrap(), "1a-1");
        assert_eq!(without_arguments().unwrap(), "constant");
    })
    .await;
}

#[customlock("{x}", label = "of {x}")]
async fn labelled(x: String) -> Option<String> {
    drop(x);
    let name = labelled_try().await.ok()?;
    Some(name)
}

#[customlock("a", label = "other".to_owned())]
async fn labelled_try() -> String {
    held()
}

#[tokio::test]
async fn a_bad_name_is_an_error_value() {
    alone(async {
        assert_eq!(labelled("b".to_owned()).await.unwrap().unwrap(), "a");
        let error = labelled(String::new()).await.unwrap_err();
        assert_eq!(error.kind(), locks::ErrorKind::InvalidName);
        let error = any_displayed("\0").unwrap_err();
        assert_eq!(error.kind(), locks::ErrorKind::InvalidName);
    })
    .await;
}
