//! What is done to a fleet, drawn from a seed.

use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use quorate_testkit::proxy::{Behaviour, Flow, Tally};
use quorate_types::env::{Rng, SplitMix};
use serde_json::json;

use super::Arsenal;
use super::bag::Drawn;
use super::fleet::Fleet;
use super::full_disk::{self, Room};
use super::report::Journal;
use crate::admin::Shard;
use crate::load::{Load, Progress};
use crate::wait::eventually;

/// So many operations have to succeed before the first strike, between two, and
/// after the last: the service always comes back.
pub(super) const BETWEEN: u64 = 100;
/// How long most faults last: from what nobody notices to what makes others
/// take a node for dead.
const LASTS_MILLIS: u64 = 6_000;
/// One of so many lasts up to twice as long.
const LONG_ONE_OF: u64 = 8;
/// One of so many strikes at processes, or orders, comes in bad weather.
const WEATHER_ONE_OF: u64 = 3;
/// Nodes that may join in place of others, besides one for a move that has
/// nowhere to go, and shards that may be split: each costs the
/// machine something for the rest of the run.
const JOINS_MAX: u64 = 2;
const SPLITS_MAX: usize = 3;
/// How long an operator's order may take until it is accepted.
const ACCEPTED: Duration = Duration::from_secs(60);
/// How long a node may take to be emptied, and a migration to end, once nothing
/// stands in the way.
const CARRIED_OUT: Duration = Duration::from_secs(300);
/// How long the system may take until a process is seen to stand still, and
/// nodes until they have closed what was damaged.
const SEEN: Duration = Duration::from_secs(60);

/// A kind of strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// SIGKILL, and the process is started again.
    Kill,
    /// SIGKILL to all at once.
    KillAll,
    /// SIGSTOP, and after a while SIGCONT.
    Stall,
    /// SIGSTOP, and then SIGKILL.
    StallAndKill,
    /// Nothing gets from one node to another.
    OneWay,
    /// Nothing gets from some nodes to the others, or back.
    TwoWay,
    /// Each node hears a majority, and no two the same.
    Ring,
    /// The node that leads most is alone.
    Foremost,
    /// Everything between nodes takes long.
    Delay,
    /// Little passes between nodes.
    Throttle,
    /// Bits flip between nodes.
    Corruption,
    /// Clients lose their connections.
    HangUp,
    /// Clients' bytes trickle.
    SlowLoris,
    /// A node's disk is full.
    FullDisk,
    /// A node is made to lead what it can.
    Transfer,
    /// A replica moves to another node.
    Move,
    /// A shard is split.
    Split,
    /// A further node joins, and another is drained and leaves.
    Replace,
}

impl Kind {
    pub(super) const ALL: [Self; 18] = [
        Self::Kill,
        Self::KillAll,
        Self::Stall,
        Self::StallAndKill,
        Self::OneWay,
        Self::TwoWay,
        Self::Ring,
        Self::Foremost,
        Self::Delay,
        Self::Throttle,
        Self::Corruption,
        Self::HangUp,
        Self::SlowLoris,
        Self::FullDisk,
        Self::Transfer,
        Self::Move,
        Self::Split,
        Self::Replace,
    ];

