//! What stands in the attribute's parentheses.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt as _;
use syn::parse::{ParseStream, Parser as _};
use syn::{Error, Expr, ExprLit, Ident, Lit, LitStr, Path, Result, Token, Type};

use crate::form::{Form, Naming};

/// The options of one decorator, checked as far as they can be without the function.
pub(crate) struct Options {
    /// What comes first in the decorators that take a name.
    pub(crate) name: Option<Expr>,
    /// Whether a call is skipped if the lock is held.
    pub(crate) tries: bool,
    pub(crate) timeout: Option<Time>,
    pub(crate) ttl: Option<Time>,
    pub(crate) locks: Option<Expr>,
    pub(crate) shared: bool,
    pub(crate) permits: Option<Expr>,
    pub(crate) on_lost: Option<(OnLost, Span)>,
    pub(crate) label: Option<Expr>,
    pub(crate) krate: Path,
    pub(crate) returns: Option<Type>,
}

/// How long.
pub(crate) enum Time {
    /// Known here.
    Fixed(Duration),
    /// An expression of type `Duration`.
    Computed(Expr),
}

/// What becomes of a body whose lock is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnLost {
    Cancel,
    Continue,
}

const KNOWN: &str = "wait = false, timeout, ttl, locks, shared, permits, on_lost = \"cancel\" | \"continue\", label, returns, crate";

