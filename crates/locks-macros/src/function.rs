//! The decorated function: what shape it has, and what can't be decorated.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{
    Error, Expr, ExprAsync, GenericArgument, ItemFn, PathArguments, PathSegment, Result, ReturnType,
    Signature, Stmt, TraitItemFn, Type, TypeParamBound,
};

use crate::form::{Form, Naming};
use crate::options::{OnLost, Options};

/// How the body runs.
pub(crate) enum Shape {
    /// `fn`.
    Sync,
    /// `async fn`.
    Async,
    /// What `async_trait` made of an `async fn`: it returns `Box::pin(async move { … })`.
    Boxed,
}

/// The function that an attribute stands on.
///
/// # Errors
///
/// On the item, if it is none.
pub(crate) fn parse(form: Form, item: &TokenStream) -> Result<ItemFn> {
    let attribute = form.attribute;
    match syn::parse2::<ItemFn>(item.clone()) {
        Ok(function) => Ok(function),
        Err(error) => {
            if let Ok(declared) = syn::parse2::<TraitItemFn>(item.clone())
                && declared.default.is_none()
            {
                let what = format!("#[{attribute}] needs a body: it goes on the implementation");
                return Err(Error::new_spanned(declared.sig, what));
            }
            if item.clone().into_iter().any(|token| is_fn(&token)) {
                return Err(error);
            }
            Err(Error::new_spanned(item, format!("#[{attribute}] goes on a function")))
        }
    }
}

fn is_fn(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Ident(word) if word == "fn")
}

/// The shape of a function that can be decorated.
///
/// # Errors
///
/// Everything that can't be, each on its own token.
pub(crate) fn check(form: Form, options: &Options, function: &ItemFn) -> Result<Shape> {
    let mut complaints = Complaints(None);
    let attribute = form.attribute;
    let signature = &function.sig;
    if let Some(constness) = &signature.constness {
        complaints.add(constness.span, "a const fn can't wait for a lock");
    }
    if let Some(abi) = &signature.abi
        && abi.name.as_ref().is_none_or(|name| name.value() != "Rust")
    {
        complaints.add(
            abi.extern_token.span,
            "an extern fn can't return the error of a lock; decorate a function that it calls",
        );
    }
    if let ReturnType::Type(_, output) = &signature.output
        && matches!(**output, Type::Never(_))
    {
        complaints.add_spanned(output, "a function that never returns would never give its lock back");
    }
    if form.naming == Naming::Function
        && let Some(place) = sign_of_a_method(signature)
    {
        let what = format!(
            "a method's lock must be given a name, since no type has a stable one: #[{}(\"a name\"{})]",
            form.custom(),
            if form.tries { ", wait = false" } else { "" },
        );
        complaints.add(place, &what);
    }
    let shape = match (&signature.asyncness, boxed_output(function)) {
        (Some(_), _) => Shape::Async,
        (None, Some(_)) => Shape::Boxed,
        (None, None) => Shape::Sync,
    };
    if let (Shape::Sync, ReturnType::Type(_, output)) = (&shape, &signature.output)
        && is_future(output)
    {
        let what =
            format!("this function is over before its future runs: #[{attribute}] goes on an `async fn`");
        complaints.add_spanned(output, &what);
    }
    if let (Shape::Sync, Some((OnLost::Cancel, span))) = (&shape, options.on_lost) {
        complaints.add(
            span,
            "a synchronous body can't be stopped; it can ask `locks::current()` whether it still holds the lock",
        );
    }
    complaints.0.map_or(Ok(shape), Err)
}

/// Where a signature says that it is a method's, if it does: `self`, or `Self`.
fn sign_of_a_method(signature: &Signature) -> Option<Span> {
    if let Some(receiver) = signature.receiver() {
        return Some(receiver.self_token.span);
    }
    find_self(signature.to_token_stream())
}

fn find_self(tokens: TokenStream) -> Option<Span> {
    tokens.into_iter().find_map(|token| match token {
        TokenTree::Ident(word) if word == "Self" => Some(word.span()),
        TokenTree::Group(group) => find_self(group.stream()),
        _ => None,
    })
}

/// All that is wrong, as one error.
struct Complaints(Option<Error>);

impl Complaints {
    fn add(&mut self, span: Span, what: &str) {
        self.add_error(Error::new(span, what));
    }

    fn add_spanned(&mut self, place: impl ToTokens, what: &str) {
        self.add_error(Error::new_spanned(place, what));
    }