    /// The kinds of an arsenal.
    pub(super) const fn of(arsenal: Arsenal) -> &'static [Self] {
        match arsenal {
            Arsenal::Everything => &Self::ALL,
            Arsenal::Processes => {
                &[Self::Kill, Self::KillAll, Self::Stall, Self::StallAndKill, Self::Transfer]
            }
        }
    }

    const WEATHERS: [Self; 5] =
        [Self::OneWay, Self::TwoWay, Self::Delay, Self::Throttle, Self::Corruption];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::KillAll => "kill all",
            Self::Stall => "stall",
            Self::StallAndKill => "stall and kill",
            Self::OneWay => "one-way partition",
            Self::TwoWay => "two-way partition",
            Self::Ring => "majority ring",
            Self::Foremost => "isolate the foremost",
            Self::Delay => "delay",
            Self::Throttle => "throttle",
            Self::Corruption => "corruption",
            Self::HangUp => "hang up on clients",
            Self::SlowLoris => "slow loris",
            Self::FullDisk => "full disk",
            Self::Transfer => "transfer",
            Self::Move => "move",
            Self::Split => "split",
            Self::Replace => "join and drain",
        }
    }

    /// Whether it is an affair of processes or operators, which weather makes
    /// worse.
    const fn may_meet_weather(self) -> bool {
        matches!(
            self,
            Self::Kill
                | Self::Stall
                | Self::StallAndKill
                | Self::Transfer
                | Self::Move
                | Self::Split
        )
    }
}

/// What showed that a strike took effect, or why it did not.
pub(super) type Effect = Result<String, String>;

/// A fleet under fire.
pub(super) struct Striker<'a> {
    pub(super) fleet: &'a mut Fleet,
    pub(super) load: &'a Load,
    pub(super) progress: Progress<'a>,
    pub(super) journal: &'a Journal,
    pub(super) room: Room,
    arsenal: Arsenal,
    /// Migrations that operators began.
    orders: Vec<String>,
    splits: usize,
    joined: u64,
    draining: Option<u64>,
}

impl<'a> Striker<'a> {
    pub(super) fn new(
        fleet: &'a mut Fleet,
        load: &'a Load,
        progress: Progress<'a>,
        journal: &'a Journal,
        room: Room,
        arsenal: Arsenal,
    ) -> Self {
        Self {
            fleet,
            load,
            progress,
            journal,
            room,
            arsenal,
            orders: Vec::new(),
            splits: 0,
            joined: 0,
            draining: None,
        }
    }

    /// One blow, after which every node runs, everything passes, and the
    /// service goes on. What operators ordered may still be under way. Returns
    /// whether it took effect.
    pub(super) fn strike(&mut self, drawn: Drawn) -> bool {
        let Drawn { kind, mut chance, is_again } = drawn;
        let has_weather = self.arsenal == Arsenal::Everything && !is_again;
        let is_stormy = has_weather && kind.may_meet_weather() && chance.below(WEATHER_ONE_OF) == 0;
        let weather = is_stormy.then(|| pick(&mut chance, &Kind::WEATHERS));
        let began = self.progress.elapsed();
        let before = self.fleet.between_nodes();
        let mut said = weather.map(|weather| self.impose(weather, &mut chance));
        let (what, effect) = match kind {
            Kind::Kill | Kind::StallAndKill => self.kill(kind, is_stormy, &mut chance),
            Kind::KillAll => self.kill_all(),
            Kind::Stall => self.stall(&mut chance),
            Kind::HangUp => self.hang_up(&mut chance),
            Kind::SlowLoris => self.trickle(&mut chance),
            Kind::FullDisk => full_disk::strike(self, &mut chance),
            Kind::Transfer => self.transfer(&mut chance),
            Kind::Move => self.relocate(is_stormy, &mut chance),
            Kind::Split => self.split(&mut chance),
            Kind::Replace => self.replace(&mut chance),
            _ => {
                let what = self.impose(kind, &mut chance);
                self.progress.wait_for(lasts(&mut chance));
                // Told below, when what waited has arrived.
                (what, Ok(String::new()))
            }
        };
        self.fleet.heal();
        for id in self.fleet.cluster.running() {
            self.fleet.cluster.wait_ready(id);
        }
        let is_network = said.is_none() && effect.as_ref().is_ok_and(String::is_empty);
        self.progress.wait(BETWEEN);
        let done = self.fleet.between_nodes().since(&before);
        let effect = if is_network { self.evidence(kind, &done) } else { effect };
        self.journal.note(kind.name(), began, self.progress.elapsed(), &what, &effect);
        if let Some((weather, said)) = weather.zip(said.take()) {
            let effect = self.evidence(weather, &done);
            let what = format!("{said}, with the {} above", kind.name());
            self.journal.note(weather.name(), began, self.progress.elapsed(), &what, &effect);
        }
        self.fleet.cluster.assert_running();
        effect.is_ok()
    }