impl Options {
    /// # Errors
    ///
    /// On the token that is wrong.
    pub(crate) fn parse(form: Form, arguments: TokenStream) -> Result<Self> {
        (|input: ParseStream<'_>| Raw::read(form, input)).parse2(arguments)?.checked(form)
    }
}

/// The options as written, each with the word that it was written with.
#[derive(Default)]
struct Raw {
    name: Option<Expr>,
    wait: Option<(Ident, Expr)>,
    timeout: Option<(Ident, Expr)>,
    ttl: Option<(Ident, Expr)>,
    locks: Option<(Ident, Expr)>,
    shared: Option<(Ident, ())>,
    permits: Option<(Ident, Expr)>,
    on_lost: Option<(Ident, Expr)>,
    label: Option<(Ident, Expr)>,
    krate: Option<(Ident, Path)>,
    returns: Option<(Ident, Type)>,
}

impl Raw {
    fn read(form: Form, input: ParseStream<'_>) -> Result<Self> {
        let mut raw = Self::default();
        if !input.is_empty() && !begins_an_option(input) {
            raw.name = Some(name(form, input)?);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        while !input.is_empty() {
            raw.read_option(input)?;
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(raw)
    }

    fn read_option(&mut self, input: ParseStream<'_>) -> Result<()> {
        if !input.peek(Ident::peek_any) {
            return Err(
                input.error(format!("this is no option; a name comes first; the options are {KNOWN}"))
            );
        }
        let word = input.call(Ident::parse_any)?;
        match word.to_string().as_str() {
            "wait" => once(&mut self.wait, word, input, |input| input.parse()),
            "timeout" => once(&mut self.timeout, word, input, |input| input.parse()),
            "ttl" => once(&mut self.ttl, word, input, |input| input.parse()),
            "locks" => once(&mut self.locks, word, input, |input| input.parse()),
            "permits" => once(&mut self.permits, word, input, |input| input.parse()),
            "on_lost" => once(&mut self.on_lost, word, input, |input| input.parse()),
            "label" => once(&mut self.label, word, input, |input| input.parse()),
            "crate" => once(&mut self.krate, word, input, |input| input.call(Path::parse_mod_style)),
            "returns" => once(&mut self.returns, word, input, |input| input.parse()),
            "shared" if input.peek(Token![=]) => {
                Err(input.error("`shared` stands alone; leave it out for an exclusive lock"))
            }
            "shared" => put(&mut self.shared, word, ()),
            _ => {
                Err(Error::new(word.span(), format!("there is no option `{word}`; the options are {KNOWN}")))
            }
        }
    }

    fn checked(self, form: Form) -> Result<Options> {
        let tries = self.tries(form)?;
        if form.naming == Naming::Custom && self.name.is_none() {
            let what = format!(
                "say which lock: #[{0}(\"a name\")] or #[{0}(\"name of {{argument}}\")]",
                form.attribute
            );
            return Err(Error::new(Span::call_site(), what));
        }
        if let Some((word, _)) = &self.locks
            && form.files
        {
            let what =
                format!("#[{}] is always a lock of the file backend and takes no `locks`", form.attribute);
            return Err(Error::new(word.span(), what));
        }
        if let (Some((shared, ())), Some((permits, _))) = (&self.shared, &self.permits) {
            let mut error = Error::new(permits.span(), "a lock is either `shared` or has `permits`");
            error.combine(Error::new(shared.span(), "`shared` stands here"));
            return Err(error);
        }
        let permits = self.permits.map(|(_, permits)| at_least_one(permits)).transpose()?;
        let ttl = self.ttl.map(|(_, ttl)| time(ttl)).transpose()?;
        let timeout = self.timeout.map(|(_, timeout)| time(timeout)).transpose()?;
        Ok(Options {
            name: self.name,
            tries,
            timeout: timeout.map(|(timeout, _)| timeout),
            ttl: ttl.map(not_zero).transpose()?,
            locks: self.locks.map(|(_, locks)| locks),
            shared: self.shared.is_some(),
            permits,
            on_lost: self.on_lost.map(|(_, choice)| on_lost(&choice)).transpose()?,
            label: self.label.map(|(_, label)| label),
            krate: self.krate.map_or_else(|| syn::parse_quote!(::locks), |(_, krate)| krate),
            returns: self.returns.map(|(_, returns)| returns),
        })
    }

    /// Whether the call is skipped if the lock is held.
    fn tries(&self, form: Form) -> Result<bool> {
        let tries = match &self.wait {
            None => form.tries,
            Some((_, Expr::Lit(ExprLit { lit: Lit::Bool(wait), .. }))) => {
                if wait.value && form.tries {
                    let what = format!("#[{}] never waits", form.attribute);
                    return Err(Error::new(wait.span, what));
                }
                !wait.value
            }
            Some((_, other)) => {
                let what = "`wait` is `true` or `false`: the return type depends on it";
                return Err(Error::new_spanned(other, what));
            }
        };
        match &self.timeout {
            Some((word, _)) if tries => {
                Err(Error::new(word.span(), "a call that does not wait has no timeout"))
            }
            _ => Ok(tries),
        }
    }
}

/// Whether what comes is `word = …` or a word that stands alone, not a name.
fn begins_an_option(input: ParseStream<'_>) -> bool {
    let fork = input.fork();
    match fork.call(Ident::parse_any) {
        Ok(word) => fork.peek(Token![=]) && !fork.peek(Token![==]) || word == "shared",
        Err(_) => false,
    }
}

/// The name, for those who take one.
fn name(form: Form, input: ParseStream<'_>) -> Result<Expr> {
    let fork = input.fork();
    let name: Expr =
        input.parse().map_err(|_| fork.error(format!("this is no option; the options are {KNOWN}")))?;
    if form.naming == Naming::Function {
        let (attribute, custom) = (form.attribute, form.custom());
        let what = match &name {
            Expr::Path(path) if path.path.get_ident().is_some() => {
                format!("this is no option; the options are {KNOWN}")
            }
            _ if form.tries => format!(
                "#[{attribute}] is named after its function; with a name it is #[{custom}(…, wait = false)]"
            ),
            _ => format!("#[{attribute}] is named after its function; with a name it is #[{custom}(…)]"),
        };
        return Err(Error::new_spanned(name, what));
    }
    Ok(name)
}

/// Reads `= value` for a word that may stand once.
fn once<T>(
    place: &mut Option<(Ident, T)>,
    word: Ident,
    input: ParseStream<'_>,
    read: impl FnOnce(ParseStream<'_>) -> Result<T>,
) -> Result<()> {
    if !input.peek(Token![=]) {
        return Err(Error::new(word.span(), format!("`{word}` needs a value: `{word} = …`")));
    }
    input.parse::<Token![=]>()?;
    let value = read(input)?;
    put(place, word, value)
}

fn put<T>(place: &mut Option<(Ident, T)>, word: Ident, value: T) -> Result<()> {
    if place.is_some() {
        return Err(Error::new(word.span(), format!("`{word}` is said twice")));
    }
    *place = Some((word, value));
    Ok(())
}

/// A text literal, if this is one.
pub(crate) fn text(expression: &Expr) -> Option<&LitStr> {
    match expression {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text),
        Expr::Group(group) => text(&group.expr),
        _ => None,
    }
}

/// A time, and where it was said.
fn time(expression: Expr) -> Result<(Time, Span)> {
    let Some(text) = text(&expression) else {
        if let Expr::Lit(literal) = &expression {
            let what = "a time is text like \"5s\" or \"1h 30m\", or an expression of type Duration";
            return Err(Error::new_spanned(literal, what));
        }
        let span = syn::spanned::Spanned::span(&expression);
        return Ok((Time::Computed(expression), span));
    };
    match humantime::parse_duration(&text.value()) {
        Ok(duration) => Ok((Time::Fixed(duration), text.span())),
        Err(error) => {
            let what = format!("{:?} is no time like \"5s\", \"200ms\" or \"1h 30m\": {error}", text.value());
            Err(Error::new(text.span(), what))
        }
    }
}

fn not_zero((time, span): (Time, Span)) -> Result<Time> {
    match time {
        Time::Fixed(Duration::ZERO) => Err(Error::new(span, "a ttl can't be zero")),
        time => Ok(time),
    }
}

fn at_least_one(permits: Expr) -> Result<Expr> {
    match &permits {
        Expr::Lit(ExprLit { lit: Lit::Int(count), .. }) if count.base10_parse::<u32>()? == 0 => {
            Err(Error::new(count.span(), "without permits nobody could ever run; say 1 or more"))
        }
        _ => Ok(permits),
    }
}

fn on_lost(choice: &Expr) -> Result<(OnLost, Span)> {
    let wrong = || Error::new_spanned(choice, "`on_lost` is \"cancel\" or \"continue\"");
    let text = text(choice).ok_or_else(wrong)?;
    match text.value().as_str() {
        "cancel" => Ok((OnLost::Cancel, text.span())),
        "continue" => Ok((OnLost::Continue, text.span())),
        _ => Err(wrong()),
    }
}
