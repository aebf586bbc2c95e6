//! What the process takes of its machine, read from `/proc` when somebody looks: under the names of every Prometheus client, and
//! under those that ingress-nginx gives to its nginx, for dashboards that were made for it.

use std::fs;

use prometheus::{
    Counter, Gauge, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Ticks of `/proc/PID/stat` in a second; Linux has shown 100 to programs on every machine for decades.
const TICKS: f64 = 100.0;
/// Bytes of a page where Roadstead runs.
const PAGE: f64 = 4096.0;

/// What is read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Usage {
    cpu_seconds: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
    /// Since the epoch.
    started: f64,
    open_files: f64,
    most_files: f64,
    read_bytes: f64,
    written_bytes: f64,
}

impl Usage {
    /// As far as it can be read.
    fn now() -> Self {
        let text = |file: &str| fs::read_to_string(format!("/proc/{file}")).unwrap_or_default();
        let files = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let mut usage = Self::of(&text("self/stat"), &text("stat"), &text("self/io"), &text("self/limits"));
        // One of them is the folder's own.
        usage.open_files = f64::from(u32::try_from(files.saturating_sub(1)).unwrap_or(u32::MAX));
        usage
    }

    fn of(stat: &str, machine: &str, io: &str, limits: &str) -> Self {
        // The name, in brackets, may hold anything; the third field follows it (proc_pid_stat(5)).
        let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        let field = |number: usize| number_in(fields.get(number - 3).copied());
        let booted = line(machine, "btime ");
        Self {
            cpu_seconds: (field(14) + field(15)) / TICKS,
            virtual_bytes: field(23),
            resident_bytes: field(24) * PAGE,
            started: booted + field(22) / TICKS,
            open_files: 0.0,
            most_files: line(limits, "Max open files"),
            read_bytes: line(io, "read_bytes: "),
            written_bytes: line(io, "write_bytes: "),
        }
    }
}

fn number_in(text: Option<&str>) -> f64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The first number of the line that begins so.
fn line(text: &str, begin: &str) -> f64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(begin));
    number_in(rest.and_then(|rest| rest.split_whitespace().next()))
}

/// The metrics.
pub(super) struct ProcessMetrics {
    /// ingress-nginx's labels of the controller.
    constant: Vec<(&'static str, String)>,
    descriptions: Vec<Desc>,
}

impl ProcessMetrics {
    /// # Errors
    /// A name is not one that Prometheus takes.
    pub(super) fn new(constant: Vec<(&'static str, String)>) -> Result<Self, prometheus::Error> {
        let mut metrics = Self { constant, descriptions: Vec::new() };
        metrics.descriptions =
            metrics.all(Usage::default())?.iter().flat_map(|metric| metric.desc().into_iter().cloned()).collect();
        Ok(metrics)
    }

    fn all(&self, usage: Usage) -> Result<Vec<Box<dyn Collector>>, prometheus::Error> {
        let mut all: Vec<Box<dyn Collector>> = Vec::new();
        for (name, help, value) in [
            ("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", usage.cpu_seconds),
            ("nginx_ingress_controller_nginx_process_cpu_seconds_total", "Cpu usage in seconds", usage.cpu_seconds),
            ("nginx_ingress_controller_nginx_process_read_bytes_total", "number of bytes read", usage.read_bytes),
            (
                "nginx_ingress_controller_nginx_process_write_bytes_total",
                "number of bytes written",
                usage.written_bytes,
            ),
        ] {
            let counter = Counter::with_opts(self.named(name, help))?;
            counter.inc_by(value);
            all.push(Box::new(counter));
        }
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Resident memory size in bytes.", usage.resident_bytes),
            ("process_virtual_memory_bytes", "Virtual memory size in bytes.", usage.virtual_bytes),
            ("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", usage.started),
            ("process_open_fds", "Number of open file descriptors.", usage.open_files),
            ("process_max_fds", "Maximum number of open file descriptors.", usage.most_files),
            ("nginx_ingress_controller_nginx_process_num_procs", "number of processes", 1.0),
            (
                "nginx_ingress_controller_nginx_process_resident_memory_bytes",
                "number of bytes of memory in use",
                usage.resident_bytes,
            ),
            (
                "nginx_ingress_controller_nginx_process_virtual_memory_bytes",
                "number of bytes of memory in use",
                usage.virtual_bytes,
            ),
            (
                "nginx_ingress_controller_nginx_process_oldest_start_time_seconds",
                "start time in seconds since 1970/01/01",
                usage.started,
            ),
        ] {
            let gauge = Gauge::with_opts(self.named(name, help))?;
            gauge.set(value);
            all.push(Box::new(gauge));
        }
        Ok(all)
    }

    /// ingress-nginx's own have its labels.
    fn named(&self, name: &str, help: &str) -> Opts {
        let constant = self.constant.iter().filter(|_| name.starts_with("nginx_"));
        constant.fold(Opts::new(name, help), |opts, (label, value)| opts.const_label(*label, value))
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let all = self.all(Usage::now()).unwrap_or_default();
        all.iter().flat_map(|metric| metric.collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        let fields: Vec<String> = (3..=52).map(|number: u32| number.to_string()).collect();
        let stat = format!("1 (a ) b) {}", fields.join(" "));
        let io = "rchar: 1\nread_bytes: 8192\nwrite_bytes: 4096\ncancelled_write_bytes: 0\n";
        let limits =
            "Limit  Soft  Hard  Units\nMax open files            1024                 4096                 files\n";
        let usage = Usage::of(&stat, "cpu 1\nbtime 1000\n", io, limits);
        let expected = Usage {
            cpu_seconds: 0.29,
            virtual_bytes: 23.0,
            resident_bytes: 24.0 * 4096.0,
            started: 1000.22,
            open_files: 0.0,
            most_files: 1024.0,
            read_bytes: 8192.0,
            written_bytes: 4096.0,
        };
        assert_eq!(usage, expected);
        assert_eq!(Usage::of("", "", "", ""), Usage::default());
        let now = Usage::now();
        assert!(now.resident_bytes > 1e6 && now.open_files >= 3.0 && now.started > 1.6e9, "{now:?}");
    }

    #[test]
    fn every_name_is_there_once() {
        let metrics = ProcessMetrics::new(vec![("controller_class", "k".to_owned())]).unwrap();
        let families = metrics.collect();
        let mut names: Vec<_> = families.iter().map(|family| family.name().to_owned()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), families.len());
        assert!(names.iter().any(|name| name == "process_open_fds"));
        let own = families.iter().find(|family| family.name().ends_with("num_procs")).unwrap();
        assert_eq!(own.get_metric()[0].get_label()[0].value(), "k");
    }
}
