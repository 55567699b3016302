//! A running `treemap serve`.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use industry_treemap::proto::{
    shorts::v1alpha1::{GetIndustryTreeMapRequest, shorted_stocks_service_client::ShortedStocksServiceClient},
    stocks::v1alpha1::IndustryTreeMap,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Response, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{cluster::PASSWORD, database::Database, eventually, pooler, treemap};

pub struct Server {
    process: Child,
    pub addr: String,
    log: Arc<Mutex<String>>,
    log_is_stuck: Arc<AtomicBool>,
}

/// A server over the sample data, with additional arguments, that is ready.
pub async fn ready(arguments: &[&str]) -> (Database, Server) {
    let database = Database::with_sample();
    let server = Server::start_with(&database.url(), arguments).await;
    server.wait_until_ready().await;
    (database, server)
}

pub type Client = ShortedStocksServiceClient<Channel>;

impl Server {
    /// Starts a server on a free port and waits until it listens, not until it is ready.
    pub async fn start(database: &Database) -> Self {
        Self::start_with(&database.url(), &[]).await
    }

    /// Starts a server with additional arguments. It does not refresh the view, unless the arguments enable it.
    pub async fn start_with(database_url: &str, arguments: &[&str]) -> Self {
        Self::refreshing(
            database_url,
            &[&["--refresh-schedule", "off", "--source-interval", "off"], arguments].concat(),
        )
        .await
    }

    /// Starts a server that refreshes the view as by default, or as the arguments set it.
    pub async fn refreshing(database_url: &str, arguments: &[&str]) -> Self {
        Self::run(treemap::command(&[]), database_url, arguments).await
    }

    /// Starts a server by a command, which may be the binary or a program that runs it.
    pub async fn run(command: Command, database_url: &str, arguments: &[&str]) -> Self {
        Self::run_at(Some("127.0.0.1:0"), command, database_url, arguments).await
    }

    /// The same at an address, or without one.
    pub async fn run_at(address: Option<&str>, mut command: Command, database_url: &str, arguments: &[&str]) -> Self {
        command.arg("serve");
        if let Some(address) = address.filter(|_| !arguments.contains(&"--listen-addr")) {
            command.args(["--listen-addr", address]);
        }
        // Defaults of the tests, unless the arguments set them.
        for (setting, value) in
            [("--admin-addr", "127.0.0.1:0"), ("--drain-delay", "0s"), ("--max-connections-per-client", "off")]
        {
            if !arguments.contains(&setting) {
                command.args([setting, value]);
            }
        }
        command.args(arguments);
        if let Some(pooled) = pooler::for_all(database_url) {
            command.env("DATABASE_URL", pooled).env("LISTEN_DATABASE_URL", database_url);
        } else {
            command.env("DATABASE_URL", database_url);
        }
        command.stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let log_is_stuck = Arc::<AtomicBool>::default();
        let (written, stuck) = (log.clone(), log_is_stuck.clone());
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                while stuck.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(10));
                }
                *written.lock().unwrap() += &(line + "\n");
            }
        });
        let mut server = Self { process, addr: String::new(), log, log_is_stuck };
        server.wait_for_log("listening on ").await.split_whitespace().next().unwrap().clone_into(&mut server.addr);
        server
    }

    /// Starts a server and waits until it is ready.
    pub async fn ready(database: &Database) -> Self {
        let server = Self::start(database).await;
        server.wait_until_ready().await;
        server
    }

    pub async fn wait_until_ready(&self) {
        eventually("the server is ready", async || (self.health("").await == Ok("SERVING")).then_some(())).await;
    }

    /// The address of the admin port.
    pub async fn admin(&self) -> String {
        self.wait_for_log("metrics on http://").await.split('/').next().unwrap().to_owned()
    }

    /// Sends a GET to the admin port; returns the status and the body.
    pub async fn admin_get(&self, path: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(self.admin().await).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The value of one metric, named with its labels as in /metrics; 0 when it is missing.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.admin_get("/metrics").await.1;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_default()
    }

    /// Resident memory.
    pub fn memory_mib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        kib.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
    }

    /// The CPU time used, in seconds, in steps of 10 ms.
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.id())
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Stops reading the log, or reads it again.
    pub fn read_log(&self, read: bool) {
        self.log_is_stuck.store(!read, Ordering::Relaxed);
    }

    /// Waits until the log contains `words`; returns the rest of that line.
    pub async fn wait_for_log(&self, words: &str) -> String {
        eventually(&format!("{words:?} in the log"), async || {
            let log = self.log();
            let (_, rest) = log.split_once(words)?;
            rest.split_once('\n').map(|(line, _)| line.to_owned())
        })
        .await
    }

    /// Opens a connection.
    pub async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.addr)).unwrap().connect().await.unwrap()
    }

    pub async fn client(&self) -> Client {
        Client::new(self.channel().await)
    }

    /// The status of a service in gRPC health.
    pub async fn health(&self, service: &str) -> Result<&'static str, tonic::Code> {
        let mut client = HealthClient::new(self.channel().await);
        let request = HealthCheckRequest { service: service.to_owned() };
        let status = client.check(request).await.map_err(|status| status.code())?.into_inner().status();
        Ok(status.as_str_name())
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until the process has ended.
    pub async fn wait_for_exit(&mut self) -> ExitStatus {
        let process = &mut self.process;
        let mut check = || process.try_wait().unwrap();
        let started = std::time::Instant::now();
        loop {
            if let Some(status) = check() {
                return status;
            }
            assert!(started.elapsed() < super::PATIENCE, "the server does not exit");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The CPU time that a process has used, in seconds, in steps of 10 ms.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.read_log(true);
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        } else {
            assert!(!self.log().contains(PASSWORD), "the log leaks a secret: {}", self.log());
        }
    }
}

/// Makes one call.
pub async fn get(
    client: &mut Client,
    period: &str,
    limit: i32,
    view_mode: i32,
) -> Result<Response<IndustryTreeMap>, Status> {
    let request = GetIndustryTreeMapRequest { period: period.into(), limit, view_mode };
    client.get_industry_tree_map(request).await
}

/// Makes a call that must succeed; returns the stocks as `(industry, code, value)`.
pub async fn stocks(client: &mut Client, period: &str, limit: i32, view_mode: i32) -> Vec<(String, String, f64)> {
    let answer = get(client, period, limit, view_mode).await.unwrap().into_inner();
    answer.stocks.into_iter().map(|stock| (stock.industry, stock.product_code, stock.short_position)).collect()
}
