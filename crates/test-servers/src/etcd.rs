//! etcd: one node, or a cluster.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::Path;
use std::time::Duration;

use crate::error::Error;
use crate::place::{Network, Place};
use crate::port;
use crate::probe;
use crate::process::{Process, Start};
use crate::program::Program;
use crate::server::{PORTS, Server, ended, local};
use crate::source::{Mode, Source};
use crate::technology::Technology;

/// Heartbeat and election of one node, which has nobody to lose an election to.
const ALONE: Timing = Timing { heartbeat: Duration::from_millis(20), election: Duration::from_millis(200) };

/// Of a cluster, whose leader is not to be deposed because the machine is busy.
const TOGETHER: Timing = Timing { heartbeat: Duration::from_millis(100), election: Duration::from_secs(1) };

/// On, unless it is said otherwise. A power cut is nothing that tests bring about.
const NO_FSYNC: &str = "unsafe-no-fsync";

/// How many nodes a cluster has: one can be missing.
const NODES: u8 = 3;

/// An etcd server, alone or a node of a cluster. All else that can be done to it is in [`Server`].
#[derive(Debug)]
pub struct Etcd {
    server: Server,
}

impl Etcd {
    /// Starts a private node, on free ports of this machine, and waits until it is healthy. It keeps its data over its death, but not over
    /// that of the machine.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Missing`](crate::ErrorKind::Missing) if there is no program for it or none may be started,
    /// [`ErrorKind::Failed`](crate::ErrorKind::Failed) if it did not come up.
    pub fn start() -> Result<Self, Error> {
        Self::options().start()
    }

    /// A private node or cluster that is not like all others.
    #[must_use]
    pub fn options() -> EtcdOptions {
        EtcdOptions::default()
    }

    /// The server that the environment names, or else a private one as [`start`](Self::start) makes it.
    ///
    /// What is in a server that the environment names is not ours: use names that nobody else has.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start), and [`ErrorKind::Missing`](crate::ErrorKind::Missing) if the named server does not answer.
    pub fn shared() -> Result<Self, Error> {
        match Source::of_shared(Technology::Etcd, Mode::from_env()?)? {
            Source::Url { url } => Ok(Self { server: Server::of_somebody_else(Technology::Etcd, url)? }),
            source => EtcdOptions::default().start_program(&Program::from(Technology::Etcd, source)?),
        }
    }

    /// Cuts a node of a cluster off from the others and from its clients. It runs on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if it is not in a container or not in a cluster,
    /// [`ErrorKind::Failed`](crate::ErrorKind::Failed) if it does not run.
    pub fn disconnect(&self) -> Result<(), Error> {
        self.server.process()?.disconnect()
    }

    /// Lets it be reached again.
    ///
    /// # Errors
    ///
    /// As [`disconnect`](Self::disconnect).
    pub fn reconnect(&self) -> Result<(), Error> {
        self.server.process()?.reconnect()
    }
}

impl Deref for Etcd {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// Three nodes. Each can be killed, paused and started again by itself.
#[derive(Debug)]
pub struct EtcdCluster {
    nodes: Vec<Etcd>,
}

impl EtcdCluster {
    /// Starts three private nodes, and waits until each is healthy.
    ///
    /// # Errors
    ///
    /// As [`Etcd::start`].
    pub fn start() -> Result<Self, Error> {
        Etcd::options().start_cluster()
    }

    /// Where it is: `etcd://127.0.0.1:PORT,127.0.0.1:PORT,127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        let addresses: Vec<String> = self.nodes.iter().map(|node| node.address().to_string()).collect();
        format!("etcd://{}", addresses.join(","))
    }

    /// Its nodes. One that is started again is healthy only together with a second one: after the death of two, or of all, see
    /// [`start_again`](Self::start_again).
    #[must_use]
    pub fn nodes(&self) -> &[Etcd] {
        &self.nodes
    }

