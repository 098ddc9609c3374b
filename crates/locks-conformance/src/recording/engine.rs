//! What the engines of this process tell through `tracing`: the holds of all its guards.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::set_global_default;
use tracing::{Event, Metadata, Subscriber};

use super::{HoldId, What, note};

/// Listens to all engines of this process from now on.
///
/// # Errors
///
/// In words, if somebody else does already.
pub(super) fn listen() -> Result<(), String> {
    set_global_default(Listener).map_err(|_| {
        "this program has a tracing subscriber of its own, so the kit can't record what guards hold"
            .to_owned()
    })
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("locks_api")
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(what) = fields.told() {
            note(|| what);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The fields of an event, as text.
#[derive(Default)]
struct Fields(HashMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Fields {
    /// What of it belongs into a record.
    fn told(mut self) -> Option<What> {
        let message = self.0.remove("message")?;
        let hold = HoldId {
            lock: self.0.remove("lock")?,
            instance: self.0.remove("instance")?,
            token: self.0.get("token").and_then(|token| token.parse().ok()),
        };
        let time = |name: &str| self.0.get(name).and_then(|time| micros(time));
        Some(match message.as_str() {
            "granted" => What::Granted {
                hold,
                waited: time("waited")?,
                valid_for: time("valid_for"),
                handed_on: self.0.get("handed_on")? == "true",
                mode: self.0.remove("mode")?,
            },
            "renewed" => What::Renewed { hold, valid_for: time("valid_for")? },
            "at risk" => What::AtRisk { hold },
            "lost" => What::Lost { hold, reason: self.0.remove("reason")? },
            "released" => What::Released { hold },
            _ => return None,
        })
    }
}

/// Reads a [`Duration`] as `{:?}` writes it.
fn micros(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        "µs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    };
    let time = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()?;
    u64::try_from(time.as_micros()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_come_back() {
        for micros_of in [0, 1, 999, 1_000, 1_500, 999_999, 1_000_000, 13_500_000, 86_400_000_000] {
            let text = format!("{:?}", Duration::from_micros(micros_of));
            let read = micros(&text).unwrap_or_else(|| panic!("{text}"));
            assert!(read.abs_diff(micros_of) <= 1, "{text}: {read}");
        }
        assert_eq!(micros("12"), None);
        assert_eq!(micros("12 parsecs"), None);
    }
}
