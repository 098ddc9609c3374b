#![doc = include_str!("../README.md")]

use proc_macro::TokenStream;

mod expand;
mod form;
mod function;
mod name;
mod options;
mod print;
mod returns;

use form::Form;

/// Runs the function under a lock that is named after it.
#[proc_macro_attribute]
pub fn lock(arguments: TokenStream, item: TokenStream) -> TokenStream {
    decorated(Form::LOCK, arguments, item)
}

/// Runs the function if a lock that is named after it is free, and skips it otherwise.
#[proc_macro_attribute]
pub fn trylock(arguments: TokenStream, item: TokenStream) -> TokenStream {
    decorated(Form::TRY_LOCK, arguments, item)
}

/// Runs the function under the lock of a name that may depend on its arguments.
#[proc_macro_attribute]
pub fn customlock(arguments: TokenStream, item: TokenStream) -> TokenStream {
    decorated(Form::CUSTOM_LOCK, arguments, item)
}

/// As [`lock`](macro@lock), always with the file backend.
#[proc_macro_attribute]
pub fn filelock(arguments: TokenStream, item: TokenStream) -> TokenStream {
    decorated(Form::FILE_LOCK, arguments, item)
}

/// As [`trylock`](macro@trylock), always with the file backend.
#[proc_macro_attribute]
pub fn tryfilelock(arguments: TokenStream, item: TokenStream) -> TokenStream {
    decorated(Form::TRY_FILE_LOCK, arguments, item)
}

/// As [`customlock`](macro@customlock), always with the file backend.
#[proc_macro_attribute]
pub fn customfilelock(arguments: TokenStream, item: TokenStream) -> TokenStream {
    decorated(Form::CUSTOM_FILE_LOCK, arguments, item)
}

fn decorated(form: Form, arguments: TokenStream, item: TokenStream) -> TokenStream {
    let expansion = expand::expand(form, arguments.into(), &item.into());
    print::if_wanted(&expansion);
    expansion.into()
}