    /// The node that leads, or `None` during an election. The answer may be old when it comes.
    #[must_use]
    pub fn leader(&self) -> Option<&Etcd> {
        self.nodes.iter().find(|node| probe::leads(node.address()))
    }

    /// Starts all nodes again that are dead, and waits until they are healthy.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`](crate::ErrorKind::Failed) if one does not come up.
    pub fn start_again(&self) -> Result<(), Error> {
        let mut launched = Vec::new();
        for node in &self.nodes {
            let mut process = node.process()?;
            if !process.is_running()? {
                process.launch()?;
                launched.push((node.address(), process));
            }
        }
        for (address, process) in &mut launched {
            if let Start::Ended(log) = wait_for_health(process, *address)? {
                return Err(ended(&log));
            }
        }
        Ok(())
    }
}

/// How a private node or cluster is to be.
#[derive(Clone, Debug, Default)]
pub struct EtcdOptions {
    timing: Option<Timing>,
    settings: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug)]
struct Timing {
    heartbeat: Duration,
    election: Duration,
}

impl EtcdOptions {
    /// How often the leader is heard from, and after what silence there is an election: 20 and 200 ms for one node, 100 ms and 1 s in
    /// a cluster, unless it is said here. The shortest ttl of a lease depends on it.
    #[must_use]
    pub fn timing(mut self, heartbeat: Duration, election: Duration) -> Self {
        self.timing = Some(Timing { heartbeat, election });
        self
    }

    /// A line of its configuration file, such as `config("quota-backend-bytes", "20000000")`. Where the server runs, listens and logs is
    /// not for it to say.
    #[must_use]
    pub fn config(mut self, setting: &str, value: &str) -> Self {
        self.settings.push((setting.to_owned(), value.to_owned()));
        self
    }

    /// Starts one node and waits until it is healthy.
    ///
    /// # Errors
    ///
    /// As [`Etcd::start`].
    pub fn start(self) -> Result<Etcd, Error> {
        self.start_program(&Program::of_own(Technology::Etcd)?)
    }

    /// Starts three nodes and waits until each is healthy.
    ///
    /// # Errors
    ///
    /// As [`Etcd::start`].
    pub fn start_cluster(self) -> Result<EtcdCluster, Error> {
        let program = Program::of_own(Technology::Etcd)?;
        let mut tries = 0..PORTS;
        loop {
            let nodes = match prepare_nodes(&program) {
                // Somebody else has a network of these addresses.
                Err(error) if error.to_string().contains("overlaps") && tries.next().is_some() => continue,
                nodes => nodes?,
            };
            match self.start_nodes(nodes)? {
                Ok(cluster) => return Ok(cluster),
                // Every node knows the ports of all.
                Err(log) if probe::is_port_taken(&log) && tries.next().is_some() => {}
                Err(log) => return Err(ended(&log)),
            }
        }
    }

    fn start_program(self, program: &Program) -> Result<Etcd, Error> {
        let configure = |process: &Process, port: u16| {
            let node = Node { number: 0, host: local(port).ip(), port, peer_port: port::free()? };
            self.write_to(process, &node, &[&node], ALONE, "alone")
        };
        let process = prepare(program, Place::of(program.image(), None))?;
        let server = Server::start(Technology::Etcd, process, None, port::free, configure)?;
        Ok(Etcd { server })
    }

    /// The cluster, or the log of a node that ended.
    fn start_nodes(&self, nodes: Vec<(Node, Process)>) -> Result<Result<EtcdCluster, String>, Error> {
        let members: Vec<&Node> = nodes.iter().map(|(node, _)| node).collect();
        let mut launched = Vec::new();
        // Nobody else has the first node's directory, so no other cluster has this name.
        let token = nodes.first().map(|(_, process)| process.directory().display().to_string());
        for (node, process) in &nodes {
            self.write_to(process, node, &members, TOGETHER, &token.clone().unwrap_or_default())?;
        }
        for (node, mut process) in nodes {
            process.launch()?;
            launched.push((node.address(), process));
        }
        let mut ready = Vec::new();
        for (address, mut process) in launched {
            match wait_for_health(&mut process, address)? {
                Start::Ready => {
                    ready.push(Etcd { server: Server::ready(Technology::Etcd, address, process) });
                }
                Start::Ended(log) => return Ok(Err(log)),
            }
        }
        Ok(Ok(EtcdCluster { nodes: ready }))
    }

