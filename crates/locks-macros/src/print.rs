//! Shows expansions to those who want to see them.

use proc_macro2::TokenStream;

/// Names the functions whose expansion is printed; `1` is all.
const VARIABLE: &str = "LOCKS_EXPAND";

/// Prints the expansion of a function to the standard error, if the environment asks for it while the program is compiled.
#[expect(clippy::print_stderr, reason = "a macro has no other way to show something")]
pub(crate) fn if_wanted(expansion: &TokenStream) {
    let Ok(wanted) = std::env::var(VARIABLE) else { return };
    let text = expansion.to_string();
    if wants(&wanted, &text) {
        eprintln!("{text}");
    }
}

/// Whether `wanted` is everything, or a function in this text.
fn wants(wanted: &str, text: &str) -> bool {
    let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    wanted == "1" || words.by_ref().any(|word| word == "fn") && words.next() == Some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_one_function() {
        let text = "const x : u8 = 1 ; pub async fn myfunc (x : u32) { }";
        assert!(wants("1", text) && wants("myfunc", text));
        assert!(!wants("", text) && !wants("x", text) && !wants("my", text));
    }
}
