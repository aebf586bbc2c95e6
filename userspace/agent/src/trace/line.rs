//! An event as a line for people, or as a JSON object.

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::time::{ClockId, clock_gettime};
use roadstead_abi::{Addr, Be16, DropReason, Event, hook, proto};
use roadstead_dataplane::addresses::from_map;
use serde_json::{Value, json};

use crate::desired::{PortName, device_name};

/// What the monotonic clock of the events is against the time of day.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// The time of day when the monotonic clock began.
    began: Duration,
}

impl Clock {
    pub(super) fn now() -> Self {
        let day = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        Self { began: day.saturating_sub(monotonic) }
    }

    fn time(self, event: &Event) -> Duration {
        self.began + Duration::from_nanos(event.time)
    }
}

/// An event about to be printed.
pub(super) struct Line<'a> {
    pub(super) event: &'a Event,
    pub(super) clock: Clock,
    pub(super) name: Option<&'a PortName>,
}

impl Line<'_> {
    pub(super) fn json(&self) -> Value {
        let event = self.event;
        let micros = u64::try_from(self.clock.time(event).as_micros()).unwrap_or(u64::MAX);
        let is_forwarded = event.reason == 0;
        json!({
            "time": micros as f64 / 1e6,
            "hook": hook_name(event.hook),
            "verdict": self.verdict(),
            "reason": reason(event.reason),
            "protocol": protocol(event.key.proto),
            "source": (event.hook != hook::SOCKET).then(|| socket(&event.key.src, event.key.sport)),
            "destination": socket(&event.key.dst, event.key.dport),
            "endpoint": is_forwarded.then(|| socket(&event.backend, event.backend_port)),
            "service": self.service(),
            "port": self.name.map(|name| &name.port),
            "device": device(event.ifindex),
        })
    }

    fn verdict(&self) -> &'static str {
        let known = DropReason::ALL.into_iter().find(|known| *known as u32 == self.event.reason);
        match known {
            None if self.event.reason == 0 => "forward",
            // A socket program refuses what the maps disagree on, too.
            Some(DropReason::Inconsistent) if self.event.hook == hook::SOCKET => "reject",
            Some(reason) if reason.is_rejected() => "reject",
            _ => "drop",
        }
    }

    fn service(&self) -> Option<String> {
        let unnamed = || (self.event.service != 0).then(|| format!("#{}", self.event.service));
        self.name.map(|name| name.service.clone()).or_else(unnamed)
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = self.event;
        let time = self.clock.time(event);
        let seconds = time.as_secs() % 86_400;
        let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(f, "{hours:02}:{minutes:02}:{seconds:02}.{:06} ", time.subsec_micros())?;
        write!(f, "{:<10} {:<7} {} ", hook_name(event.hook), self.verdict(), protocol(event.key.proto))?;
        if event.hook != hook::SOCKET {
            write!(f, "{} -> ", socket(&event.key.src, event.key.sport))?;
        }
        write!(f, "{}", socket(&event.key.dst, event.key.dport))?;
        match reason(event.reason) {
            None => write!(f, " to {}", socket(&event.backend, event.backend_port))?,
            Some(reason) => write!(f, " {reason}")?,
        }
        match (self.name, self.service()) {
            (Some(name), _) => write!(f, " {name}")?,
            (None, Some(number)) => write!(f, " {number}")?,
            (None, None) => {}
        }
        device(event.ifindex).map_or(Ok(()), |device| write!(f, " {device}"))
    }
}

fn hook_name(number: u16) -> &'static str {
    match number {
        hook::SOCKET => "socket",
        hook::UPLINK_IN => "uplink_in",
        hook::UPLINK_OUT => "uplink_out",
        hook::INT_IN => "int_in",
        hook::INT_OUT => "int_out",
        _ => "unknown",
    }
}

fn reason(number: u32) -> Option<&'static str> {
    let known = DropReason::ALL.into_iter().find(|reason| *reason as u32 == number);
    (number != 0).then(|| known.map_or("unknown", DropReason::as_str))
}

fn protocol(number: u8) -> &'static str {
    match number {
        proto::TCP => "TCP",
        proto::UDP => "UDP",
        _ => "other",
    }
}

fn socket(addr: &Addr, port: Be16) -> String {
    SocketAddr::new(from_map(addr), port.get()).to_string()
}

/// The device's name, or its number where it is of another network namespace or gone.
fn device(index: u32) -> Option<String> {
    (index != 0).then(|| device_name(index).unwrap_or_else(|| index.to_string()))
}

#[cfg(test)]
pub(super) mod tests {
    use roadstead_abi::CtKey;

    use super::*;

    fn event(dst: [u8; 4], dport: u16, proto: u8) -> Event {
        let key = CtKey {
            src: Addr::v4([192, 0, 2, 9]),
            dst: Addr::v4(dst),
            sport: Be16::new(40_000),
            dport: Be16::new(dport),
            proto,
            reserved: [0; 3],
        };
        Event {
            time: 3_723_000_004_000,
            key,
            backend: Addr::UNSPECIFIED,
            backend_port: Be16(0),
            hook: hook::UPLINK_IN,
            reason: 0,
            service: 7,
            ifindex: 4_000_000,
        }
    }

    /// A TCP flow to port 80, and its endpoint 10.244.1.5:8080.
    pub(crate) fn forwarded() -> Event {
        let event = event([10, 96, 0, 10], 80, proto::TCP);
        Event { backend: Addr::v4([10, 244, 1, 5]), backend_port: Be16::new(8_080), ..event }
    }

    /// A datagram that nobody serves.
    pub(crate) fn refused() -> Event {
        Event { reason: DropReason::NoEndpoints as u32, ..event([10, 96, 0, 11], 53, proto::UDP) }
    }

    const MIDNIGHT: Clock = Clock { began: Duration::from_secs(86_400) };

    #[test]
    fn events_are_shown_as_lines() {
        let name = PortName { service: "shop/web".to_owned(), port: "http".to_owned() };
        let line = |event: &Event, name: Option<&PortName>| Line { event, clock: MIDNIGHT, name }.to_string();
        let forwarded_text = "01:02:03.000004 uplink_in  forward TCP 192.0.2.9:40000 -> 10.96.0.10:80 to 10.244.1.5:8080 shop/web:http 4000000";
        assert_eq!(line(&forwarded(), Some(&name)), forwarded_text);
        let refused_text =
            "01:02:03.000004 uplink_in  reject  UDP 192.0.2.9:40000 -> 10.96.0.11:53 no_endpoints #7 4000000";
        assert_eq!(line(&refused(), None), refused_text);
        let call = Event { hook: hook::SOCKET, service: 0, ifindex: 0, ..forwarded() };
        assert_eq!(line(&call, None), "01:02:03.000004 socket     forward TCP 10.96.0.10:80 to 10.244.1.5:8080");
    }

    #[test]
    fn events_are_shown_as_objects() {
        let object = Line { event: &refused(), clock: MIDNIGHT, name: None }.json();
        let expected = json!({
            "time": 90_123.000_004, "hook": "uplink_in", "verdict": "reject", "reason": "no_endpoints", "protocol": "UDP",
            "source": "192.0.2.9:40000", "destination": "10.96.0.11:53", "endpoint": null, "service": "#7", "port": null,
            "device": "4000000",
        });
        assert_eq!(object, expected);
    }
}
