//! The keeper of one server that runs in a container: the counterpart of the shell that keeps an installed program.
//!
//! Its standard input and output are one socket, whose other end only the test process has, so it learns when that is gone, however it
//! went. Then the container, its network and the server's directory go, and the keeper. It obeys the same orders and answers in the same words as
//! the shell; `crates/test-servers` starts it, with
//!
//! ```text
//! locks-test-containers DIRECTORY new|old IMAGE USER:GROUP NETWORK COMMAND...
//! ```
//!
//! where NETWORK is `host`, or `NAME,PREFIX,ADDRESS`: a network of its own kind whose addresses begin with PREFIX, and the container's there.

mod container;
mod directory;
mod mark;
mod network;
mod sweep;

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream as StdSocket;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use bollard::Docker;
use testcontainers::core::client::docker_client_instance;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{Signal, SignalKind, signal};

use container::{Container, Recipe};
use network::Network;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match keep().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

async fn keep() -> Result<()> {
    let _ignored = ignore_signals()?;
    let (orders, mut answers) = socket()?;
    let mut keeper = match prepare().await {
        Ok(keeper) => keeper,
        Err(error) => return say(&mut answers, &refusal(&error)).await,
    };
    // That nobody reads the answers any more is the end as well.
    let result = keeper.obey(orders, &mut answers).await;
    keeper.clear_away().await.and(result)
}

/// What the keeper has in its care.
struct Keeper {
    docker: Docker,
    recipe: Recipe,
    container: Option<Container>,
}

async fn prepare() -> Result<Keeper> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context("an argument is missing");
    let directory = PathBuf::from(next()?);
    let is_new = next()? == "new";
    let (image, user) = (next()?, next()?);
    let network = match next()?.as_str() {
        "host" => None,
        network => Some(network.parse::<Network>()?),
    };
    let program = next()?;
    let docker = docker_client_instance().await?;
    let recipe = Recipe { directory, image, user, network, program, arguments: arguments.collect() };
    if is_new {
        sweep::sweep(&docker).await?;
        directory::make(&recipe.directory, &recipe.user)?;
        if let Some(network) = &recipe.network
            && let Err(error) = network.make(&docker).await
        {
            directory::remove(&recipe.directory).await?;
            return Err(error);
        }
    }
    Ok(Keeper { docker, recipe, container: None })
}

impl Keeper {
    /// Does as it is told until the other end is closed, and tells when the server has ended.
    async fn obey(
        &mut self,
        mut orders: BufReader<OwnedReadHalf>,
        answers: &mut OwnedWriteHalf,
    ) -> Result<()> {
        say(answers, "kept").await?;
        let mut line = Vec::new();
        loop {
            tokio::select! {
                read = orders.read_until(b'\n', &mut line) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    let order = String::from_utf8_lossy(&std::mem::take(&mut line)).trim().to_owned();
                    let answer = match self.treat(&order).await {
                        Ok(answer) => answer,
                        Err(error) => refusal(&error),
                    };
                    say(answers, &answer).await?;
                }
                status = ended(&mut self.container) => say(answers, &format!("ended {status}")).await?,
            }
        }
    }

    async fn treat(&mut self, order: &str) -> Result<String> {
        let (order, _) = order.split_once(' ').unwrap_or((order, ""));
        if order == "start" {
            self.remove_container().await?;
            let mut container = Container::start(&self.docker, &self.recipe).await?;
            let answer = match container.process_id().await? {
                Some(process) => format!("started {process}"),
                None => format!("ended {}", container.ended().await),
            };
            self.container = Some(container);
            return Ok(answer);
        }
        if order == "end" {
            // One that has ended by itself is as good as killed.
            let told = self.container.as_ref().is_none_or(Container::has_ended);
            let status = self.remove_container().await?;
            return Ok(if told { "killed".to_owned() } else { format!("killed\nended {status}") });
        }
        let done = match order {
            "pause" => "paused",
            "resume" => "resumed",
            "disconnect" => "disconnected",
            "reconnect" => "reconnected",
            _ => bail!("there is no order {order:?}"),
        };
        // Of one that has just ended by itself all is told by that.
        if let Some(container) = self.container.as_mut().filter(|container| !container.has_ended()) {
            match order {
                "pause" => container.pause().await?,
                "resume" => container.resume().await?,
                "disconnect" => container.disconnect().await?,
                _ => container.reconnect().await?,
            }
        }
        Ok(done.to_owned())
    }

    /// Kills it if it runs. There is always at most one. The result is its exit code.
    async fn remove_container(&mut self) -> Result<i64> {
        match self.container.take() {
            Some(container) => container.remove().await,
            None => Ok(-1),
        }
    }

    /// Nothing is left: no container, no network unless others are in it, no directory.
    async fn clear_away(&mut self) -> Result<()> {
        let removed = self.remove_container().await.map(drop);
        if let Some(network) = &self.recipe.network {
            network.remove_if_empty(&self.docker).await;
        }
        directory::remove(&self.recipe.directory).await.and(removed)
    }
}

/// Waits for the end of the container, if there is one whose end has not been told.
async fn ended(container: &mut Option<Container>) -> i64 {
    match container {
        Some(container) if !container.has_ended() => container.ended().await,
        _ => std::future::pending().await,
    }
}

async fn say(answers: &mut OwnedWriteHalf, line: &str) -> Result<()> {
    Ok(answers.write_all(format!("{line}\n").as_bytes()).await?)
}

/// In one line.
fn refusal(error: &anyhow::Error) -> String {
    format!("failed: {}", format!("{error:#}").replace('\n', " "))
}

fn socket() -> Result<(BufReader<OwnedReadHalf>, OwnedWriteHalf)> {
    let socket = StdSocket::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    let (orders, answers) = UnixStream::from_std(socket)?.into_split();
    Ok((BufReader::new(orders), answers))
}

/// Nobody ends it but the test process. A signal that somebody listens to does nothing by itself.
fn ignore_signals() -> Result<[Signal; 4]> {
    let listen = |kind| signal(kind);
    Ok([
        listen(SignalKind::hangup())?,
        listen(SignalKind::interrupt())?,
        listen(SignalKind::quit())?,
        listen(SignalKind::terminate())?,
    ])
}
