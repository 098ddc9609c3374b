//! A server's container. Its paths, users, processes and ports are those of this machine, so that tests see the server as they see an
//! installed one: `127.0.0.1` is the same place for all, process ids are what the server says, and files are where they are.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::pin;

use anyhow::{Context as _, Result};
use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::models::{HostConfig, HostConfigLogConfig, SystemInfoCgroupDriverEnum};
use bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptionsBuilder, LogsOptionsBuilder, WaitContainerOptions,
};
use futures_util::StreamExt as _;
use testcontainers::core::Mount;
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, GenericImage, ImageExt as _};
use tokio::task::JoinHandle;

use crate::mark::{LABEL, Mark};
use crate::network::Network;

/// The label that has the server's directory, for people and tests that look for what is left.
const DIRECTORY: &str = "locks.test-servers.directory";

/// What several processes have, as a server is.
const CPU_SHARES: i64 = 8 * 1024;

/// What a server's containers are made from, one after the other.
pub(crate) struct Recipe {
    pub(crate) directory: PathBuf,
    pub(crate) image: String,
    /// `USER:GROUP`, as numbers.
    pub(crate) user: String,
    /// `None` is the machine's own.
    pub(crate) network: Option<Network>,
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
}

/// One that has been started.
pub(crate) struct Container {
    docker: Docker,
    container: ContainerAsync<GenericImage>,
    network: Option<Network>,
    /// Follows its log to the end, and then waits for its own. The result is its exit code.
    follower: Option<JoinHandle<i64>>,
}

impl Container {
    /// Makes and starts it.
    pub(crate) async fn start(docker: &Docker, recipe: &Recipe) -> Result<Self> {
        let directory = &recipe.directory;
        let log = File::options().create(true).append(true).open(directory.join("log"))?;
        let (name, tag) = name_and_tag(&recipe.image);
        let network = recipe.network.as_ref().map_or("host", Network::name);
        let image = GenericImage::new(name, tag).with_entrypoint(&recipe.program);
        let request = image
            .with_cmd(recipe.arguments.clone())
            .with_network(network)
            .with_user(&recipe.user)
            .with_working_dir(text(directory)?)
            .with_label(DIRECTORY, text(directory)?)
            .with_label(LABEL, Mark::of_this_process()?.label())
            .with_mount(same_path(directory.parent().unwrap_or(directory))?)
            .with_mount(Mount::bind_mount(text(&users(recipe)?)?, "/etc/passwd"))
            .with_host_config_modifier(share_with_machine(has_plain_cgroups(docker).await?));
        let container = request.start().await?;
        let follower = Some(tokio::spawn(follow(docker.clone(), container.id().to_owned(), log)));
        let container = Self { docker: docker.clone(), container, network: recipe.network.clone(), follower };
        if let Some(network) = &container.network {
            // Nobody can ask for an address at the start.
            network.disconnect(docker, container.container.id()).await?;
            network.connect(docker, container.container.id()).await?;
        }
        Ok(container)
    }

    /// Its first process, as this machine numbers it. `None` if that has ended.
    pub(crate) async fn process_id(&self) -> Result<Option<i64>> {
        let inspected =
            self.docker.inspect_container(self.container.id(), None::<InspectContainerOptions>).await?;
        Ok(inspected.state.and_then(|state| state.pid).filter(|process| *process > 0))
    }

    /// Waits for its end, and tells the exit code. By then all that it said is in the log.
    pub(crate) async fn ended(&mut self) -> i64 {
        let status = match &mut self.follower {
            Some(follower) => follower.await.unwrap_or(-1),
            None => std::future::pending().await,
        };
        self.follower = None;
        status
    }

    /// Whether its end has been waited for.
    pub(crate) fn has_ended(&self) -> bool {
        self.follower.is_none()
    }

    pub(crate) async fn pause(&self) -> Result<()> {
        self.unless_down(self.container.pause().await.map_err(anyhow::Error::from)).await
    }

    pub(crate) async fn resume(&self) -> Result<()> {
        self.unless_down(self.container.unpause().await.map_err(anyhow::Error::from)).await
    }

    pub(crate) async fn disconnect(&self) -> Result<()> {
        self.network()?.disconnect(&self.docker, self.container.id()).await
    }

    pub(crate) async fn reconnect(&self) -> Result<()> {
        self.network()?.connect(&self.docker, self.container.id()).await
    }