    fn add_error(&mut self, error: Error) {
        match &mut self.0 {
            Some(all) => all.combine(error),
            None => self.0 = Some(error),
        }
    }
}

/// The type that a function of the shape [`Shape::Boxed`] will have returned when its future has run.
fn boxed_output(function: &ItemFn) -> Option<&Type> {
    let ReturnType::Type(_, output) = &function.sig.output else { return None };
    boxed_async(function.block.stmts.last()?)?;
    future_in_pin(output)
}

/// [`boxed_output`], to be replaced.
pub(crate) fn boxed_output_mut(function: &mut ItemFn) -> Option<&mut Type> {
    let ReturnType::Type(_, output) = &mut function.sig.output else { return None };
    let Type::TraitObject(object) = type_argument_mut(type_argument_mut(output, "Pin")?, "Box")? else {
        return None;
    };
    object.bounds.iter_mut().find_map(|bound| match bound {
        TypeParamBound::Trait(bound) => future_output_mut(bound.path.segments.last_mut()?),
        _ => None,
    })
}

/// The async block in `Box::pin(async move { … })`.
fn boxed_async(statement: &Stmt) -> Option<&ExprAsync> {
    let Stmt::Expr(Expr::Call(call), None) = statement else { return None };
    let Expr::Path(function) = &*call.func else { return None };
    let names: Vec<String> =
        function.path.segments.iter().rev().take(2).map(|part| part.ident.to_string()).collect();
    match call.args.first()? {
        Expr::Async(block) if names == ["pin", "Box"] => Some(block),
        _ => None,
    }
}

/// [`boxed_async`], to be replaced.
pub(crate) fn boxed_async_mut(function: &mut ItemFn) -> Option<&mut ExprAsync> {
    let statement = function.block.stmts.last_mut()?;
    boxed_async(statement)?;
    let Stmt::Expr(Expr::Call(call), None) = statement else { return None };
    match call.args.first_mut()? {
        Expr::Async(block) => Some(block),
        _ => None,
    }
}

/// The output of the future in `Pin<Box<dyn Future<Output = T>>>`.
fn future_in_pin(output: &Type) -> Option<&Type> {
    let Type::TraitObject(object) = type_argument(type_argument(output, "Pin")?, "Box")? else { return None };
    object.bounds.iter().find_map(future_output)
}

/// Whether this is a future, as far as a type's name can tell.
fn is_future(output: &Type) -> bool {
    match output {
        Type::ImplTrait(bounds) => bounds.bounds.iter().any(is_future_bound),
        Type::Path(path) => path.path.segments.last().is_some_and(|last| {
            last.ident == "BoxFuture" || last.ident == "LocalBoxFuture" || future_in_pin(output).is_some()
        }),
        Type::Group(group) => is_future(&group.elem),
        Type::Paren(paren) => is_future(&paren.elem),
        _ => false,
    }
}

fn is_future_bound(bound: &TypeParamBound) -> bool {
    matches!(bound, TypeParamBound::Trait(bound)
        if bound.path.segments.last().is_some_and(|last| last.ident == "Future" || last.ident == "IntoFuture"))
}

fn future_output(bound: &TypeParamBound) -> Option<&Type> {
    let TypeParamBound::Trait(bound) = bound else { return None };
    let last = bound.path.segments.last().filter(|last| last.ident == "Future")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::AssocType(output) if output.ident == "Output" => Some(&output.ty),
        _ => None,
    })
}

fn future_output_mut(segment: &mut PathSegment) -> Option<&mut Type> {
    if segment.ident != "Future" {
        return None;
    }
    let PathArguments::AngleBracketed(arguments) = &mut segment.arguments else { return None };
    arguments.args.iter_mut().find_map(|argument| match argument {
        GenericArgument::AssocType(output) if output.ident == "Output" => Some(&mut output.ty),
        _ => None,
    })
}

/// `T` in `Name<T>`.
fn type_argument<'a>(outer: &'a Type, name: &str) -> Option<&'a Type> {
    let Type::Path(path) = outer else { return None };
    let last = path.path.segments.last().filter(|last| last.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(inner) => Some(inner),
        _ => None,
    })
}

/// [`type_argument`], to be replaced.
pub(crate) fn type_argument_mut<'a>(outer: &'a mut Type, name: &str) -> Option<&'a mut Type> {
    let Type::Path(path) = outer else { return None };
    let last = path.path.segments.last_mut().filter(|last| last.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &mut last.arguments else { return None };
    arguments.args.iter_mut().find_map(|argument| match argument {
        GenericArgument::Type(inner) => Some(inner),
        _ => None,
    })
}
