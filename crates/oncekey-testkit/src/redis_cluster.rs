//! [`RedisCluster`]: six servers, three primaries with a replica each.

use crate::process::wait_until;
use crate::{Flavor, Redis};

/// A throwaway Redis Cluster.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// How many primaries there are, and how many replicas.
    pub const PRIMARIES: usize = 3;
    const SLOTS: usize = 16_384;

    /// A new, empty cluster that keeps nothing on disk.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(Flavor::Redis, &[])
    }

    /// The same with settings of its own for each node.
    #[must_use]
    pub fn start_with(flavor: Flavor, arguments: &[&str]) -> Self {
        let own = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--save", ""];
        let arguments = [&own, arguments].concat();
        let nodes: Vec<_> =
            (0..2 * Self::PRIMARIES).map(|_| Redis::start_with(flavor, &arguments)).collect();
        for (number, node) in nodes.iter().enumerate() {
            node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
        }
        for (number, node) in nodes[..Self::PRIMARIES].iter().enumerate() {
            let first = Self::SLOTS * number / Self::PRIMARIES;
            let last = Self::SLOTS * (number + 1) / Self::PRIMARIES - 1;
            let range = [first.to_string(), last.to_string()];
            assert_eq!(node.ask(&["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]), "OK");
        }
        for node in &nodes[1..] {
            let port = nodes[0].port().to_string();
            assert_eq!(node.ask(&["CLUSTER", "MEET", "127.0.0.1", &port]), "OK");
        }
        let cluster = Self { nodes };
        let count = cluster.nodes.len().to_string();
        cluster.wait_for("the nodes know each other", |node| {
            field(node, "cluster_known_nodes").as_deref() == Some(&count)
        });
        for (primary, replica) in cluster.pairs() {
            let id = primary.ask(&["CLUSTER", "MYID"]);
            wait_until("a replica knows its primary", || {
                replica.ask(&["CLUSTER", "REPLICATE", &id]) == "OK"
            });
        }
        cluster.wait_for("the cluster is ready", |node| {
            field(node, "cluster_state").as_deref() == Some("ok")
        });
        for (primary, replica) in cluster.pairs() {
            wait_until("the replica has caught up", || {
                replica.info("master_link_status").as_deref() == Some("up")
                    && primary.info("connected_slaves").as_deref() == Some("1")
            });
        }
        cluster
    }

    /// All nodes: first the primaries of the beginning, then their replicas in the same order.
    #[must_use]
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// The addresses of all nodes, as `redis://` URLs.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }

    /// Moves `slot` to the primary number `to`, keys and all, and says whether it was elsewhere.
    pub fn move_slot(&self, slot: u16, to: usize) -> bool {
        self.move_slot_while(slot, to, || {})
    }

    /// The same. `meanwhile` runs when the keys are where they go, and the slot is not: whoever asks its
    /// owner for them is told to ask there, this once (`ASK`).
    pub fn move_slot_while(&self, slot: u16, to: usize, meanwhile: impl FnOnce()) -> bool {
        let slot = slot.to_string();
        let target = &self.nodes[to];
        let primaries = &self.nodes[..Self::PRIMARIES];
        let from = primaries.iter().find(|node| {
            let found = node.ask(&["CLUSTER", "COUNTKEYSINSLOT", &slot]);
            found != "0" && node.port() != target.port()
        });
        let Some(from) = from else { return false };
        let (from_id, to_id) = (from.ask(&["CLUSTER", "MYID"]), target.ask(&["CLUSTER", "MYID"]));
        target.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
        from.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
        from.move_keys(&slot, target.port());
        meanwhile();
        for node in [target, from].into_iter().chain(primaries) {
            node.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
        }
        // The next owner of a slot claims it by an epoch above all that it knows of. One that it has not
        // heard of yet would win, and take back a slot whose keys are gone from there.
        wait_until("all nodes know of the newest epoch", || {
            let epochs = self.nodes.iter().map(|node| field(node, "cluster_current_epoch"));
            let epochs: Vec<_> = epochs.collect();
            epochs.iter().all(|epoch| epoch.is_some() && *epoch == epochs[0])
        });
        true
    }

    /// Kills a primary, and waits until its replica has taken over.
    pub fn fail_over(&self, number: usize) {
        self.nodes[number].kill();
        let replica = &self.nodes[Self::PRIMARIES + number];
        wait_until("the replica has taken over", || {
            replica.info("role").as_deref() == Some("master")
                && field(replica, "cluster_state").as_deref() == Some("ok")
        });
    }

    fn pairs(&self) -> impl Iterator<Item = (&Redis, &Redis)> {
        let (primaries, replicas) = self.nodes.split_at(Self::PRIMARIES);
        primaries.iter().zip(replicas)
    }

    fn wait_for(&self, what: &str, done: impl Fn(&Redis) -> bool) {
        wait_until(what, || self.nodes.iter().all(&done));
    }
}

/// A field of `CLUSTER INFO`.
fn field(node: &Redis, name: &str) -> Option<String> {
    let info = node.ask(&["CLUSTER", "INFO"]);
    let field = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    field.map(|value| value.trim().to_owned())
}
