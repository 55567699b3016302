//! Load by h2load, on the same machine, and what it costs a server.

use std::{fs, process::Command};

use industry_treemap::proto::shorts::v1alpha1::GetIndustryTreeMapRequest;
use prost::Message;

use crate::support::{cluster::output, server::cpu_seconds};

const PATH: &str = "/shorts.v1alpha1.ShortedStocksService/GetIndustryTreeMap";

/// How many connections, and how many streams on each.
#[derive(Clone, Copy)]
pub struct Shape(pub u32, pub u32);

/// Ten connections with ten streams each: the usual one.
pub const USUAL: Shape = Shape(10, 10);

/// A request as h2load sends it.
pub struct Load {
    arguments: Vec<String>,
    /// What is sent, if it is a POST.
    _body: Option<tempfile::NamedTempFile>,
    path: String,
}

/// What a server did under load.
#[derive(Clone, Copy)]
pub struct Measured {
    /// Calls per second.
    pub rate: f64,
    /// CPU of the server per call, in microseconds.
    pub cpu: f64,
}

impl Load {
    fn new(headers: &[&str], body: Option<&[u8]>, path: &str) -> Self {
        let mut arguments: Vec<String> =
            headers.iter().flat_map(|header| ["-H".to_owned(), (*header).to_owned()]).collect();
        let body = body.map(|body| {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), body).unwrap();
            arguments.extend(["-d".to_owned(), file.path().display().to_string()]);
            file
        });
        Self { arguments, _body: body, path: path.to_owned() }
    }

    /// A gRPC call, with more headers.
    pub fn grpc(limit: i32, more: &[&str]) -> Self {
        let message = GetIndustryTreeMapRequest { period: "3m".into(), limit, view_mode: 0 }.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let frame = [&[0][..], &length, &message].concat();
        Self::new(&[&["content-type: application/grpc", "te: trailers"], more].concat(), Some(&frame), PATH)
    }

    /// A Connect call in JSON.
    pub fn connect(limit: i32, more: &[&str]) -> Self {
        let body = format!(r#"{{"period":"3m","limit":{limit}}}"#);
        Self::new(&[&["content-type: application/json"], more].concat(), Some(body.as_bytes()), PATH)
    }

    /// A Connect call by GET.
    pub fn get(limit: i32, more: &[&str]) -> Self {
        let message = format!("%7B%22period%22%3A%223m%22%2C%22limit%22%3A{limit}%7D");
        Self::new(more, None, &format!("{PATH}?connect=v1&encoding=json&message={message}"))
    }

    /// A GET of a path.
    pub fn path(path: &str, more: &[&str]) -> Self {
        Self::new(more, None, path)
    }

    /// The same request for another path.
    pub fn at(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// The same over HTTP/1.1.
    pub fn http1(mut self) -> Self {
        self.arguments.push("--h1".into());
        self
    }

    fn command(&self, addr: &str, arguments: &[&str]) -> String {
        let mut h2load = Command::new("h2load");
        h2load.args(arguments).args(&self.arguments);
        let printed = output(h2load.arg(format!("http://{addr}{}", self.path)));
        assert!(printed.contains(" 0 failed, 0 errored, 0 timeout"), "{printed}");
        assert!(printed.contains(" 0 4xx, 0 5xx"), "{printed}");
        printed
    }

    /// Calls per second at full load, and their cost to the server with this process id.
    pub fn saturate(&self, (addr, pid): (&str, u32), Shape(connections, streams): Shape) -> Measured {
        let (connections, streams) = (connections.to_string(), streams.to_string());
        let warm = ["-c", &connections, "-m", &streams, "-D", "1"];
        self.command(addr, &warm);
        let before = cpu_seconds(pid);
        let printed = self.command(addr, &["-c", &connections, "-m", &streams, "-D", "3"]);
        let used = cpu_seconds(pid) - before;
        let (_, rate) = printed.split_once("finished in ").unwrap();
        let rate: f64 = rate.split([',', ' ']).find_map(|word| word.parse().ok()).unwrap();
        let (_, done) = printed.split_once("requests: ").unwrap();
        let done: f64 = done.split(' ').next().unwrap().parse().unwrap();
        Measured { rate, cpu: used * 1e6 / done }
    }

    /// The 99th percentile of the response time at a steady rate, in milliseconds.
    pub fn p99(&self, addr: &str, rate: f64) -> f64 {
        let log = tempfile::tempdir().unwrap();
        let file = log.path().join("log");
        let per_client = format!("{:.0}", rate / 10.0);
        let requests = format!("{:.0}", rate * 3.0);
        let arguments = ["-c", "10", "-n", &requests, "--rps", &per_client, "--log-file", &file.display().to_string()];
        self.command(addr, &arguments);
        let log = fs::read_to_string(file).unwrap();
        let times = log.lines().filter_map(|line| line.split('\t').nth(2)?.parse::<f64>().ok());
        let mut times: Vec<f64> = times.map(|time| time / 1000.0).collect();
        times.sort_by(f64::total_cmp);
        times[times.len() * 99 / 100]
    }
}
