//! Moments as the API writes them.

use time::OffsetDateTime;

/// Now, to the second: `2000-01-02T03:04:05Z`.
pub(crate) fn now() -> String {
    format!("{}Z", seconds(OffsetDateTime::now_utc()))
}

/// Now, to the microsecond, as leases have it.
pub(super) fn now_micro() -> String {
    let now = OffsetDateTime::now_utc();
    format!("{}.{:06}Z", seconds(now), now.microsecond())
}

fn seconds(at: OffsetDateTime) -> String {
    let (year, month, day) = at.to_calendar_date();
    let (hour, minute, second) = at.to_hms();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}", u8::from(month))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_the_form_of_the_api() {
        assert_eq!(seconds(OffsetDateTime::UNIX_EPOCH), "1970-01-01T00:00:00");
        assert!(now().len() == 20 && now_micro().len() == 27);
    }
}