    fn write_to(
        &self,
        process: &Process,
        node: &Node,
        members: &[&Node],
        timing: Timing,
        token: &str,
    ) -> Result<(), Error> {
        let timing = self.timing.unwrap_or(timing);
        let members: Vec<String> =
            members.iter().map(|node| format!("{}={}", node.name(), node.peer_url())).collect();
        let mut config = String::new();
        let mut line = |setting: &str, value: &str| {
            config.push_str(&format!("{setting}: {value}\n"));
        };
        if !self.settings.iter().any(|(setting, _)| setting == NO_FSYNC) {
            line(NO_FSYNC, "true");
        }
        for (setting, value) in &self.settings {
            line(setting, value);
        }
        // Off, if there is a configuration file that does not say otherwise.
        line("enable-grpc-gateway", "true");
        line("name", &node.name());
        line("data-dir", &format!("{:?}", process.data()));
        line("listen-client-urls", &node.listens(node.port));
        line("advertise-client-urls", &node.url());
        line("listen-peer-urls", &node.listens(node.peer_port));
        line("initial-advertise-peer-urls", &node.peer_url());
        line("initial-cluster", &members.join(","));
        line("initial-cluster-token", &format!("{token:?}"));
        line("heartbeat-interval", &timing.heartbeat.as_millis().to_string());
        line("election-timeout", &timing.election.as_millis().to_string());
        process.write("etcd.yaml", &config)
    }
}

/// What a node is to the others.
struct Node {
    number: u8,
    host: IpAddr,
    port: u16,
    peer_port: u16,
}

impl Node {
    fn with_free_ports(number: u8, host: IpAddr) -> Result<Self, Error> {
        Ok(Self { number, host, port: port::free()?, peer_port: port::free()? })
    }

    fn address(&self) -> SocketAddr {
        (self.host, self.port).into()
    }

    fn name(&self) -> String {
        format!("node{}", self.number)
    }

    fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    fn peer_url(&self) -> String {
        format!("http://{}:{}", self.host, self.peer_port)
    }

    /// Where it listens. An address of a container is not there while the container is cut off.
    fn listens(&self, port: u16) -> String {
        let host = if self.host.is_loopback() { self.host } else { Ipv4Addr::UNSPECIFIED.into() };
        format!("http://{host}:{port}")
    }
}

/// Programs have free ports of this machine; containers also have addresses of their own, so that they can be cut off from each other.
fn prepare_nodes(program: &Program) -> Result<Vec<(Node, Process)>, Error> {
    let mut nodes = Vec::new();
    for (number, network) in (0..NODES).zip(Network::of_members(NODES)) {
        let place = Place::of(program.image(), None);
        let (host, place) = match program.image() {
            Some(_) => (network.address(), place.within(network)),
            None => (local(0).ip(), place),
        };
        nodes.push((Node::with_free_ports(number, host)?, prepare(program, place)?));
    }
    Ok(nodes)
}

fn prepare(program: &Program, place: Place) -> Result<Process, Error> {
    let command = |directory: &Path| -> Vec<OsString> {
        let config = directory.join("etcd.yaml").into_os_string();
        vec![program.command(), "--config-file".into(), config]
    };
    Process::prepare(Technology::Etcd.name(), place, command)
}

fn wait_for_health(process: &mut Process, address: SocketAddr) -> Result<Start, Error> {
    process.wait_until(|log| probe::is_ready(Technology::Etcd, address, log))
}
