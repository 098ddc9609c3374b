//! What `tracing` and `metrics` are told.

#![cfg(all(feature = "memory", feature = "tracing", feature = "metrics"))]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};

/// Writes down what it is told. It uses locks itself, as a subscriber may.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Vec<String>>>);

impl Listener {
    fn hear(&self, line: String) {
        self.0.lock().expect("nobody panics holding it").push(line);
    }

    fn heard(&self) -> Vec<String> {
        self.0.lock().expect("nobody panics holding it").clone()
    }
}

struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("locks_api")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut fields = Fields(BTreeMap::new());
        span.record(&mut fields);
        self.hear(format!("span {} {} {}", span.metadata().name(), fields.0["lock"], fields.0["backend"]));
        Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(BTreeMap::new());
        event.record(&mut fields);
        let token = fields.0.get("token").map_or("", String::as_str);
        self.hear(format!("{} {} {token}", fields.0["message"], fields.0["lock"]));
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Named(Listener, String);

impl CounterFn for Named {
    fn increment(&self, value: u64) {
        self.0.hear(format!("{} +{value}", self.1));
    }

    fn absolute(&self, _: u64) {}
}

impl HistogramFn for Named {
    fn record(&self, _: f64) {
        self.0.hear(format!("{} recorded", self.1));
    }
}

impl Recorder for Listener {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(Named(self.clone(), key.name().to_owned())))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Named(self.clone(), key.name().to_owned())))
    }
}

#[test]
fn grants_waits_releases_and_losses_are_told() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (events, counts) = (Listener::default(), Listener::default());
    let _subscribed = tracing::subscriber::set_default(events.clone());
    metrics::with_local_recorder(&counts, || {
        runtime.block_on(async {
            let locks = locks::connect("memory:").await?;
            let guard = locks.lock("x").acquire().await?;
            guard.release().await?;
            let kept = locks.lock("y").acquire().await?;
            locks.close().await?;
            assert!(!kept.is_held());
            Ok::<(), locks::Error>(())
        })
    })
    .unwrap();
    let events = events.heard();
    let (told, tokens): (Vec<&str>, Vec<&str>) = events
        .iter()
        .map(|line| line.rsplit_once(' ').filter(|_| !line.starts_with("span")).unwrap_or((line, "")))
        .unzip();
    assert_eq!(
        told,
        [
            "span locks.acquire \"x\" \"memory\"",
            "granted \"x\"",
            "released \"x\"",
            "span locks.acquire \"y\" \"memory\"",
            "granted \"y\"",
            "lost \"y\"",
            "released \"y\"",
        ]
    );
    assert!(!tokens[1].is_empty() && tokens[1] == tokens[2], "{events:?}");
    assert!(!tokens[4].is_empty() && tokens[4..].iter().all(|token| *token == tokens[4]), "{events:?}");
    let counts = counts.heard();
    for (name, times) in [
        ("locks_grants_total +1", 2),
        ("locks_wait_seconds recorded", 2),
        ("locks_releases_total +1", 2),
        ("locks_losses_total +1", 1),
    ] {
        assert_eq!(counts.iter().filter(|line| *line == name).count(), times, "{name}: {counts:?}");
    }
}

#[test]
fn a_subscriber_may_use_locks_itself() {
    /// Takes a lock of the same `Locks` at every event.
    struct Reentrant(locks::Locks, Listener);

    impl Subscriber for Reentrant {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.is_event() && metadata.target().starts_with("locks_api")
        }

        fn event(&self, event: &Event<'_>) {
            if self.1.heard().len() > 10 {
                return;
            }
            self.1.hear(event.metadata().name().to_owned());
            let lock = self.0.lock("the subscriber's");
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            drop(runtime.block_on(lock.try_acquire()).unwrap());
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let locks = runtime.block_on(locks::connect("memory:")).unwrap();
    let heard = Listener::default();
    let _subscribed = tracing::subscriber::set_default(Reentrant(locks.clone(), heard.clone()));
    // Polled by hand: the subscriber has a runtime of its own, which may not be started inside another.
    let lock = locks.lock("x");
    let mut acquiring = std::pin::pin!(lock.acquire());
    let polled = acquiring.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    assert!(polled.is_ready(), "a free lock is had at once");
    assert!(!heard.heard().is_empty());
}
