//! A network of containers, in which each has an address that it keeps over its deaths, and from which it can be cut off.

use std::collections::HashMap;
use std::str::FromStr;

use anyhow::{Context as _, Result};
use bollard::Docker;
use bollard::models::{
    EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest,
    NetworkDisconnectRequest,
};

use crate::mark::{LABEL, Mark};

/// A container's place in a network: `NAME,PREFIX,ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    name: String,
    /// The first three bytes of all addresses: `198.18.7`.
    prefix: String,
    address: String,
}

impl Network {
    /// Makes it, unless the keeper of another container has done so.
    pub(crate) async fn make(&self, docker: &Docker) -> Result<()> {
        if docker.inspect_network(&self.name, None).await.is_ok() {
            return Ok(());
        }
        let config = IpamConfig {
            subnet: Some(format!("{}.0/24", self.prefix)),
            gateway: Some(format!("{}.1", self.prefix)),
            // What the engine gives to a container that comes, before it gets its own, is never another one's own.
            ip_range: Some(format!("{}.128/25", self.prefix)),
            ..IpamConfig::default()
        };
        let request = NetworkCreateRequest {
            name: self.name.clone(),
            ipam: Some(Ipam { config: Some(vec![config]), ..Ipam::default() }),
            // With each death of a server its keeper changes, and while all are dead nobody is in the network.
            labels: Some(HashMap::from([(LABEL.to_owned(), Mark::of_the_parent()?.label())])),
            ..NetworkCreateRequest::default()
        };
        docker
            .create_network(request)
            .await
            .with_context(|| format!("making the network {}.0/24", self.prefix))?;
        Ok(())
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Gives the container the address that is its own.
    pub(crate) async fn connect(&self, docker: &Docker, container: &str) -> Result<()> {
        let address =
            EndpointIpamConfig { ipv4_address: Some(self.address.clone()), ..EndpointIpamConfig::default() };
        let endpoint = EndpointSettings { ipam_config: Some(address), ..EndpointSettings::default() };
        let request =
            NetworkConnectRequest { container: container.to_owned(), endpoint_config: Some(endpoint) };
        docker.connect_network(&self.name, request).await.context("connecting to the network")
    }

    /// Cuts the container off.
    pub(crate) async fn disconnect(&self, docker: &Docker, container: &str) -> Result<()> {
        let request = NetworkDisconnectRequest { container: container.to_owned(), force: Some(true) };
        docker.disconnect_network(&self.name, request).await.context("cutting off from the network")
    }

    /// The last one who goes removes it.
    pub(crate) async fn remove_if_empty(&self, docker: &Docker) {
        docker.remove_network(&self.name).await.ok();
    }
}

impl FromStr for Network {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(',').map(str::to_owned);
        let mut next = || parts.next().with_context(|| format!("no network: {text}"));
        Ok(Self { name: next()?, prefix: next()?, address: next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_from_an_argument() {
        let network: Network = "n,198.18.7,198.18.7.2".parse().unwrap();
        let expected =
            Network { name: "n".to_owned(), prefix: "198.18.7".to_owned(), address: "198.18.7.2".to_owned() };
        assert_eq!(network, expected);
        "n,198.18.7".parse::<Network>().unwrap_err();
    }
}
