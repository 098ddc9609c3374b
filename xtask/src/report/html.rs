//! Text that is safe inside HTML, and words for numbers.

use std::fmt::{self, Write as _};

/// Shows a text so that it means itself inside HTML, also inside quoted attributes.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // HTML has no way to write these.
                c if c.is_control() && c != '\n' && c != '\t' => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// The text as the value of an `id`: letters, digits and hyphens.
pub(crate) fn id(parts: &[&str]) -> String {
    let mut id = String::new();
    for part in parts {
        if !id.is_empty() {
            id.push_str("--");
        }
        id.extend(part.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }));
    }
    id
}

/// A time in microseconds, short: "350 µs", "12.5 ms", "3.20 s".
pub(crate) fn time(micros: u64) -> String {
    let value = micros as f64;
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{:.2} ms", value / 1e3),
        10_000..100_000 => format!("{:.1} ms", value / 1e3),
        100_000..1_000_000 => format!("{:.0} ms", value / 1e3),
        1_000_000..100_000_000 => format!("{:.2} s", value / 1e6),
        _ => format!("{:.0} s", value / 1e6),
    }
}

/// "1 case", "2 cases".
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_its_place() {
        let nasty = "</script><b a='1' c=\"2\">&amp;\u{0}\u{1b}[31m";
        let escaped = Escaped(nasty).to_string();
        assert!(!escaped.contains(['<', '>', '"', '\'', '\u{0}', '\u{1b}']), "{escaped}");
        assert!(escaped.starts_with("&lt;/script&gt;&lt;b a=&#39;1&#39;"), "{escaped}");
        assert_eq!(id(&["a b", "x::y_z\"<"]), "a-b--x--y_z--");
    }

    #[test]
    fn times_are_short() {
        let shown: Vec<String> = [0, 999, 1_000, 12_345, 350_000, 1_500_000, 250_000_000].map(time).into();
        assert_eq!(shown, ["0 µs", "999 µs", "1.00 ms", "12.3 ms", "350 ms", "1.50 s", "250 s"]);
    }
}
