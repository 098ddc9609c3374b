//! Where a server runs: as a child process of its keeper, or in a container.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr};

use crate::account::Account;
use crate::image::Image;

/// Where a server runs, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// `None` is this process's own account.
    pub(crate) account: Option<Account>,
    /// `None` is no container.
    pub(crate) container: Option<Container>,
}

/// A container to be made.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) image: Image,
    /// `None` is the network of the machine.
    pub(crate) network: Option<Network>,
}

impl Place {
    /// The place for a server from this image, or for an installed one.
    pub(crate) fn of(image: Option<&Image>, account: Option<Account>) -> Self {
        let container = image.map(|image| Container { image: image.clone(), network: None });
        Self { account, container }
    }

    /// The same, in a network of containers.
    pub(crate) fn within(mut self, network: Network) -> Self {
        if let Some(container) = &mut self.container {
            container.network = Some(network);
        }
        self
    }

    /// Whether it can be cut off from others.
    pub(crate) fn is_in_a_network_of_its_own(&self) -> bool {
        self.container.as_ref().is_some_and(|container| container.network.is_some())
    }
}

/// A place in a network of containers.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    name: String,
    block: Ipv4Addr,
    member: u8,
}

impl Network {
    /// The places of so many members in a network that nobody else may have.
    ///
    /// Its addresses are from the block for measurements between networks, which nobody uses to reach anything.
    pub(crate) fn of_members(count: u8) -> Vec<Self> {
        let [high, low, ..] = RandomState::new().hash_one(std::process::id()).to_be_bytes();
        let block = Ipv4Addr::new(198, 18 + (high & 1), low, 0);
        let name = format!("locks-test-{}-{high:02x}{low:02x}", std::process::id());
        (0..count).map(|member| Self { name: name.clone(), block, member }).collect()
    }

    /// The first one is the engine's.
    pub(crate) fn address(&self) -> IpAddr {
        let [a, b, c, _] = self.block.octets();
        Ipv4Addr::new(a, b, c, self.member.saturating_add(2)).into()
    }

    /// As the keeper wants to have it.
    pub(crate) fn argument(&self) -> String {
        let [a, b, c, _] = self.block.octets();
        format!("{},{a}.{b}.{c},{}", self.name, self.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_have_addresses_of_one_network() {
        let members = Network::of_members(3);
        let [first, second, third] = &members[..] else { panic!("three") };
        assert_eq!(first.name, third.name);
        let addresses = [first, second, third].map(|member| member.address().to_string());
        for (number, address) in addresses.iter().enumerate() {
            assert!(address.starts_with("198.18.") || address.starts_with("198.19."), "{address}");
            assert!(address.ends_with(&format!(".{}", number + 2)), "{address}");
        }
        assert!(first.argument().ends_with(&format!(",{}", addresses[0])), "{}", first.argument());
    }
}
