//! What a URL says behind its `?`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// The options of a backend's URL: each is asked for by its name, and what nobody asked for is an error.
///
/// For backends that are opened by a URL, so that all of them read options in the same way and complain in the same words. Taking a URL apart, and decoding what is in
/// it, is left to the library that the backend has for URLs.
///
/// ```
/// use std::net::IpAddr;
///
/// use locks_api::spi::UrlOptions;
///
/// let mut options = UrlOptions::new([("namespace", "app"), ("durable", "on"), ("from", "::1")])?;
/// let namespace = options.text("namespace").unwrap_or_else(|| "locks".to_owned());
/// let durable = options.on_or_off("durable")?.unwrap_or(false);
/// let from: Option<IpAddr> = options.parsed("from")?;
/// options.finish()?;
/// assert_eq!((namespace.as_str(), durable, from), ("app", true, Some("::1".parse()?)));
///
/// let options = UrlOptions::new([("durabel", "on")])?;
/// assert!(options.finish().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct UrlOptions {
    given: BTreeMap<String, String>,
    /// What was asked for.
    known: Vec<&'static str>,
}

impl UrlOptions {
    /// From names and their values, decoded.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if a name is there twice.
    pub fn new<N, V>(options: impl IntoIterator<Item = (N, V)>) -> Result<Self, Error>
    where
        N: Into<String>,
        V: Into<String>,
    {
        let mut given = BTreeMap::new();
        for (name, value) in options {
            let name = name.into();
            if given.contains_key(&name) {
                return Err(wrong(format!("the option {name:?} is given twice")));
            }
            given.insert(name, value.into());
        }
        Ok(Self { given, known: Vec::new() })
    }

    /// The value of this option, if it is given.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        self.given.remove(name)
    }

    /// Whether this option is `on` or `true`, or `off` or `false`, if it is given.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if it is something else.
    pub fn on_or_off(&mut self, name: &'static str) -> Result<Option<bool>, Error> {
        match self.text(name).as_deref() {
            None => Ok(None),
            Some("on" | "true") => Ok(Some(true)),
            Some("off" | "false") => Ok(Some(false)),
            Some(other) => Err(wrong(format!("the option {name:?} is on or off, not {other:?}"))),
        }
    }

    /// What this option reads as, if it is given.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if it can't be read. The message repeats the value.
    pub fn parsed<T>(&mut self, name: &'static str) -> Result<Option<T>, Error>
    where
        T: FromStr<Err: fmt::Display>,
    {
        let Some(value) = self.text(name) else { return Ok(None) };
        value.parse().map(Some).map_err(|error| wrong(format!("{name}={value} makes no sense: {error}")))
    }

    /// Ends the reading.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if something is given that was not asked for. The message repeats its name, never its value, and names the options that there are.
    pub fn finish(self) -> Result<(), Error> {
        let Some(name) = self.given.keys().next() else { return Ok(()) };
        Err(wrong(match self.known.as_slice() {
            [] => format!("there is no option {name:?}; there are none"),
            [only] => format!("there is no option {name:?}; there is {only}"),
            known => format!("there is no option {name:?}; there are {}", known.join(", ")),
        }))
    }
}

/// Shows no value: it may be a password.
impl fmt::Debug for UrlOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UrlOptions").field("given", &self.given.keys()).finish_non_exhaustive()
    }
}

fn wrong(complaint: String) -> Error {
    Error::new(ErrorKind::Config, complaint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> UrlOptions {
        UrlOptions::new(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn both_ways_to_write_a_switch_are_read() {
        for (value, expected) in [("on", true), ("true", true), ("off", false), ("false", false)] {
            assert_eq!(options(&[("a", value)]).on_or_off("a").unwrap(), Some(expected));
        }
        assert_eq!(options(&[]).on_or_off("a").unwrap(), None);
        let error = options(&[("a", "yes")]).on_or_off("a").unwrap_err();
        assert_eq!(error.to_string(), "the option \"a\" is on or off, not \"yes\"");
    }

    #[test]
    fn what_is_wrong_is_named_and_the_value_of_what_is_unknown_is_not() {
        let error = UrlOptions::new([("a", "1"), ("b", "2"), ("a", "1")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(error.to_string(), "the option \"a\" is given twice");
        let error = options(&[("a", "soon")]).parsed::<u8>("a").unwrap_err();
        assert_eq!(error.to_string(), "a=soon makes no sense: invalid digit found in string");
        let mut options = options(&[("passwort", "geheim")]);
        assert!(!format!("{options:?}").contains("geheim"));
        assert_eq!(options.text("password"), None);
        assert_eq!(options.text("user"), None);
        let error = options.finish().unwrap_err();
        assert_eq!(error.to_string(), "there is no option \"passwort\"; there are password, user");
    }

    #[test]
    fn a_backend_without_options_or_with_one_says_so() {
        let error = options(&[("a", "1")]).finish().unwrap_err();
        assert_eq!(error.to_string(), "there is no option \"a\"; there are none");
        let mut of_one = options(&[("a", "1")]);
        assert_eq!(of_one.text("b"), None);
        assert_eq!(of_one.finish().unwrap_err().to_string(), "there is no option \"a\"; there is b");
    }
}
