//! From a decorated function to one that calls the library.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens as _, format_ident, quote, quote_spanned};
use syn::ext::IdentExt as _;
use syn::spanned::Spanned as _;
use syn::{Expr, ItemFn, Result, ReturnType, Signature, Type, parse_quote};

use crate::form::Form;
use crate::function::{self, Shape};
use crate::name;
use crate::options::{OnLost, Options, Time};
use crate::returns::{Returns, nameable};

/// What stands in the function's place. After a mistake it is the function as it was, beside the complaint, so that those who call it are not
/// complained of, too.
pub(crate) fn expand(form: Form, arguments: TokenStream, item: &TokenStream) -> TokenStream {
    decorate(form, arguments, item).unwrap_or_else(|error| {
        let complaint = error.into_compile_error();
        quote!(#complaint #item)
    })
}

fn decorate(form: Form, arguments: TokenStream, item: &TokenStream) -> Result<TokenStream> {
    let mut function = function::parse(form, item)?;
    let options = Options::parse(form, arguments)?;
    let shape = function::check(form, &options, &function)?;
    // Ours alone: no argument of this name is hidden by it.
    let call = Ident::new("call", Span::mixed_site());
    let (made, beside) = make_call(form, &options, &function)?;
    // A statement of its own: what its parts borrow is free again before the body takes the arguments.
    let made = quote!(let #call = #made;);
    let run = match (&shape, options.tries) {
        (Shape::Sync, false) => quote!(run_blocking),
        (Shape::Sync, true) => quote!(try_run_blocking),
        (_, false) => quote!(run),
        (_, true) => quote!(try_run),
    };
    match shape {
        Shape::Sync => {
            let output = output(&function.sig);
            let returns = Returns::of(&output, &options);
            let (inside, block) = (nameable(&output), &function.block);
            let called = returns.convert(quote!(#call.#run(move || -> #inside #block)));
            function.block = parse_quote!({ #made #called });
            set_output(&mut function.sig, &returns.output);
        }
        Shape::Async => {
            let output = output(&function.sig);
            let returns = Returns::of(&output, &options);
            let (inside, block) = (nameable(&output), &function.block);
            // The body says first what it returns, so that its `?` and its early returns know.
            let output = Ident::new("output", Span::mixed_site());
            let body = quote!(async move {
                if let ::core::option::Option::Some(#output) = ::core::option::Option::None::<#inside> {
                    return #output;
                }
                #block
            });
            let called = returns.convert(quote!(#call.#run(#body).await));
            function.block = parse_quote!({ #made #called });
            set_output(&mut function.sig, &returns.output);
        }
        Shape::Boxed => {
            let Some(output) = function::boxed_output_mut(&mut function) else {
                return Err(syn::Error::new_spanned(&function.sig, "this shape of function is not known"));
            };
            let returns = Returns::of(output, &options);
            *output = returns.output.clone();
            if let Some(body) = function::boxed_async_mut(&mut function) {
                let called = returns.convert(quote!(#call.#run(#body).await));
                *body = parse_quote!(async move { #made #called });
            }
        }
    }
    Ok(quote!(#beside #function))
}

/// An expression that makes the call, and an item to stand beside the function.
fn make_call(form: Form, options: &Options, function: &ItemFn) -> Result<(TokenStream, TokenStream)> {
    let krate = &options.krate;
    let (name, beside) = match &options.name {
        Some(name) => (name::custom(name, &function.sig)?, TokenStream::new()),
        None => name_of_function(form, function),
    };
    let mut call = match &options.locks {
        Some(locks) => {
            let (place, locks) = (Span::call_site().located_at(locks.span()), operand(locks));
            let borrowed = quote_spanned!(place=> &#locks);
            quote!(#krate::decorated::on(#borrowed, #name))
        }
        None if form.files => quote!(#krate::decorated::on_files(#name)),
        None => quote!(#krate::decorated::on_default(#name)),
    };
    if options.shared {
        call.extend(quote!(.shared()));
    }
    if let Some(permits) = &options.permits {
        call.extend(quote!(.permits(#permits)));
    }
    if let Some(ttl) = &options.ttl {
        let ttl = time(ttl);
        call.extend(quote!(.ttl(#ttl)));
    }
    if let Some(timeout) = &options.timeout {
        let timeout = time(timeout);
        call.extend(quote!(.timeout(#timeout)));
    }
    if let Some(label) = &options.label {
        let label = name::label(label, &function.sig)?;
        call.extend(quote!(.label(#label)));
    }
    if let Some((OnLost::Continue, _)) = options.on_lost {
        call.extend(quote!(.go_on_when_lost()));
    }
    Ok((call, beside))
}

/// The name of a function that is not given one, and the constant that holds it. The constant stands beside the function: in the body of an
/// `impl`, where it would have to be found by another path, the function does not compile.
fn name_of_function(form: Form, function: &ItemFn) -> (TokenStream, TokenStream) {
    let ident = &function.sig.ident;
    let constant = format_ident!(
        "a_method_must_be_given_a_name_with_{}__{}",
        form.custom(),
        ident.unraw(),
        span = ident.span()
    );
    let name = format!("::{}", ident.unraw());
    let conditions = function.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    let beside = quote! {
        #(#conditions)*
        #[doc(hidden)]
        #[allow(dead_code, non_upper_case_globals)]
        const #constant: &::core::primitive::str = ::core::concat!(::core::module_path!(), #name);
    };
    (quote!(#constant), beside)
}

/// `locks = …` as what `&` can stand before.
fn operand(locks: &Expr) -> TokenStream {
    match locks {
        Expr::Call(_)
        | Expr::Field(_)
        | Expr::Group(_)
        | Expr::MethodCall(_)
        | Expr::Paren(_)
        | Expr::Path(_) => locks.to_token_stream(),
        other => quote!((#other)),
    }
}

fn time(time: &Time) -> TokenStream {
    match time {
        Time::Fixed(duration) => {
            let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
            quote!(::core::time::Duration::new(#seconds, #nanos))
        }
        Time::Computed(expression) => expression.to_token_stream(),
    }
}

/// What the function returns as written.
fn output(signature: &Signature) -> Type {
    match &signature.output {
        ReturnType::Default => parse_quote!(()),
        ReturnType::Type(_, output) => (**output).clone(),
    }
}

fn set_output(signature: &mut Signature, output: &Type) {
    signature.output = parse_quote!(-> #output);
}

#[cfg(test)]
mod tests {
    use proc_macro2::TokenTree;

    use super::*;
    use crate::form::Naming;

    const FORMS: [Form; 6] = [
        Form::LOCK,
        Form::TRY_LOCK,
        Form::CUSTOM_LOCK,
        Form::FILE_LOCK,
        Form::TRY_FILE_LOCK,
        Form::CUSTOM_FILE_LOCK,
    ];

    const FUNCTIONS: [&str; 6] = [
        "fn f(x: u32) {}",
        "fn f(x: u32) -> Option<u32> { None }",
        "async fn f(x: &mut u32) -> Result<&u32, E> { Ok(x) }",
        "async fn f(x: u32) -> fmt::Result { Ok(()) }",
        "fn f<T>(x: T) -> impl Iterator<Item = T> where T: Clone { iter::once(x) }",
        "fn f<'a>(x: &'a u32) -> Pin<Box<dyn Future<Output = u32> + Send + 'a>> { Box::pin(async move { *x }) }",
    ];

    const OPTIONS: [&str; 5] = [
        "",
        "shared, ttl = \"5s\"",
        "permits = 3, on_lost = \"continue\"",
        "label = \"for {x}\", crate = their::locks",
        "returns = Answer",
    ];

    fn tokens(text: &str) -> TokenStream {
        text.parse().unwrap()
    }

    fn words(stream: TokenStream, found: &mut Vec<String>) {
        for token in stream {
            match token {
                TokenTree::Group(group) => words(group.stream(), found),
                TokenTree::Ident(word) => found.push(word.to_string()),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    #[test]
    fn nothing_in_an_expansion_can_panic() {
        let panicking = [
            "unwrap",
            "expect",
            "panic",
            "unreachable",
            "todo",
            "unimplemented",
            "assert",
            "unsafe",
            "compile_error",
        ];
        for form in FORMS {
            for function in FUNCTIONS {
                for options in OPTIONS {
                    let name = if form.naming == Naming::Custom { "\"lock of {x}\", " } else { "" };
                    let expansion = expand(form, tokens(&format!("{name}{options}")), &tokens(function));
                    let mut found = Vec::new();
                    words(expansion.clone(), &mut found);
                    assert!(!found.iter().any(|word| panicking.contains(&word.as_str())), "{expansion}");
                    assert_eq!(
                        found.iter().filter(|word| *word == "decorated").count(),
                        calls(&found),
                        "{expansion}"
                    );
                }
            }
        }
    }

    /// One path into the library for each of its functions that is called: the expansion has no logic of its own.
    fn calls(found: &[String]) -> usize {
        let known = ["on_default", "on_files", "flat", "flat_outcome", "Returned", "AnyResult"];
        found.iter().filter(|word| known.contains(&word.as_str())).count()
    }

    #[test]
    fn expansions_are_what_the_pages_say() {
        let function = tokens("async fn nightly_report(x: u32) -> u32 { 42 }");
        let expansion = expand(Form::CUSTOM_LOCK, tokens("\"x{x}\", timeout = \"5s\""), &function);
        let expected = "async fn nightly_report(x: u32) -> ::core::result::Result<u32, ::locks::Error> {
            let call = ::locks::decorated::on_default(::std::format!(\"x{}\", x)).timeout(::core::time::Duration::new(5u64, 0u32));
            call.run(async move {
                if let ::core::option::Option::Some(output) = ::core::option::Option::None::<u32> { return output; }
                { 42 }
            }).await
        }";
        assert_eq!(dense(&expansion), dense(&tokens(expected)));
        let function = tokens("fn second(x: u32, y: u32) -> Option<u32> { None }");
        let expansion = expand(Form::TRY_FILE_LOCK, TokenStream::new(), &function);
        let expected = "fn second(x: u32, y: u32) -> ::core::result::Result< ::locks::Outcome<Option<u32> >, ::locks::Error> {
            let call = ::locks::decorated::on_files(a_method_must_be_given_a_name_with_customfilelock__second);
            call.try_run_blocking(move || -> Option<u32> { None })
        }";
        assert!(dense(&expansion).ends_with(&dense(&tokens(expected))), "{expansion}");
    }

    /// Without the white space, which depends on how the tokens came about.
    fn dense(stream: &TokenStream) -> String {
        stream.to_string().replace(char::is_whitespace, "")
    }

    #[test]
    fn no_text_makes_the_macro_panic() {
        let parts = ["{", "}", "{{", "x", "é", ".", "0", ":", "$", "#", " ", "\\\"", "r#", "self", "𝄞"];
        let function = tokens("fn f(&self, x: u32) {}");
        for one in parts {
            for two in parts {
                for three in parts {
                    let name = format!("\"{one}{two}{three}x{three}{one}\"");
                    let Ok(arguments) = name.parse::<TokenStream>() else { continue };
                    let expansion = expand(Form::CUSTOM_LOCK, arguments.clone(), &function);
                    assert!(!expansion.is_empty());
                    assert!(!expand(Form::LOCK, arguments, &function).is_empty());
                }
            }
        }
    }
}
