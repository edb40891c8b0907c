//! Chaos with real processes: a cluster behind proxies, clients that remember
//! what they were told, and strikes drawn from a seed. The seed decides what is
//! done in which order; when, and what it meets, is the machine's.

mod bag;
mod fleet;
mod full_disk;
mod report;
mod strikes;

use std::fs;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_testkit::check::Verdict;
use quorate_types::env::{Rng, SplitMix};

use crate::load::{Judgement, Load, REPLIES, Work};
use bag::{Bag, DEMANDS_FROM_SECONDS, Demand};
use fleet::Fleet;
use full_disk::Room;
use report::{Check, Journal};
use strikes::{BETWEEN, Striker};

const CLIENTS: [Work; 10] = [
    Work::Lists,
    Work::Lists,
    Work::Lists,
    Work::Lists,
    Work::Bank,
    Work::Bank,
    Work::Puts,
    Work::Puts,
    Work::Registers,
    Work::Registers,
];

/// Nodes that a cluster may begin with.
pub const NODES_MIN: u64 = 3;
/// More would have too little of one machine's time.
pub const NODES_MAX: u64 = 5;

/// How much of the history is shown with a violation.
const EXCERPT_OPERATIONS: usize = 12;

/// With what a cluster is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arsenal {
    /// Everything there is.
    Everything,
    /// What is over soon: kills, stalls and transfers, in fine weather.
    Processes,
}

/// What to do to whom.
#[derive(Debug, Clone)]
pub struct Options {
    /// With what.
    pub arsenal: Arsenal,
    /// Decides the order of strikes and what clients ask for.
    pub seed: u64,
    /// How long strikes go on.
    pub seconds: u64,
    /// Nodes that found the cluster.
    pub nodes: u64,
    /// Where the folder of this run is made, named after its seed.
    pub folder: PathBuf,
    /// Whether a small file system may be mounted for a disk that runs full.
    pub may_mount: bool,
    /// Whether the folder stays even if nothing was found.
    pub keeps: bool,
    /// Whether bits flip where nothing guards them, between clients and a
    /// gateway: then something must be found.
    pub is_control: bool,
}

impl Options {
    /// As many nodes as a seed says.
    #[must_use]
    pub fn nodes_of(seed: u64) -> u64 {
        NODES_MIN + SplitMix::new(!seed).below(NODES_MAX - NODES_MIN + 1)
    }

    fn home(&self) -> PathBuf {
        self.folder.join(self.seed.to_string())
    }

    fn again(&self) -> String {
        let Self { seed, seconds, nodes, may_mount, is_control, .. } = self;
        if self.arsenal == Arsenal::Processes {
            return format!(
                "QUORATE_TORMENT_SECONDS={seconds} QUORATE_TORMENT_SEED={seed} cargo nextest run \
                 -p quorate-tests torment"
            );
        }
        let without = if *may_mount { "" } else { " --without-mount" };
        let control = if *is_control { " --control" } else { "" };
        format!(
            "cargo xtask chaos --seconds {seconds} --nodes {nodes} --seed {seed}{without}{control}"
        )
    }
}

/// How a run ended.
#[derive(Debug)]
enum Ending {
    /// Every checker is content; the report.
    Clean(String),
    /// A checker's verdict.
    Judged(String),
    /// Something went wrong that no checker has judged.
    Broken(String),
}

impl Ending {
    /// Whether it is as it should be. Of a control only a verdict shows that
    /// the checkers can see: a cluster that never starts fails any test.
    const fn is_due(&self, is_control: bool) -> bool {
        match self {
            Self::Clean(_) => !is_control,
            Self::Judged(_) => is_control,
            Self::Broken(_) => false,
        }
    }
}

