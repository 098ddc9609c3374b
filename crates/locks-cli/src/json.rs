//! What is written as JSON: one object or list in one line.

use std::fmt::Write as _;
use std::time::SystemTime;

use locks::{Busy, Holder};

use crate::trouble::plausible;

/// An object under construction.
#[derive(Debug, Default)]
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.raw(key, &quoted(value))
    }

    pub(crate) fn number(self, key: &str, value: impl Into<u128>) -> Self {
        self.raw(key, &value.into().to_string())
    }

    /// UTC, to the millisecond, as RFC 3339 has it.
    pub(crate) fn time(self, key: &str, value: SystemTime) -> Self {
        self.text(key, &humantime::format_rfc3339_millis(value).to_string())
    }

    /// A value that is JSON already.
    pub(crate) fn raw(mut self, key: &str, value: &str) -> Self {
        let comma = if self.0.is_empty() { "" } else { "," };
        // Writing to a string can't fail.
        write!(self.0, "{comma}{}:{value}", quoted(key)).ok();
        self
    }

    /// With more fields, if there is something to be said.
    pub(crate) fn with<T>(self, value: Option<T>, add: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => add(self, value),
            None => self,
        }
    }

    pub(crate) fn finish(self) -> String {
        format!("{{{}}}", self.0)
    }
}

pub(crate) fn list(values: impl IntoIterator<Item = String>) -> String {
    let values: Vec<String> = values.into_iter().collect();
    format!("[{}]", values.join(","))
}

/// Who holds or waits: whatever is known of `host`, `pid`, `label` and `since`.
pub(crate) fn holder(holder: &Holder) -> Object {
    Object::default()
        .with(holder.host.as_deref(), |object, host| object.text("host", host))
        .with(holder.pid, |object, pid| object.number("pid", pid))
        .with(holder.label.as_deref(), |object, label| object.text("label", label))
        .with(plausible(holder.since), |object, since| object.time("since", since))
}

/// What is in the way: `reason` is `held`, `grace` or `not_due`.
pub(crate) fn busy(object: Object, busy: &Busy) -> Object {
    match busy {
        Busy::Held { by } => {
            let object = object.text("reason", "held");
            object.with(by.as_ref(), |object, by| object.raw("holder", &holder(by).finish()))
        }
        Busy::Grace { remaining } => {
            object.text("reason", "grace").number("remaining_ms", remaining.as_millis())
        }
        Busy::NotDue { remaining } => {
            object.text("reason", "not_due").number("remaining_ms", remaining.as_millis())
        }
        _ => object.text("reason", "other"),
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            c if u32::from(c) < 0x20 || c == '\u{7f}' => {
                write!(quoted, "\\u{:04x}", u32::from(c)).ok();
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_is_escaped() {
        let object = Object::default().text("a\"b", "c\\d\n\u{1b}é").number("n", 7_u32);
        assert_eq!(object.finish(), r#"{"a\"b":"c\\d\n\u001bé","n":7}"#);
        assert_eq!(list(["1".to_owned(), "2".to_owned()]), "[1,2]");
    }
}
