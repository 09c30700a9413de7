//! Connections that begin and end, as insights list them.

use jiff::Timestamp;

type Time = Option<prost_types::Timestamp>;

/// Whether a connection is open that began and ended so.
pub(crate) const fn is_open(began: &Time, ended: &Time) -> bool {
    began.is_some() && ended.is_none()
}

/// Since when one of `stays` is open, or else since when none is; `None` if there never was one.
pub(crate) fn since<'a>(stays: impl Iterator<Item = (&'a Time, &'a Time)>) -> Option<Timestamp> {
    let (mut opened, mut closed) = (None, None);
    for (began, ended) in stays {
        let last = if is_open(began, ended) { (&mut opened, began) } else { (&mut closed, ended) };
        let (last, time) = last;
        *last = (*last).max(time.as_ref().and_then(read));
    }
    opened.or(closed)
}

fn read(time: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_connection_says_since_when() {
        let at = |seconds: i64| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let since = |stays: &[(Time, Time)]| {
            since(stays.iter().map(|(began, ended)| (began, ended))).map(Timestamp::as_second)
        };
        assert_eq!(since(&[]), None);
        assert_eq!(since(&[(at(1), at(5)), (at(2), at(3))]), Some(5));
        assert_eq!(since(&[(at(1), at(9)), (at(2), None), (at(4), at(8))]), Some(2));
        assert_eq!(since(&[(at(1), at(i64::MAX))]), None, "no time that there is");
    }
}
