//! The lock's name, made of the function's arguments.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens as _, quote};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};
use syn::{
    Error, Expr, ExprClosure, FnArg, Ident, LitStr, Member, Pat, PatIdent, PatType, Result, Signature,
};

use crate::options::text;

/// The longest name, in bytes, as the library has it.
const MAX_BYTES: usize = 1024;

/// An expression for the name that the attribute gives.
///
/// # Errors
///
/// On the token that is wrong.
pub(crate) fn custom(name: &Expr, signature: &Signature) -> Result<TokenStream> {
    if let Some(text) = text(name) {
        let format = Format::parse(text, &Arguments::of(signature))?;
        if format.values.is_empty() {
            check(text, &format.text)?;
        }
        return Ok(format.expand(text.span()));
    }
    match name {
        Expr::Closure(closure) => of_closure(closure, signature),
        Expr::Path(function) => {
            let arguments = passed(signature)?;
            Ok(quote!(#function(#(#arguments),*)))
        }
        Expr::Group(group) => custom(&group.expr, signature),
        other => {
            let what = "a lock's name is text, which may hold {arguments}, or a function or closure of the arguments";
            Err(Error::new_spanned(other, what))
        }
    }
}

/// An expression for a label: text as for names, or any other expression.
///
/// # Errors
///
/// On the token that is wrong.
pub(crate) fn label(label: &Expr, signature: &Signature) -> Result<TokenStream> {
    match text(label) {
        Some(text) => Ok(Format::parse(text, &Arguments::of(signature))?.expand(text.span())),
        None => Ok(label.to_token_stream()),
    }
}

/// A fixed name keeps the rules for names.
fn check(literal: &LitStr, name: &str) -> Result<()> {
    let what = if name.is_empty() {
        "a lock's name can't be empty"
    } else if name.len() > MAX_BYTES {
        "a lock's name has at most 1024 bytes"
    } else if name.contains('\0') {
        "a lock's name can't hold a NUL character"
    } else {
        return Ok(());
    };
    Err(Error::new(literal.span(), what))
}

/// What a function's arguments bind.
struct Arguments {
    names: Vec<Ident>,
}

impl Arguments {
    fn of(signature: &Signature) -> Self {
        let mut arguments = Self { names: Vec::new() };
        if let Some(receiver) = signature.receiver() {
            arguments.names.push(Ident::from(receiver.self_token));
        }
        for argument in &signature.inputs {
            if let FnArg::Typed(argument) = argument {
                arguments.visit_pat(&argument.pat);
            }
        }
        arguments
    }

    fn find(&self, name: &str) -> Option<&Ident> {
        self.names.iter().find(|known| *known == name)
    }

    fn list(&self) -> String {
        match self.names.as_slice() {
            [] => "there are none".to_owned(),
            names => {
                format!("they are {}", names.iter().map(Ident::to_string).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl<'ast> Visit<'ast> for Arguments {
    fn visit_pat_ident(&mut self, binding: &'ast PatIdent) {
        self.names.push(binding.ident.clone());
        visit::visit_pat_ident(self, binding);
    }

    fn visit_expr(&mut self, _constant: &'ast Expr) {}
}

/// Text with arguments in it.
struct Format {
    /// Without arguments the text itself, otherwise for `format!`.
    text: String,
    values: Vec<TokenStream>,
}

impl Format {
    fn parse(literal: &LitStr, arguments: &Arguments) -> Result<Self> {
        let wrong = |what: String| Error::new(literal.span(), what);
        let (mut plain, mut format) = (String::new(), String::new());
        let mut values = Vec::new();
        let value = literal.value();
        let mut rest = value.as_str();
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            format.push_str(before);
            if let Some((brace, after)) = doubled(from) {
                plain.push_str(brace);
                format.push_str(brace);
                format.push_str(brace);
                rest = after;
                continue;
            }
            let Some((inside, after)) = from.strip_prefix('{').and_then(|inside| inside.split_once('}'))
            else {
                return Err(wrong("a brace without its partner; a brace itself is written twice".to_owned()));
            };
            let (path, spec) = inside.split_once(':').unwrap_or((inside, ""));
            if spec.contains('$') {
                return Err(wrong(format!(
                    "`{{{inside}}}`: a width is a number here; use a closure for more"
                )));
            }
            values.push(field(literal, path.trim(), arguments)?);
            format.push_str(&match spec {
                "" => "{}".to_owned(),
                spec => format!("{{:{spec}}}"),
            });
            rest = after;
        }
        plain.push_str(rest);
        format.push_str(rest);
        Ok(Self { text: if values.is_empty() { plain } else { format }, values })
    }

    fn expand(&self, span: Span) -> TokenStream {
        let text = LitStr::new(&self.text, span);
        match self.values.as_slice() {
            [] => text.into_token_stream(),
            values => quote!(::std::format!(#text, #(#values),*)),
        }
    }
}

/// A brace that stands for itself, and what follows.
fn doubled(text: &str) -> Option<(&str, &str)> {
    ["{{", "}}"].iter().find_map(|pair| text.strip_prefix(pair).map(|after| (&text[..1], after)))
}

/// An argument or a field of one: `x`, `self.id`, `order.customer.0`.
fn field(literal: &LitStr, path: &str, arguments: &Arguments) -> Result<TokenStream> {
    let span = literal.span();
    let mut parts = path.split('.').map(str::trim);
    let root = parts.next().unwrap_or_default();
    if root.is_empty() {
        let what = format!("`{{}}` names no argument; {}", arguments.list());
        return Err(Error::new(span, what));
    }
    let Some(argument) = arguments.find(root) else {
        let what = match syn::parse_str::<Ident>(root) {
            Err(_) if root != "self" => {
                format!("`{{{path}}}` is no argument and no field of one; use a closure for more")
            }
            _ => format!("`{root}` is no argument of this function; {}", arguments.list()),
        };
        return Err(Error::new(span, what));
    };
    // As visible as the argument itself, and pointed at in the text.
    let mut argument = argument.clone();
    argument.set_span(argument.span().located_at(span));
    let mut value = quote!(#argument);
    for part in parts {
        let Ok(mut member) = syn::parse_str::<Member>(part) else {
            let what = format!("`{{{path}}}`: only fields can follow an argument; use a closure for more");
            return Err(Error::new(span, what));
        };
        match &mut member {
            Member::Named(name) => name.set_span(span),
            Member::Unnamed(index) => index.span = span,
        }
        value = quote!(#value.#member);
    }
    Ok(value)
}

/// The closure's body, with the arguments bound as the closure wants them. The types of the arguments are known in it, as
/// they would not be in a closure that is called on the spot.
fn of_closure(closure: &ExprClosure, signature: &Signature) -> Result<TokenStream> {
    if let Some(asyncness) = &closure.asyncness {
        return Err(Error::new(asyncness.span, "a lock's name can't be awaited"));
    }
    let arguments = passed(signature)?;
    if closure.inputs.len() != arguments.len() {
        let (has, given) = (arguments.len(), closure.inputs.len());
        let what = format!("the closure is given every argument of the function, {has}, and has {given}");
        return Err(Error::new(
            closure.or1_token.span().join(closure.or2_token.span()).unwrap_or(closure.or1_token.span),
            what,
        ));
    }
    let (patterns, types): (Vec<Pat>, Vec<TokenStream>) = closure
        .inputs
        .iter()
        .map(|input| match input {
            Pat::Type(PatType { pat, ty, .. }) => ((**pat).clone(), ty.to_token_stream()),
            other => (other.clone(), quote!(_)),
        })
        .unzip();
    let (output, body) = (&closure.output, &closure.body);
    let body = match output {
        syn::ReturnType::Default => quote!(#body),
        syn::ReturnType::Type(..) => quote!(#output #body),
    };
    Ok(quote!({
        #[allow(unused_variables)]
        let (#(#patterns,)*): (#(#types,)*) = (#(#arguments,)*);
        (|| #body)()
    }))
}

/// All arguments as they are given to a function or a closure: by reference.
fn passed(signature: &Signature) -> Result<Vec<TokenStream>> {
    let each = signature.inputs.iter().map(|argument| match argument {
        FnArg::Receiver(receiver) => {
            let this = receiver.self_token;
            Ok(match (&receiver.reference, &receiver.mutability, &receiver.colon_token) {
                (Some(_), None, None) => quote!(#this),
                (Some(_), Some(_), None) => quote!(&*#this),
                _ => quote!(&#this),
            })
        }
        FnArg::Typed(PatType { pat, .. }) => match &**pat {
            Pat::Ident(PatIdent { ident, subpat: None, .. }) => Ok(quote!(&#ident)),
            other => {
                let what =
                    "give this argument a name, so that it can be passed on to the one that names the lock";
                Err(Error::new_spanned(other, what))
            }
        },
    });
    each.collect()
}