    /// What the proxies saw of a fault of the network.
    fn evidence(&self, kind: Kind, done: &Tally) -> Effect {
        let Tally { dropped_bytes, late_bytes, flipped_bits, .. } = *done;
        match kind {
            Kind::Delay | Kind::Throttle if late_bytes > 0 => Ok(format!("{late_bytes} B late")),
            Kind::Delay | Kind::Throttle => Err("no byte was late".to_owned()),
            Kind::Corruption if flipped_bits > 0 => {
                // Not all: where a length was damaged and nothing follows on that
                // connection, the rest of the frame is awaited.
                let closed = eventually("nodes close damaged connections", SEEN, || {
                    let Tally { damaged, damaged_ended, .. } = self.fleet.between_nodes();
                    let closed = format!("{damaged_ended} of {damaged}");
                    if 2 * damaged_ended >= damaged { Ok(closed) } else { Err(closed) }
                });
                Ok(format!("{flipped_bits} bits flipped; so far {closed} connections closed"))
            }
            Kind::Corruption => Err("no bit was flipped".to_owned()),
            _ if dropped_bytes > 0 || late_bytes > 0 => {
                Ok(format!("{dropped_bytes} B dropped, {late_bytes} B held back"))
            }
            _ => Err("no byte was dropped".to_owned()),
        }
    }

    /// Has the network misbehave until it is healed; says how.
    fn impose(&mut self, kind: Kind, chance: &mut SplitMix) -> String {
        let nodes = self.fleet.cluster.running();
        let flow = if chance.below(4) == 0 { Flow::Stall } else { Flow::Drop };
        let one = pick(chance, &nodes);
        match kind {
            Kind::OneWay => {
                // From one to another, from one to all, or from all to one.
                let others = nodes.iter().copied().filter(|id| *id != one);
                let other = pick(chance, &others.clone().collect::<Vec<_>>());
                match chance.below(3) {
                    0 => {
                        self.fleet.cut(one, other, flow);
                        format!("{flow:?} {one} -> {other}")
                    }
                    1 => {
                        others.for_each(|other| self.fleet.cut(one, other, flow));
                        format!("{flow:?} {one} -> all")
                    }
                    _ => {
                        others.for_each(|other| self.fleet.cut(other, one, flow));
                        format!("{flow:?} all -> {one}")
                    }
                }
            }
            Kind::TwoWay => {
                let (some, others) = halves(chance, &nodes);
                for (one, other) in pairs(&some, &others) {
                    self.fleet.part(one, other, flow);
                }
                format!("{flow:?} {some:?} | {others:?}")
            }
            Kind::Foremost => {
                let first = self.fleet.foremost().unwrap_or(one);
                let others: Vec<u64> = nodes.iter().copied().filter(|id| *id != first).collect();
                for other in &others {
                    self.fleet.part(first, *other, flow);
                }
                format!("{flow:?} {first} | {others:?}")
            }
            Kind::Ring => self.ring(chance, &nodes, flow),
            Kind::Delay => {
                let behaviour = Behaviour {
                    delay: Duration::from_millis(chance.below(400)),
                    jitter: Duration::from_millis(1 + chance.below(400)),
                    seed: chance.next_u64(),
                    ..Behaviour::default()
                };
                let where_ = self.spread(chance, one, behaviour);
                format!("{:?} + {:?} {where_}", behaviour.delay, behaviour.jitter)
            }
            Kind::Throttle => {
                let rate = u32::try_from(1_000 << chance.below(8)).unwrap();
                let bytes_per_second = NonZeroU32::new(rate);
                let behaviour = Behaviour { bytes_per_second, ..Behaviour::default() };
                let where_ = self.spread(chance, one, behaviour);
                format!("{rate} B/s {where_}")
            }
            Kind::Corruption => {
                let every = 500 << chance.below(8);
                let flip_every_bytes = NonZeroU64::new(every);
                let seed = chance.next_u64();
                let behaviour = Behaviour { flip_every_bytes, seed, ..Behaviour::default() };
                let where_ = self.spread(chance, one, behaviour);
                format!("a bit in {every} B {where_}")
            }
            other => panic!("{other:?} is no fault of the network"),
        }
    }

