//! Removes what keepers have left behind that were killed themselves.

use std::collections::HashMap;

use anyhow::Result;
use bollard::Docker;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListNetworksOptionsBuilder, RemoveContainerOptionsBuilder,
};

use crate::mark::{LABEL, Mark};

/// Removes the containers and networks of keepers that are gone. Another keeper may do the same at the same time.
pub(crate) async fn sweep(docker: &Docker) -> Result<()> {
    let marked = HashMap::from([("label", vec![LABEL])]);
    let containers = ListContainersOptionsBuilder::new().all(true).filters(&marked).build();
    for container in docker.list_containers(Some(containers)).await? {
        if let Some(id) = container.id.filter(|_| Mark::is_left_behind(container.labels.as_ref())) {
            let removal = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            // Whoever was quicker has done it.
            docker.remove_container(&id, Some(removal)).await.ok();
        }
    }
    let networks = ListNetworksOptionsBuilder::new().filters(&marked).build();
    for network in docker.list_networks(Some(networks)).await? {
        if let Some(id) = network.id.filter(|_| Mark::is_left_behind(network.labels.as_ref())) {
            // One that another keeper's container is in stays for that one to remove.
            docker.remove_network(&id).await.ok();
        }
    }
    Ok(())
}
