//! The time as access logs write it, in UTC. A second's text is made once a thread.

use std::{
    cell::RefCell,
    time::{SystemTime, UNIX_EPOCH},
};

use time::OffsetDateTime;

/// One moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    seconds: i64,
    millis: u32,
}

thread_local! {
    /// The last second that was written: its number, `$time_local` and `$time_iso8601`.
    static WRITTEN: RefCell<(i64, String, String)> = const { RefCell::new((i64::MIN, String::new(), String::new())) };
}

impl Moment {
    pub(super) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), millis: since.subsec_millis() }
    }

    /// `25/Nov/2026:20:18:30 +0000`, the form of nginx and Apache.
    pub(super) fn local(self, out: &mut Vec<u8>) {
        self.with_written(|local, _| out.extend_from_slice(local.as_bytes()));
    }

    /// `2026-11-25T20:18:30+00:00`.
    pub(super) fn iso8601(self, out: &mut Vec<u8>) {
        self.with_written(|_, iso| out.extend_from_slice(iso.as_bytes()));
    }

    /// Seconds since the epoch with three decimals.
    pub(super) fn msec(self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{}.{:03}", self.seconds, self.millis).as_bytes());
    }

    fn with_written(self, write: impl FnOnce(&str, &str)) {
        WRITTEN.with_borrow_mut(|(second, local, iso)| {
            if *second != self.seconds {
                let time = OffsetDateTime::from_unix_timestamp(self.seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
                let month = time.month().to_string();
                let month = month.get(..3).unwrap_or(&month);
                let (year, day) = (time.year(), time.day());
                let clock = format!("{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second());
                *local = format!("{day:02}/{month}/{year}:{clock} +0000");
                *iso = format!("{year}-{:02}-{day:02}T{clock}+00:00", u8::from(time.month()));
                *second = self.seconds;
            }
            write(local, iso);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_nginx_does() {
        let moment = Moment { seconds: 1_795_638_030, millis: 7 };
        let written = |write: fn(Moment, &mut Vec<u8>)| {
            let mut out = Vec::new();
            write(moment, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(Moment::local), "25/Nov/2026:20:20:30 +0000");
        assert_eq!(written(Moment::iso8601), "2026-11-25T20:20:30+00:00");
        assert_eq!(written(Moment::msec), "1795638030.007");
    }
}