    /// Has everything behave so, or what goes to and from one node.
    fn spread(&self, chance: &mut SplitMix, one: u64, behaviour: Behaviour) -> String {
        if chance.below(2) == 0 {
            self.fleet.everywhere(behaviour);
            "everywhere".to_owned()
        } else {
            self.fleet.surround(one, behaviour);
            format!("around {one}")
        }
    }

    /// Each node and its neighbours in a circle. Three nodes have no circle with
    /// anybody left out, so each hears only one of the two others.
    fn ring(&self, chance: &mut SplitMix, nodes: &[u64], flow: Flow) -> String {
        let nodes = shuffled(chance, nodes);
        let count = nodes.len();
        for (at, one) in nodes.iter().enumerate() {
            for (steps, other) in (1..count).map(|steps| (steps, nodes[(at + steps) % count])) {
                let is_neighbour = steps == 1 || (count > 3 && steps == count - 1);
                if !is_neighbour {
                    self.fleet.cut(*one, other, flow);
                }
            }
        }
        format!("{flow:?} in a ring of {nodes:?}")
    }

    fn kill(&mut self, kind: Kind, is_stormy: bool, chance: &mut SplitMix) -> (String, Effect) {
        let victim = pick(chance, &self.fleet.cluster.running());
        let time = lasts(chance) / 2;
        let stood = (kind == Kind::StallAndKill).then(|| self.stand_still(victim, time));
        self.fleet.cluster.kill(victim);
        // One node less, and nothing else wrong: the others go on.
        if is_stormy {
            self.progress.wait_for(time)
        } else {
            self.progress.wait(BETWEEN)
        }
        self.fleet.cluster.spawn(victim);
        let died = "died by SIGKILL".to_owned();
        let effect = stood.map_or(Ok(died), |stood| stood.map(|stood| format!("{stood}, died")));
        (format!("node {victim}"), effect)
    }

    fn kill_all(&mut self) -> (String, Effect) {
        let nodes = self.fleet.cluster.running();
        nodes.iter().for_each(|id| self.fleet.cluster.kill(*id));
        self.fleet.cluster.start_all();
        (format!("nodes {nodes:?}"), Ok("died by SIGKILL".to_owned()))
    }

    fn stall(&mut self, chance: &mut SplitMix) -> (String, Effect) {
        let victim = pick(chance, &self.fleet.cluster.running());
        let time = lasts(chance);
        let effect = self.stand_still(victim, time);
        self.fleet.cluster.resume(victim);
        (format!("node {victim} for {time:?}"), effect)
    }

    /// Stops a node for a time, at the end of which it still stands.
    fn stand_still(&mut self, victim: u64, time: Duration) -> Effect {
        let cluster = &mut self.fleet.cluster;
        cluster.pause(victim);
        let mut is_seen = true;
        eventually("the process stands still", SEEN, || match cluster.is_stopped(victim) {
            Some(false) => Err("it runs".to_owned()),
            seen => {
                is_seen = seen.is_some();
                Ok(())
            }
        });
        self.progress.wait_for(time);
        let stood = self.fleet.cluster.is_stopped(victim);
        assert_ne!(stood, Some(false), "node {victim} goes on without being told to");
        if is_seen {
            Ok("stood still".to_owned())
        } else {
            Err("stopped, but this system does not show it".to_owned())
        }
    }

