//! When a log is purged.

#[cfg(test)]
mod tests;

use std::time::Duration;

use quorate_types::GroupId;
use tokio::time::Instant;

/// How long nothing has come to a log that is quiet, at least. At most it is twice as
/// long: many groups may become quiet at once, and their machines are not all flushed
/// in the same moment.
const QUIET: Duration = Duration::from_secs(60);

/// How long a purge that had to wait is left to itself.
const RETRY: Duration = Duration::from_secs(20);

/// How far a log has come; all are the next indices.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    pub(crate) applied: u64,
    /// Up to where the machine was flushed for a purge.
    pub(crate) flushed: u64,
    pub(crate) purged: u64,
    /// What the log holds, if it is known.
    pub(crate) bytes: Option<u64>,
}

/// How long a log may get, by entries and by bytes, before nobody is waited for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waits {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// When a log has to be purged.
///
/// A machine is not flushed more often than once in a pause, however fast its log
/// grows, so that it writes only once what has changed often. A log that is too long
/// waits for no pause.
///
/// openraft may put a purge off: for a follower that is just being fed, and for
/// good if this replica then leads no more; or because the machine is being
/// flushed already. So it is asked for again, after half as many entries as make a
/// purge due and a pause, or after a while: a log to which nothing comes any more must not stay
/// as long as it is. There must be something newer than the last flush, which no
/// purge is asked for a second time. A follower that is being sent a snapshot is
/// waited for here, as openraft would not. A log that may not grow any more for
/// either gives up who lacks too much.
///
/// A log to which nothing has come for a minute or two is purged although it is not
/// long, if it has much more than a purge leaves: of a thousand groups that are used in
/// turns each would otherwise hold nearly as much as a busy one. Not while a follower
/// lacks some of it, which would have to be sent a snapshot.
#[derive(Debug)]
pub(crate) struct Purging {
    after_entries: u64,
    pause: Duration,
    keeps_entries: u64,
    /// How long a log may be that is not purged for somebody.
    waits: Waits,
    /// What was applied when it was asked for last, and when that was.
    asked: Option<(u64, Instant)>,
    /// Up to where the machine was flushed then, for an earlier one.
    flushed_before: u64,
    /// What is applied, and since when nothing more was.
    grown: Option<(u64, Instant)>,
    quiet_after: Duration,
}

impl Purging {
    pub(crate) fn new(after_entries: u64, keeps_entries: u64) -> Self {
        Self {
            after_entries: after_entries.max(1),
            pause: Duration::ZERO,
            keeps_entries,
            waits: Waits::default(),
            asked: None,
            flushed_before: 0,
            grown: None,
            quiet_after: QUIET,
        }
    }

    /// The same for the log of a group: which one decides how long it is before that
    /// is quiet.
    pub(crate) fn of(self, group: GroupId) -> Self {
        /// Neighbours are far from each other.
        const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;
        let part = u32::try_from(group.0.wrapping_mul(STRIDE) >> 48).unwrap_or(0);
        Self { quiet_after: QUIET + QUIET * part / (1 << 16), ..self }
    }

    /// The same with a pause behind each.
    pub(crate) fn pausing(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// The same for logs that may be as long while somebody is waited for.
    pub(crate) fn waiting(self, waits: Waits) -> Self {
        Self { waits, ..self }
    }

    /// To be told how far the log is before it is asked about it.
    pub(crate) fn learn(&mut self, log: Reach, now: Instant) {
        if self.grown.is_none_or(|(applied, _)| applied != log.applied) {
            self.grown = Some((log.applied, now));
        }
    }

    /// When to look again at a log that is not purged while a snapshot is on its
    /// way: whoever installs that needs what comes behind it. `None` if no purge of it
    /// would be due, or if it is too long to wait.
    pub(crate) fn waits_until(&self, log: Reach, now: Instant) -> Option<Instant> {
        let is_wanted = self.is_long(log) || self.quiet_at(log).is_some();
        (is_wanted && !self.is_too_long(log)).then(|| now + RETRY)
    }

    /// Before which index followers of a leader lack too much to be waited for: the
    /// log is longer than may be, because openraft puts its purge off for one of
    /// them. Who lacks less has what this purge takes before the next is asked for.
    ///
    /// **Invariant:** openraft has been told to purge all of it, and will when it sends
    /// none of it to anybody. What is neither purged nor sent a follower would lack
    /// for ever. So the flush that was asked for has to be done, and to have been
    /// newer than the one before: for another openraft purges nothing.
    pub(crate) fn gives_up(&self, log: Reach) -> Option<u64> {
        let is_told = self.asked.is_some() && log.flushed > self.flushed_before;
        let lacks_max = self.keeps_entries.saturating_add(self.asked_again_after());
        let gives_up = is_told && self.is_long(log) && self.is_too_long(log);
        gives_up.then(|| log.flushed.saturating_sub(lacks_max))
    }

    pub(crate) fn is_due(&self, log: Reach, now: Instant) -> bool {
        if !self.is_long(log) {
            return self.quiet_at(log).is_some_and(|moment| moment <= now);
        }
        self.asked.is_none()
            || self.has_grown(log) && self.is_too_long(log)
            || self.ask_again_at(log).is_some_and(|moment| moment <= now)
    }

    pub(crate) fn is_asked_for(&mut self, log: Reach, now: Instant) {
        self.asked = Some((log.applied, now));
        self.flushed_before = log.flushed;
    }

    /// When to ask although nothing more is applied: behind the pause, if it has
    /// grown already, or after a while.
    pub(crate) fn ask_again_at(&self, log: Reach) -> Option<Instant> {
        if self.is_long(log) { self.long_again_at(log) } else { self.quiet_at(log) }
    }

    /// From when on a log that is not long is quiet, if it is to be purged then.
    fn quiet_at(&self, log: Reach) -> Option<Instant> {
        let (_, moment) = self.grown?;
        let most = self.keeps_entries.saturating_add(self.after_entries / 4);
        let is_asked = self.asked.is_some_and(|(asked_at, _)| asked_at >= log.applied);
        let is_wanted = !self.is_long(log)
            && log.applied.saturating_sub(log.purged) > most
            && log.applied > log.flushed
            && !is_asked;
        is_wanted.then(|| moment.checked_add(self.quiet_after)).flatten()
    }

    fn long_again_at(&self, log: Reach) -> Option<Instant> {
        let (asked_at, moment) = self.asked?;
        let is_put_off = log.purged.saturating_add(self.keeps_entries) < asked_at;
        let is_useful = log.applied > log.flushed;
        let after = match self.has_grown(log) {
            true if is_put_off => Some(self.pause.min(RETRY)),
            true => Some(self.pause),
            false => (is_put_off && is_useful).then_some(RETRY),
        };
        after.and_then(|after| moment.checked_add(after))
    }

    /// By as much as makes another purge worth asking for.
    fn has_grown(&self, log: Reach) -> bool {
        let again = |(asked_at, _): (u64, _)| asked_at.saturating_add(self.asked_again_after());
        self.asked.map(again).is_some_and(|again| log.applied >= again)
    }

    fn is_too_long(&self, log: Reach) -> bool {
        log.applied.saturating_sub(log.purged) > self.waits.entries
            || log.bytes.is_some_and(|bytes| bytes > self.waits.bytes)
    }

    const fn asked_again_after(&self) -> u64 {
        self.after_entries.div_ceil(2)
    }

    /// Whether it is worth a purge.
    pub(crate) const fn is_long(&self, log: Reach) -> bool {
        log.applied.saturating_sub(log.purged) > self.after_entries
    }
}
