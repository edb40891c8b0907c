//! The command line of the sweep.
#![allow(clippy::disallowed_methods, reason = "measures real time, outside of the simulations")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::{Chapter, Ills, Life, Point, Share, SweepReport};
use crate::sim::options::Log;

/// Where shares leave their reports, from the folder in which the program runs.
const FOLDER: &str = "target/sim";
/// Lines of the trace that are shown with a point.
const EXCERPT_LINES: usize = 60;

/// What `sweep` takes.
#[derive(clap::Args, Debug)]
pub struct SweepArgs {
    /// Only these points, as INDEX/COUNT, counted from 0.
    #[arg(long)]
    share: Option<Share>,
    /// What logs are kept on.
    #[arg(long, value_enum, default_value_t)]
    log: Log,
    /// Only this chapter.
    #[arg(long)]
    chapter: Option<Chapter>,
    /// Only this operation of it, with the end of the trace.
    #[arg(long, requires = "chapter")]
    at: Option<u64>,
    /// Shares at a time, each in a process of its own.
    #[arg(long, default_value_t = 2)]
    jobs: u64,
    /// Let the syncs of node 1's disk do nothing; ends with what it finds first.
    #[arg(long)]
    lie: bool,
    /// Plant this bug in all nodes, and end with what is found first; needs a
    /// build with canaries.
    #[arg(long)]
    canary: Option<String>,
    /// Where to leave the trace of a single point.
    #[arg(long)]
    to: Option<PathBuf>,
    /// Leave the report in a file, as JSON.
    #[arg(long, hide = true)]
    report: Option<PathBuf>,
}

type Outcome = Result<bool, Box<dyn std::error::Error>>;

impl SweepArgs {
    /// Sweeps. False when something was found.
    ///
    /// # Errors
    /// When the life cannot be lived without a death, or a process fails.
    pub fn run(&self) -> Outcome {
        if self.canary.is_some() && !quorate::types::fault::HAS_CANARIES {
            return Err("this build has no canaries: build with --features canary".into());
        }
        let begun = Instant::now();
        let report = match (self.at, self.share) {
            (Some(at), _) => self.replay(at)?,
            (None, None) if self.jobs > 1 => self.share_out()?,
            (None, share) => self.sweep(share.unwrap_or(Share::WHOLE))?,
        };
        if let Some(path) = &self.report {
            std::fs::write(path, serde_json::to_string(&report)?)?;
            return Ok(true);
        }
        print!("{report}");
        println!("{:.0} s", begun.elapsed().as_secs_f64());
        let is_complete = report.points() > 0 && report.missed() == 0;
        Ok(is_complete && report.violations().is_empty())
    }

    fn ills(&self) -> Ills {
        Ills { is_lying: self.lie, canary: self.canary.clone() }
    }

    fn life(&self) -> Result<Life, String> {
        Life::until(self.chapter.unwrap_or(Chapter::G), self.log)
    }

    fn replay(&self, at: u64) -> Result<SweepReport, Box<dyn std::error::Error>> {
        let chapter = self.chapter.ok_or("which chapter?")?;
        let (point, trace) = self.life()?.run(&Point { chapter, at: Some(at), ills: self.ills() });
        for line in &trace[trace.len().saturating_sub(EXCERPT_LINES)..] {
            println!("{line}");
        }
        if let Some(path) = &self.to {
            std::fs::write(path, trace.join("\n"))?;
        }
        println!("{point:?}");
        let mut report = SweepReport::new(self.log);
        report.add(point);
        Ok(report)
    }

    /// Sweeps here.
    fn sweep(&self, share: Share) -> Result<SweepReport, Box<dyn std::error::Error>> {
        let life = self.life()?;
        let mut report = SweepReport::new(self.log);
        let healthy = life.chapters();
        // A disk that lies may end redb, which panics while it unwinds.
        let is_control = self.ills() != Ills::default();
        let asked = |chapter: Chapter| self.chapter.is_none_or(|only| only == chapter);
        for chapter in healthy.filter(|healthy| asked(healthy.chapter)) {
            report.expect(chapter);
            for at in (1..=chapter.operations).filter(|at| share.has(*at)) {
                let point = Point { chapter: chapter.chapter, at: Some(at), ills: self.ills() };
                report.add(life.run(&point).0);
                if is_control && !report.violations().is_empty() {
                    return Ok(report);
                }
            }
        }
        Ok(report)
    }

    /// Sweeps in processes of their own.
    fn share_out(&self) -> Result<SweepReport, Box<dyn std::error::Error>> {
        std::fs::create_dir_all(FOLDER)?;
        let mut children: Vec<(Child, PathBuf)> = Vec::new();
        for index in 0..self.jobs {
            let name = format!("sweep-{}-{index}.json", std::process::id());
            let path = Path::new(FOLDER).join(name);
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["sweep", "--share", &format!("{index}/{}", self.jobs)]);
            command.args(["--log", &self.log.to_string()]);
            command.arg("--report").arg(&path);
            if let Some(chapter) = self.chapter {
                command.args(["--chapter", &chapter.to_string()]);
            }
            if let Some(canary) = &self.canary {
                command.args(["--canary", canary]);
            }
            command.args(self.lie.then_some("--lie"));
            children.push((command.stdin(Stdio::null()).spawn()?, path));
        }
        let mut whole = SweepReport::new(self.log);
        for (mut child, path) in children {
            let status = child.wait()?;
            if !status.success() {
                return Err(format!("a share ended with {status}").into());
            }
            whole.merge(serde_json::from_str(&std::fs::read_to_string(&path)?)?);
            let _ = std::fs::remove_file(&path);
        }
        Ok(whole)
    }
}