    fn hang_up(&mut self, chance: &mut SplitMix) -> (String, Effect) {
        let running = self.fleet.cluster.running();
        let nodes = if chance.below(2) == 0 { vec![pick(chance, &running)] } else { running };
        let before = self.tally_of_doors(&nodes);
        let is_silent = chance.below(2) == 0;
        if is_silent {
            for id in &nodes {
                self.fleet.at_door(*id, Behaviour::black_hole());
            }
            self.progress.wait_for(lasts(chance) / 2);
        }
        for id in &nodes {
            self.fleet.hang_up(*id);
            self.fleet.at_door(*id, Behaviour::healthy());
        }
        self.progress.wait(1);
        let done = self.tally_of_doors(&nodes).since(&before);
        let how = if is_silent { "after a silence" } else { "at once" };
        let effect = match done.closed {
            0 => Err("nobody was connected".to_owned()),
            closed => Ok(format!("{closed} connections, {} B lost", done.dropped_bytes)),
        };
        (format!("nodes {nodes:?}, {how}"), effect)
    }

    fn trickle(&mut self, chance: &mut SplitMix) -> (String, Effect) {
        let running = self.fleet.cluster.running();
        let nodes = if chance.below(2) == 0 { vec![pick(chance, &running)] } else { running };
        let before = self.tally_of_doors(&nodes);
        let trickle = Duration::from_millis(1 + chance.below(40));
        for id in &nodes {
            let behaviour = Behaviour { trickle: Some(trickle), ..Behaviour::default() };
            self.fleet.at_door(*id, behaviour);
        }
        self.progress.wait_for(lasts(chance));
        let late = self.tally_of_doors(&nodes).since(&before).late_bytes;
        nodes.iter().for_each(|id| self.fleet.at_door(*id, Behaviour::healthy()));
        let what = format!("nodes {nodes:?}, a byte in {trickle:?}");
        (what, if late > 0 { Ok(format!("{late} B trickled")) } else { Err("no byte".to_owned()) })
    }

    fn tally_of_doors(&self, nodes: &[u64]) -> Tally {
        let tallies = nodes.iter().map(|id| self.fleet.of_clients(*id));
        tallies.fold(Tally::default(), |sum, tally| sum.plus(&tally))
    }

    /// The shards as any node sees them.
    fn shards(&self) -> Result<Vec<Shard>, String> {
        let running = self.fleet.cluster.running();
        let seen = running.iter().find_map(|id| self.fleet.cluster.admin(*id).shards().ok());
        seen.ok_or_else(|| "no node shows its shards".to_owned())
    }

    fn transfer(&mut self, chance: &mut SplitMix) -> (String, Effect) {
        let to = pick(chance, &self.fleet.cluster.running());
        let admin = self.fleet.cluster.admin(to);
        let (mut moved, mut refused) = (0, String::new());
        for shard in self.shards().unwrap_or_default() {
            if shard.leader == Some(to) || !shard.voters().contains(&to) {
                continue;
            }
            match admin.transfer(shard.id, to) {
                // Answered when the new leader is elected.
                Ok(()) => moved += 1,
                Err(why) => refused = why,
            }
        }
        let effect = match moved {
            0 if refused.is_empty() => Err("it leads all it can".to_owned()),
            0 => Err(refused),
            moved => Ok(format!("{moved} leaderships moved")),
        };
        (format!("to node {to}"), effect)
    }

    /// Moves a replica of any shard. Where every node has one of each, a
    /// further node joins first, which takes fine weather.
    fn relocate(&mut self, is_stormy: bool, chance: &mut SplitMix) -> (String, Effect) {
        let (what, effect) = self.order_move(chance);
        // What Replace leaves over is kept for this.
        if effect.is_ok() || is_stormy || self.joined > JOINS_MAX || self.has_room_to_move() {
            return (what, effect);
        }
        let new = self.admit();
        let (what, effect) = self.order_move(chance);
        (format!("{what}, after node {new} joined"), effect)
    }

