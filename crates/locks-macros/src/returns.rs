//! What the decorated function returns.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::visit_mut::{self, VisitMut};
use syn::{Path, Type, parse_quote};

use crate::function::type_argument_mut;
use crate::options::Options;

/// The type that the decorated function returns, and how it is made of what the call gives.
pub(crate) struct Returns {
    pub(crate) output: Type,
    with: Option<TokenStream>,
}

impl Returns {
    /// For a body that gives `output`.
    pub(crate) fn of(output: &Type, options: &Options) -> Self {
        let krate = &options.krate;
        if let Some(output) = &options.returns {
            return Self {
                output: output.clone(),
                with: Some(quote!(#krate::decorated::Returned::returned)),
            };
        }
        match (is_result(output), options.tries) {
            (false, false) => {
                Self { output: parse_quote!(::core::result::Result<#output, #krate::Error>), with: None }
            }
            (false, true) => {
                let output = parse_quote!(::core::result::Result<#krate::Outcome<#output>, #krate::Error>);
                Self { output, with: None }
            }
            (true, false) => {
                let with = quote_spanned!(place(output)=> #krate::decorated::flat);
                Self { output: output.clone(), with: Some(with) }
            }
            (true, true) => {
                let with = quote_spanned!(place(output)=> #krate::decorated::flat_outcome);
                Self { output: tried(output, krate), with: Some(with) }
            }
        }
    }

    /// What is returned, made of what the call gives.
    pub(crate) fn convert(&self, called: TokenStream) -> TokenStream {
        match &self.with {
            Some(with) => quote!(#with(#called)),
            None => called,
        }
    }
}

/// Where the compiler is to complain of what can't be made into this type.
fn place(output: &Type) -> Span {
    Span::call_site().located_at(output.span())
}

/// The type as it can be named inside the body, where `impl Trait` can't be.
pub(crate) fn nameable(output: &Type) -> Type {
    struct Hide;

    impl VisitMut for Hide {
        fn visit_type_mut(&mut self, each: &mut Type) {
            match each {
                Type::ImplTrait(_) => *each = parse_quote!(_),
                other => visit_mut::visit_type_mut(self, other),
            }
        }
    }

    let mut output = output.clone();
    Hide.visit_type_mut(&mut output);
    output
}

/// Whether the last part of the type's path is `Result`.
fn is_result(output: &Type) -> bool {
    match output {
        Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == "Result"),
        Type::Group(group) => is_result(&group.elem),
        Type::Paren(paren) => is_result(&paren.elem),
        _ => false,
    }
}

/// A `Result` with an outcome around what it is a result of.
fn tried(result: &Type, krate: &Path) -> Type {
    match result {
        Type::Group(group) => tried(&group.elem, krate),
        Type::Paren(paren) => tried(&paren.elem, krate),
        _ => {
            let mut tried = result.clone();
            match type_argument_mut(&mut tried, "Result") {
                Some(output) => {
                    *output = parse_quote!(#krate::Outcome<#output>);
                    tried
                }
                None => parse_quote!(<#result as #krate::decorated::AnyResult>::Tried),
            }
        }
    }
}