    /// Kills all its processes, also if they are paused, waits until they are gone, and removes it. By then all that it said is in the
    /// log. Tells the exit code.
    pub(crate) async fn remove(mut self) -> Result<i64> {
        let mut status = -1;
        if !self.has_ended() {
            let kill = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
            let killed = self.docker.kill_container(self.container.id(), Some(kill)).await;
            self.unless_down(killed.map_err(anyhow::Error::from)).await?;
            status = self.ended().await;
        }
        self.container.rm().await?;
        Ok(status)
    }

    /// That something can't be done to a container that is down is no error: its end is told.
    async fn unless_down(&self, result: Result<()>) -> Result<()> {
        match result {
            Err(error) if self.process_id().await?.is_some() => Err(error),
            _ => Ok(()),
        }
    }

    fn network(&self) -> Result<&Network> {
        self.network.as_ref().context("it has no network of its own")
    }
}

/// Copies what the container says until it has ended.
async fn follow(docker: Docker, container: String, mut log: File) -> i64 {
    let options = LogsOptionsBuilder::new().follow(true).stdout(true).stderr(true).build();
    {
        let mut said = pin!(docker.logs(&container, Some(options)));
        while let Some(Ok(said)) = said.next().await {
            // Nobody could be told but by this log.
            log.write_all(&said.into_bytes()).ok();
        }
    }
    wait(&docker, &container).await
}

/// Waits for its end and tells the exit code, or -1 if that can't be known.
async fn wait(docker: &Docker, container: &str) -> i64 {
    let mut ended = pin!(docker.wait_container(container, None::<WaitContainerOptions>));
    match ended.next().await {
        Some(Ok(response)) => response.status_code,
        Some(Err(DockerError::DockerContainerWaitError { code, .. })) => code,
        _ => -1,
    }
}

/// Whether the engine's control groups are its own, next to the processes of the machine, and not those of systemd.
async fn has_plain_cgroups(docker: &Docker) -> Result<bool> {
    let driver = docker.info().await?.cgroup_driver;
    Ok(driver == Some(SystemInfoCgroupDriverEnum::CGROUPFS))
}

fn share_with_machine(plain_cgroups: bool) -> impl Fn(&mut HostConfig) + Send + Sync {
    move |config| {
        if plain_cgroups {
            // The engine's own group has all containers in it, and no more of the processors than one process has. On a busy machine that
            // starves a server whose clients have plenty.
            config.cgroup_parent = Some("/".to_owned());
            config.cpu_shares = Some(CPU_SHARES);
        }
        share(config);
    }
}

fn share(config: &mut HostConfig) {
    config.pid_mode = Some("host".to_owned());
    // Others can't be followed.
    config.log_config = Some(HostConfigLogConfig { typ: Some("json-file".to_owned()), config: None });
    // All ports that the image names would be open to the world otherwise.
    config.publish_all_ports = Some(false);
}

/// A file with the only users that a server asks for: some refuse to be a user without a name.
fn users(recipe: &Recipe) -> Result<PathBuf> {
    let path = recipe.directory.join("passwd");
    fs::write(&path, passwd(&recipe.user))?;
    Ok(path)
}

fn passwd(user: &str) -> String {
    let root = "root:x:0:0::/:/bin/sh\n";
    let name = if user.starts_with("0:") { "" } else { &format!("server:x:{user}::/:/bin/sh\n") };
    format!("{root}{name}")
}

fn same_path(path: &Path) -> Result<Mount> {
    let path = text(path)?;
    Ok(Mount::bind_mount(path, path))
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// `quay.io:443/a/b:tag`, where `tag` may be missing.
fn name_and_tag(image: &str) -> (&str, &str) {
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_told_from_a_port() {
        assert_eq!(name_and_tag("redis:7"), ("redis", "7"));
        assert_eq!(name_and_tag("localhost:5000/redis"), ("localhost:5000/redis", "latest"));
        assert_eq!(name_and_tag("localhost:5000/redis:7"), ("localhost:5000/redis", "7"));
        assert_eq!(name_and_tag("redis@sha256:abc"), ("redis@sha256", "abc"));
    }

    #[test]
    fn every_user_has_a_name() {
        assert_eq!(passwd("0:0"), "root:x:0:0::/:/bin/sh\n");
        assert_eq!(passwd("101:104"), "root:x:0:0::/:/bin/sh\nserver:x:101:104::/:/bin/sh\n");
    }
}