    /// Whether some shard has no replica on some node that stays.
    fn has_room_to_move(&self) -> bool {
        let homes =
            self.fleet.cluster.running().into_iter().filter(|id| Some(*id) != self.draining);
        let homes: Vec<u64> = homes.collect();
        self.shards().unwrap_or_default().iter().any(|shard| {
            let is_here = |id: &u64| shard.replicas.iter().any(|replica| replica.node == *id);
            !homes.iter().all(is_here)
        })
    }

    fn order_move(&mut self, chance: &mut SplitMix) -> (String, Effect) {
        let homes: Vec<u64> = self.fleet.cluster.running();
        let homes = homes.into_iter().filter(|id| Some(*id) != self.draining);
        let homes: Vec<u64> = homes.collect();
        let mut refused = "every node has a replica of every shard".to_owned();
        for shard in shuffled(chance, &self.shards().unwrap_or_default()) {
            let here: Vec<u64> = shard.replicas.iter().map(|replica| replica.node).collect();
            let free: Vec<u64> = homes.iter().copied().filter(|id| !here.contains(id)).collect();
            if free.is_empty() || here.is_empty() {
                continue;
            }
            let (from, to) = (pick(chance, &here), pick(chance, &free));
            let path = format!("/v1/shards/{}/move", shard.id);
            match self.order(chance, &path, &json!({ "from": from, "to": to })) {
                Ok(said) => return (format!("shard {} {from} -> {to}", shard.id), Ok(said)),
                Err(why) => refused = why,
            }
        }
        ("any shard".to_owned(), Err(refused))
    }

    fn split(&mut self, chance: &mut SplitMix) -> (String, Effect) {
        if self.splits >= SPLITS_MAX {
            return ("any shard".to_owned(), Err("enough shards were split".to_owned()));
        }
        let mut refused = "no shard is known".to_owned();
        for shard in shuffled(chance, &self.shards().unwrap_or_default()) {
            let path = format!("/v1/shards/{}/split", shard.id);
            match self.order(chance, &path, &json!({})) {
                Ok(said) => {
                    self.splits += 1;
                    return (format!("shard {}", shard.id), Ok(said));
                }
                Err(why) => refused = why,
            }
        }
        ("any shard".to_owned(), Err(refused))
    }

    /// Asks any node for a migration; does not wait for its end.
    fn order(&mut self, chance: &mut SplitMix, path: &str, body: &serde_json::Value) -> Effect {
        let asked = pick(chance, &self.fleet.cluster.running());
        let migration = self.fleet.cluster.admin(asked).post(path, body)?;
        let migration = migration.ok_or_else(|| format!("{path} has no migration"))?;
        self.orders.push(migration);
        Ok(format!("accepted by node {asked}"))
    }

    /// The first time a node joins and another begins to be emptied; the next
    /// time that one leaves, if it is empty by then.
    fn replace(&mut self, chance: &mut SplitMix) -> (String, Effect) {
        if let Some(old) = self.draining {
            let what = format!("node {old} leaves");
            return match self.replicas_left(old) {
                Ok(0) => {
                    self.leave(old);
                    (what, Ok("it was empty and ended with status 0".to_owned()))
                }
                Ok(left) => (what, Err(format!("it still has {left} replicas"))),
                Err(why) => (what, Err(why)),
            };
        }
        if self.joined >= JOINS_MAX {
            return ("a node".to_owned(), Err("enough nodes have joined".to_owned()));
        }
        let nodes = self.fleet.cluster.running();
        let new = self.admit();
        let old = pick(chance, &nodes);
        let path = format!("/v1/nodes/{old}/drain");
        let cluster = &self.fleet.cluster;
        eventually("a node is told to drain", ACCEPTED, || {
            cluster.admin(new).post(&path, &json!({})).map(drop)
        });
        self.draining = Some(old);
        (format!("node {new} for node {old}"), Ok("serves; the drain was accepted".to_owned()))
    }

