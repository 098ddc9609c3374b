//! A lock space on a real cluster of its own, and all that can happen to it.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use locks_api::spi::{Backend, Guarantees};
use locks_backend_etcd::EtcdBackend;
use locks_conformance::{Fault, Harness, SetupError};
use locks_test_servers::{Etcd, EtcdCluster, gateway};

/// What the space is like, and what may be wrong with the backend.
pub(crate) trait Making: Send + Sync + 'static {
    /// The harness.
    const NAME: &'static str;

    /// Whether there are three members.
    const CLUSTER: bool = false;

    /// The backend, as this making has it.
    type Made: Backend;

    fn make(backend: EtcdBackend) -> Self::Made;
}

/// As it is, on one member.
pub(crate) struct Sound;

impl Making for Sound {
    const NAME: &'static str = "etcd";
    type Made = EtcdBackend;

    fn make(backend: EtcdBackend) -> EtcdBackend {
        backend
    }
}

/// A cluster, or the way to one.
pub(crate) struct Space<M> {
    url: String,
    /// In the process that started it.
    servers: Mutex<Option<Servers>>,
    making: PhantomData<M>,
}

enum Servers {
    One(Box<Etcd>),
    Three(EtcdCluster),
}

impl Servers {
    fn nodes(&self) -> &[Etcd] {
        match self {
            Self::One(node) => std::slice::from_ref(&**node),
            Self::Three(cluster) => cluster.nodes(),
        }
    }

    fn restart(&self) -> Result<(), SetupError> {
        for node in self.nodes() {
            node.kill().map_err(setup)?;
        }
        match self {
            Self::One(node) => node.start_again().map_err(setup),
            Self::Three(cluster) => cluster.start_again().map_err(setup),
        }
    }
}

impl<M: Making> Space<M> {
    fn at(url: String, servers: Option<Servers>) -> Self {
        Self { url, servers: Mutex::new(servers), making: PhantomData }
    }

    fn backend(url: &str) -> locks_api::Result<M::Made> {
        Ok(M::make(EtcdBackend::from_url(url)?))
    }

    fn with_servers<T>(&self, act: impl FnOnce(&Servers) -> Result<T, SetupError>) -> Result<T, SetupError> {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        act(servers.as_ref().ok_or_else(|| SetupError::new("the servers belong to another process"))?)
    }

    fn member(&self) -> Result<SocketAddr, SetupError> {
        self.address().ok_or_else(|| SetupError::new(format!("no address in {}", self.url)))
    }

    /// Raises or ends the alarm that the space is used up.
    fn alarm(&self, action: &str) -> Result<(), SetupError> {
        let message = format!("{{\"action\":\"{action}\",\"alarm\":\"NOSPACE\"}}");
        gateway::call(self.member()?, "maintenance/alarm", &message)?;
        Ok(())
    }
}

impl<M: Making> Harness for Space<M> {
    const NAME: &'static str = M::NAME;
    type Backend = M::Made;

    fn guarantees() -> Guarantees {
        EtcdBackend::promises()
    }

    async fn start() -> Result<Self, SetupError> {
        let (url, servers) = if M::CLUSTER {
            let cluster = EtcdCluster::start().map_err(setup)?;
            (cluster.url(), Servers::Three(cluster))
        } else {
            let node = Etcd::start().map_err(setup)?;
            (node.url().to_owned(), Servers::One(Box::new(node)))
        };
        Ok(Self::at(url, Some(servers)))
    }

    async fn connect(&self) -> locks_api::Result<M::Made> {
        Self::backend(&self.url)
    }

    fn worker_url(&self) -> Option<String> {
        Some(self.url.clone())
    }

    async fn attach(url: &str) -> Result<Self, SetupError> {
        Ok(Self::at(url.to_owned(), None))
    }

    fn over_tcp() -> bool {
        true
    }

    /// Of one member. What comes through a proxy reaches no other.
    fn address(&self) -> Option<SocketAddr> {
        self.url.strip_prefix("etcd://")?.split(',').next()?.parse().ok()
    }

    async fn connect_through(&self, address: SocketAddr) -> locks_api::Result<M::Made> {
        Self::backend(&format!("etcd://{address}"))
    }

    fn worker_url_through(&self, address: SocketAddr) -> Option<String> {
        Some(format!("etcd://{address}"))
    }

    fn faults() -> &'static [Fault] {
        &[Fault::StoreFull, Fault::Restart, Fault::Revocation, Fault::Pause]
    }

    async fn inject(&self, fault: Fault) -> Result<(), SetupError> {
        match fault {
            Fault::StoreFull => self.alarm("ACTIVATE"),
            Fault::Restart => self.with_servers(Servers::restart),
            Fault::Pause => self.with_servers(|servers| {
                servers.nodes().iter().try_for_each(|node| node.pause().map_err(setup))
            }),
            other => Err(SetupError::new(format!("no way to inject {other}"))),
        }
    }

    async fn revoke(&self, lock: &str) -> Result<(), SetupError> {
        let member = self.member()?;
        let keys = gateway::keys(member, &format!("locks/1/lock/{lock}@"))?;
        let first = keys.first().ok_or_else(|| SetupError::new(format!("nobody has {lock:?}")))?;
        Ok(gateway::delete(member, first)?)
    }

    async fn heal(&self, fault: Fault) -> Result<(), SetupError> {
        match fault {
            Fault::StoreFull => self.alarm("DEACTIVATE"),
            Fault::Pause => self.with_servers(|servers| {
                servers.nodes().iter().try_for_each(|node| node.resume().map_err(setup))
            }),
            other => Err(SetupError::new(format!("no way to heal {other}"))),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn setup(error: locks_test_servers::Error) -> SetupError {
    SetupError::new(error.to_string())
}
