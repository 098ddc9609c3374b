//! What the decorators refuse, and where the complaint points; and what they accept.

/// To write down what is said now: `TRYBUILD=overwrite`.
#[test]
fn misuse_is_refused_by_the_compiler() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/refused/*.rs");
    cases.pass("tests/accepted/*.rs");
}
