//! `SET` and its options.

use bytes::Bytes;
use quorate_types::Blob;

use super::number::parse_integer;
use super::op::{Condition, Expiry, Op, SetReply, TimeUnit};
use super::parse::{ParseError, key_of, positive_expiry};

/// `SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`.
pub(super) fn parse_set(args: &[Bytes]) -> Result<Op, ParseError> {
    let [_, key, value, options @ ..] = args else {
        return Err(ParseError::Arity("set".into()));
    };
    let mut parsed = Options::default();
    let mut options = options;
    while let Some((option, after)) = options.split_first() {
        options = parsed.take(&option.to_ascii_lowercase(), after)?;
    }
    Ok(Op::Set {
        key: key_of(key)?,
        value: Blob(value.clone()),
        condition: parsed.condition.unwrap_or(Condition::Always),
        expiry: parsed.lifetime.map_or(Ok(Expiry::Never), Lifetime::read)?,
        reply: if parsed.previous { SetReply::Previous } else { SetReply::Ok },
    })
}

#[derive(Default)]
struct Options {
    condition: Option<Condition>,
    lifetime: Option<Lifetime>,
    previous: bool,
}

/// An option about expiry; its time is looked at when the others make sense.
enum Lifetime {
    Keep,
    Time(Bytes, TimeUnit, fn(i64) -> Expiry),
}

impl Lifetime {
    fn read(self) -> Result<Expiry, ParseError> {
        match self {
            Self::Keep => Ok(Expiry::Keep),
            Self::Time(time, unit, expiry) => {
                let time = parse_integer(&time).ok_or(ParseError::NotAnInteger)?;
                positive_expiry(time, unit, expiry, "set")
            }
        }
    }
}

impl Options {
    /// Takes one option and returns what follows it.
    fn take<'a>(&mut self, option: &[u8], after: &'a [Bytes]) -> Result<&'a [Bytes], ParseError> {
        match option {
            b"nx" => self.set_condition(Condition::IfMissing)?,
            b"xx" => self.set_condition(Condition::IfExists)?,
            b"get" => self.previous = true,
            b"keepttl" => self.set_lifetime(Lifetime::Keep)?,
            b"ex" => return self.timed(after, TimeUnit::Seconds, Expiry::AfterMillis),
            b"px" => return self.timed(after, TimeUnit::Millis, Expiry::AfterMillis),
            b"exat" => return self.timed(after, TimeUnit::Seconds, Expiry::AtMillis),
            b"pxat" => return self.timed(after, TimeUnit::Millis, Expiry::AtMillis),
            _ => return Err(ParseError::Syntax),
        }
        Ok(after)
    }

    fn timed<'a>(
        &mut self,
        after: &'a [Bytes],
        unit: TimeUnit,
        expiry: fn(i64) -> Expiry,
    ) -> Result<&'a [Bytes], ParseError> {
        let (time, after) = after.split_first().ok_or(ParseError::Syntax)?;
        self.set_lifetime(Lifetime::Time(time.clone(), unit, expiry))?;
        Ok(after)
    }

    fn set_condition(&mut self, condition: Condition) -> Result<(), ParseError> {
        match self.condition.replace(condition) {
            Some(previous) if previous != condition => Err(ParseError::Syntax),
            _ => Ok(()),
        }
    }

    fn set_lifetime(&mut self, lifetime: Lifetime) -> Result<(), ParseError> {
        match self.lifetime.replace(lifetime) {
            Some(_) => Err(ParseError::Syntax),
            None => Ok(()),
        }
    }
}