/// Torments a cluster and judges what its clients saw. Says what was done on
/// standard output; true when nothing is wrong, or for a control when a checker
/// has found something.
///
/// # Errors
/// When the run's folder cannot be made, or no time is given for strikes.
pub fn run(options: &Options) -> io::Result<bool> {
    if options.seconds == 0 {
        let why = "strikes go on for a second at least, and 0 seconds are asked for";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let home = options.home();
    full_disk::clear(&home);
    if home.exists() {
        fs::remove_dir_all(&home)?;
    }
    fs::create_dir_all(&home)?;
    let home = fs::canonicalize(home)?;
    let journal = Journal::new(&home)?;
    let room = Room::find(&home, options.may_mount);
    journal.say(&format!(
        "chaos: seed {}, {} nodes, strikes for {} s; disks are filled by {}",
        options.seed,
        options.nodes,
        options.seconds,
        room.how()
    ));
    let load = OnceLock::new();
    let first = first_panic();
    let ended =
        panic::catch_unwind(AssertUnwindSafe(|| story(options, &home, room, &journal, &load)));
    // Hooks are the process's; whatever panics later has its own.
    drop(panic::take_hook());
    let ending = ended.unwrap_or_else(|_| {
        let what = first.lock().take().unwrap_or_else(|| "an unknown panic".to_owned());
        Ending::Broken(what)
    });
    tell(options, &home, &journal, load.get(), &ending)?;
    Ok(ending.is_due(options.is_control))
}

/// Says how a run ended, and leaves what is needed to understand it.
fn tell(
    options: &Options,
    home: &Path,
    journal: &Journal,
    load: Option<&Load>,
    ending: &Ending,
) -> io::Result<()> {
    match ending {
        Ending::Clean(page) => {
            journal.say(page);
            if options.keeps {
                journal.say(&format!("chaos: logs and data are kept in {}", home.display()));
            } else {
                fs::remove_dir_all(home)?;
            }
            if options.is_control {
                println!("chaos: the control found NOTHING wrong with bytes that were garbled");
            }
        }
        Ending::Judged(what) => {
            violated(options, home, journal, load, what);
            if options.is_control {
                println!("chaos: so it should be, this was the control");
            }
        }
        Ending::Broken(what) => {
            violated(options, home, journal, load, what);
            if options.is_control {
                println!("chaos: the control BROKE before any checker found what was garbled");
            }
        }
    }
    Ok(())
}

/// Remembers the first panic of any thread: later ones only follow from it.
fn first_panic() -> Arc<Mutex<Option<String>>> {
    let first = Arc::new(Mutex::new(None));
    let noted = Arc::clone(&first);
    panic::set_hook(Box::new(move |panic| {
        let mut first = noted.lock();
        if first.is_none() {
            *first = Some(panic.to_string());
        } else {
            eprintln!("then: {panic}");
        }
    }));
    first
}

fn violated(options: &Options, home: &Path, journal: &Journal, load: Option<&Load>, what: &str) {
    let mut page = format!("\nVIOLATION with seed {}: {what}\n", options.seed);
    if let Some(load) = load {
        page.push_str(&format!(
            "\nthe last operations that were begun:\n{}\n",
            load.excerpt(EXCERPT_OPERATIONS)
        ));
        match load.write_histories(home) {
            Ok(_) => page.push_str("\nhistories: *.jsonl, "),
            Err(error) => page.push_str(&format!("\nthe histories cannot be written: {error}; ")),
        }
    }
    page.push_str(&format!(
        "strikes: strikes.txt, logs: node-*.log, data: node-*, all in {}\nagain: {} (the same \
         strikes in the same order; what they meet is the machine's)",
        home.display(),
        options.again()
    ));
    journal.say(&page);
}

/// The run itself. Panics with what is wrong, unless a checker has found it.
fn story(
    options: &Options,
    home: &Path,
    room: Room,
    journal: &Journal,
    shared: &OnceLock<Load>,
) -> Ending {
    let demands = Demand::of(options.seed, options.arsenal, options.seconds);
    journal.say(&demanded(&demands));
    let mut fleet = Fleet::start(options.nodes, home);
    let load = shared.get_or_init(|| Load::seeded(&fleet.doors(), options.seed));
    let (mut ends, mut elapsed) = (Vec::new(), Duration::ZERO);
    let report = load.run(&CLIENTS, |progress| {
        let striker = Striker::new(&mut fleet, load, progress, journal, room, options.arsenal);
        ends = torment(options, striker, &demands);
        elapsed = progress.elapsed();
    });
    ends.iter().for_each(|end| journal.say(&format!("ordered: {end}")));
    let checks = check(&mut fleet, home);
    let judgements = report.judge(fleet.cluster.gateway(fleet.cluster.running()[0]));
    let (tried, took_effect) = journal.totals();
    let headline = format!(
        "chaos: seed {}, {} nodes; {tried} strikes, {took_effect} took effect; the last after \
         {:.0} s",
        options.seed,
        options.nodes,
        elapsed.as_secs_f64()
    );
    let page = report::render(&headline, journal, &report, &judgements, &checks);
    // Any reader sees garbage: what a control is to show is that checkers of
    // histories see wrong answers that look like right ones.
    let is_asked = |one: &Judgement| !options.is_control || one.what != REPLIES;
    let invalid = |one: &&Judgement| matches!(one.verdict, Verdict::Invalid(_)) && is_asked(one);
    if let Some(Judgement { what, verdict, .. }) = judgements.iter().find(invalid) {
        journal.say(&page);
        return Ending::Judged(format!("{what}: {verdict}"));
    }
    for Judgement { what, verdict, .. } in &judgements {
        assert_eq!(*verdict, Verdict::Valid, "{what}{page}");
    }
    assert!(report.done > 0, "nothing succeeded");
    // Of a few, one may have met nothing.
    let missed = tried - took_effect;
    assert!(
        missed <= (tried / 2).max(1),
        "of {tried} strikes only {took_effect} took effect{page}"
    );
    let unmet = Demand::unmet(&demands, |kind| journal.took_effect(kind));
    assert!(unmet.is_empty(), "of what must take effect, this never did: {unmet:?}{page}");
    Ending::Clean(page)
}

/// Strikes until the time is over and everything was tried that is demanded;
/// says how what operators ordered has ended.
fn torment(options: &Options, mut striker: Striker<'_>, demands: &[Demand]) -> Vec<String> {
    let seconds = Duration::from_secs(options.seconds);
    let progress = striker.progress;
    progress.wait(BETWEEN);
    progress.wait_puts(1);
    if options.is_control {
        striker.fleet.garble(options.seed);
    }
    let mut bag = Bag::new(options.seed, options.arsenal, demands);
    while progress.elapsed() < seconds || bag.is_wanting() {
        let took_effect = striker.strike(bag.draw());
        bag.tell(took_effect);
    }
    if options.is_control {
        // What is asked and answered at the end is judged, and not garbled.
        striker.fleet.open_doors();
    }
    let ends = striker.settle();
    progress.wait(BETWEEN);
    ends
}

/// What must take effect, for people.
fn demanded(demands: &[Demand]) -> String {
    if demands.is_empty() {
        return format!(
            "chaos: under {DEMANDS_FROM_SECONDS} s no kind of strike is demanded to take effect"
        );
    }
    let names: Vec<&str> = demands.iter().map(|demand| demand.name).collect();
    format!("chaos: must take effect: {}", names.join(", "))
}

/// What must hold of the cluster itself once nothing disturbs it.
fn check(fleet: &mut Fleet, home: &Path) -> Vec<Check> {
    let cluster = &mut fleet.cluster;
    cluster.assert_running();
    cluster.wait_agreement();
    let nodes = cluster.running();
    let shards = cluster.ask("the shards are known", |admin| admin.shards()).len();
    for id in &nodes {
        let (_, metrics) = cluster.admin(*id).request("GET", "/metrics", "").unwrap();
        let rows = metrics.lines().find_map(|line| line.strip_prefix("quorate_corrupt_rows "));
        assert_eq!(rows, Some("0"), "node {id} found rows that are damaged");
    }
    let between = fleet.between_nodes();
    vec![
        ("every replica of a shard has one state", format!("{shards} shards on nodes {nodes:?}")),
        ("no node panicked", format!("{} lines of logs", read_logs(home))),
        ("no stored row is damaged", format!("nodes {nodes:?}")),
        (
            "damaged connections were closed by nodes",
            format!("{} of {}", between.damaged_ended, between.damaged),
        ),
    ]
}

/// Looks through every node's log for panics; says how long they are.
fn read_logs(home: &Path) -> usize {
    let mut lines = 0;
    for entry in fs::read_dir(home).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("node-") || !name.ends_with(".log") {
            continue;
        }
        let log = fs::read(entry.path()).unwrap();
        let log = String::from_utf8_lossy(&log);
        let panic = log.lines().find(|line| line.contains("panicked at"));
        assert_eq!(panic, None, "{name} tells of a panic");
        lines += log.lines().count();
    }
    lines
}

#[cfg(test)]
mod tests;
