//! The conformance kit on the plain store and on the emulated one, with and without a queue.

use locks_api::spi::{Backend as _, Guarantees};
use locks_backend_memory::emulated::{Carrier, Crash, EmulatedBackend, EmulatedStore, Emulation};
use locks_backend_memory::{MemoryBackend, MemoryStore};
use locks_conformance::{Fault, Harness, SetupError};

locks_conformance::main!(Memory, Emulated, Polled);

struct Memory(MemoryStore);

impl Harness for Memory {
    const NAME: &'static str = "memory";
    type Backend = MemoryBackend;

    fn guarantees() -> Guarantees {
        MemoryBackend::new().guarantees().clone()
    }

    async fn start() -> Result<Self, SetupError> {
        Ok(Self(MemoryStore::default()))
    }

    async fn connect(&self) -> locks_api::Result<MemoryBackend> {
        Ok(self.0.connect())
    }
}

/// Grants that expire, each for itself, and a queue.
struct Emulated(EmulatedStore);

impl Harness for Emulated {
    const NAME: &'static str = "memory-emulated";
    type Backend = EmulatedBackend;

    fn guarantees() -> Guarantees {
        EmulatedStore::new(Emulation::default()).connect().0.guarantees().clone()
    }

    async fn start() -> Result<Self, SetupError> {
        Ok(Self(EmulatedStore::new(Emulation::default())))
    }

    async fn connect(&self) -> locks_api::Result<EmulatedBackend> {
        Ok(self.0.connect().0)
    }

    fn faults() -> &'static [Fault] {
        &EVENTS
    }

    async fn inject(&self, fault: Fault) -> Result<(), SetupError> {
        crash(&self.0, fault)
    }

    async fn revoke(&self, lock: &str) -> Result<(), SetupError> {
        self.0.revoke(lock);
        Ok(())
    }
}

/// Leases that carry all grants of a process, and no queue: the engine asks again and again.
struct Polled(EmulatedStore);

fn polled() -> EmulatedStore {
    EmulatedStore::new(Emulation { carrier: Carrier::Lease, queue: false, ..Emulation::default() })
}

impl Harness for Polled {
    const NAME: &'static str = "memory-polled";
    type Backend = EmulatedBackend;

    fn guarantees() -> Guarantees {
        polled().connect().0.guarantees().clone()
    }

    async fn start() -> Result<Self, SetupError> {
        Ok(Self(polled()))
    }

    async fn connect(&self) -> locks_api::Result<EmulatedBackend> {
        Ok(self.0.connect().0)
    }

    fn faults() -> &'static [Fault] {
        &EVENTS
    }

    async fn inject(&self, fault: Fault) -> Result<(), SetupError> {
        crash(&self.0, fault)
    }

    async fn revoke(&self, lock: &str) -> Result<(), SetupError> {
        self.0.revoke(lock);
        Ok(())
    }
}

/// What can happen to an emulated store.
const EVENTS: [Fault; 3] = [Fault::Restart, Fault::DataLoss, Fault::Revocation];

fn crash(store: &EmulatedStore, fault: Fault) -> Result<(), SetupError> {
    match fault {
        Fault::Restart => store.crash(Crash::Keeping),
        Fault::DataLoss => store.crash(Crash::Forgetting),
        other => return Err(SetupError::new(format!("no way to inject {other}"))),
    }
    Ok(())
}