    /// A further node joins; it serves when this returns.
    fn admit(&mut self) -> u64 {
        self.joined += 1;
        // A number is never used again, whoever has left.
        let new = self.fleet.cluster.ids().into_iter().max().unwrap() + 1;
        self.fleet.join(new);
        self.fleet.cluster.wait_ready(new);
        self.load.add_gateway(self.fleet.door(new));
        new
    }

    /// The nodes that hold replicas and shall go on holding them.
    pub(super) fn homes(&self) -> Vec<u64> {
        let shards = eventually("the shards are known", SEEN, || self.shards());
        let mut homes: Vec<u64> = shards.iter().flat_map(Shard::voters).collect();
        homes.sort_unstable();
        homes.dedup();
        let running = self.fleet.cluster.running();
        homes.retain(|id| running.contains(id) && Some(*id) != self.draining);
        homes
    }

    fn replicas_left(&self, node: u64) -> Result<u64, String> {
        let others = self.fleet.cluster.running().into_iter().filter(|id| *id != node);
        let seen = others.map(|id| self.fleet.cluster.admin(id).node(node));
        let mut why = "nobody was asked".to_owned();
        for seen in seen {
            match seen {
                Ok(seen) if seen.draining => return Ok(seen.replicas),
                Ok(seen) => why = format!("{seen:?}"),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// An empty node goes for good.
    fn leave(&mut self, node: u64) {
        self.load.remove_gateway(self.fleet.door(node));
        self.fleet.cluster.retire(node);
        self.draining = None;
    }

    /// Waits, with nothing in the way, until all that was ordered is carried
    /// out. Says how it ended.
    pub(super) fn settle(&mut self) -> Vec<String> {
        if let Some(old) = self.draining {
            eventually("the drained node is empty", CARRIED_OUT, || {
                match self.replicas_left(old) {
                    Ok(0) => Ok(()),
                    Ok(left) => Err(format!("{left} replicas")),
                    Err(why) => Err(why),
                }
            });
            self.leave(old);
        }
        let cluster = &self.fleet.cluster;
        let ends = self.orders.iter().map(|order| {
            let over = eventually("a migration is over", CARRIED_OUT, || {
                let asked = cluster.running()[0];
                let migration = cluster.admin(asked).migration(order)?;
                if migration.finished { Ok(migration) } else { Err(format!("{migration:?}")) }
            });
            let end =
                over.error.map_or_else(|| "done".to_owned(), |why| format!("given up: {why}"));
            format!("{} of {}: {end}", over.kind, over.group)
        });
        ends.collect()
    }
}

/// How long a fault lasts.
fn lasts(chance: &mut SplitMix) -> Duration {
    let longest = if chance.below(LONG_ONE_OF) == 0 { 2 * LASTS_MILLIS } else { LASTS_MILLIS };
    Duration::from_millis(200 + chance.below(longest))
}

pub(super) fn pick<T: Copy>(chance: &mut SplitMix, from: &[T]) -> T {
    from[usize::try_from(chance.below(from.len() as u64)).unwrap()]
}

pub(super) fn shuffled<T: Clone>(chance: &mut SplitMix, of: &[T]) -> Vec<T> {
    let mut mixed = of.to_vec();
    for at in (1..mixed.len()).rev() {
        mixed.swap(at, usize::try_from(chance.below(at as u64 + 1)).unwrap());
    }
    mixed
}

/// Two parts, neither of them empty.
fn halves(chance: &mut SplitMix, nodes: &[u64]) -> (Vec<u64>, Vec<u64>) {
    let mut some = shuffled(chance, nodes);
    let at = 1 + chance.below(some.len() as u64 - 1);
    let others = some.split_off(usize::try_from(at).unwrap());
    (some, others)
}

fn pairs(some: &[u64], others: &[u64]) -> Vec<(u64, u64)> {
    some.iter().flat_map(|one| others.iter().map(move |other| (*one, *other))).collect()
}

#[cfg(test)]
mod tests;
