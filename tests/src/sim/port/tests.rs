//! The simulated network as a node's own, against the suites of the ports that
//! it stands for: a simulation on a network that breaks their promises would
//! prove nothing about those that keep them.

use std::sync::Arc;

use quorate::types::hello::Protocol;
use quorate::types::{Blob, DiskId};
use quorate_gossip::conformance as gossip;
use quorate_raft::conformance::{End, Net, network_suite};
use quorate_testkit::sim::{LinkConfig, Sim, run};

use super::*;

const NOBODY: NodeId = NodeId(99);

fn hello(node: NodeId) -> Hello {
    Hello {
        protocol: Protocol::Mesh,
        lane: 0,
        cluster: None,
        node,
        disk: DiskId(u128::from(node.0)),
        incarnation: 1,
        address: Blob::from(address(node).as_str()),
    }
}

fn open(sim: &Sim, network: &SimNetwork, node: NodeId) -> (Arc<Port>, mpsc::Receiver<Inbound>) {
    let node = SimNode::new(node, sim.seed());
    let medium = Medium {
        network: network.clone(),
        deafness: Deafness::default(),
        trace: sim.trace().clone(),
        room: 1,
    };
    Port::open(medium, &node, None)
}

#[test]
fn the_simulated_network_conforms() {
    let finished = run(7, |sim| async move {
        network_suite(|nodes| {
            let network = SimNetwork::new(&sim, LinkConfig::default());
            let end = |(node, service): (NodeId, Arc<dyn Service>)| {
                let (port, _) = open(&sim, &network, node);
                port.serve(service);
                End { network: Arc::new(Ways(port)), address: address(node), hello: hello(node) }
            };
            let ends = nodes.into_iter().map(end).collect();
            std::future::ready(Net { ends, nowhere: address(NOBODY) })
        })
        .await;
    });
    finished.unwrap();
}

#[test]
fn the_simulated_gossip_conforms() {
    let finished = run(7, |sim| async move {
        gossip::transport_suite(|nodes| {
            let network = SimNetwork::new(&sim, LinkConfig::default());
            let end = |node| {
                let (port, inbound) = open(&sim, &network, node);
                gossip::End { transport: Arc::new(Ways(port)), address: address(node), inbound }
            };
            let ends: Vec<_> = nodes.into_iter().map(end).collect();
            std::future::ready((ends, address(NOBODY)))
        })
        .await;
    });
    finished.unwrap();
}
