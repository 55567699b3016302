//! A PgBouncer in transaction mode.

use std::{
    env, fs,
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock},
};

use super::{
    cluster::{Owner, after_this_process, cluster, free_port, output, program},
    database::Database,
};

pub struct Pooler {
    process: Mutex<Child>,
    port: u16,
    folder: tempfile::TempDir,
}

impl Pooler {
    /// Starts a PgBouncer in front of the Postgres at a local port.
    pub fn start(server_port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Owner::of_processes().give(folder.path());
        let port = free_port();
        let users = folder.path().join("users");
        fs::write(&users, "\"postgres\" \"\"\n").unwrap();
        fs::write(
            folder.path().join("pgbouncer.ini"),
            format!(
                "[databases]\n* = host=127.0.0.1 port={server_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                 unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = 2\n",
                users.display()
            ),
        )
        .unwrap();
        let pooler = Self { process: Mutex::new(spawn(&folder)), port, folder };
        pooler.wait();
        pooler
    }

    /// Kills PgBouncer, and so closes all its connections.
    pub fn kill(&self) {
        let mut process = self.process.lock().unwrap();
        let _ = process.kill();
        let _ = process.wait();
    }

    pub fn start_again(&self) {
        *self.process.lock().unwrap() = spawn(&self.folder);
        self.wait();
    }

    fn wait(&self) {
        let started = std::time::Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(started.elapsed() < super::PATIENCE, "PgBouncer does not start");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    pub fn url(&self, database: &Database) -> String {
        database.url_at(self.port)
    }

    /// Runs SQL through the pooler.
    pub fn psql(&self, database: &Database, sql: &str) -> String {
        output(Command::new(program("psql")).args(["-X", "-q", "-A", "-t", "-d", &self.url(database), "-c", sql]))
    }
}

fn spawn(folder: &tempfile::TempDir) -> Child {
    let mut command = Owner::of_processes().run("/usr/sbin/pgbouncer");
    command.arg("-q").arg(folder.path().join("pgbouncer.ini")).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("PgBouncer is not installed; make test installs it")
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The same URL through a PgBouncer. With `TREEMAP_TEST_POOLER` set, every server of the tests reaches the shared
/// cluster through it, except for LISTEN, which connects directly.
pub fn for_all(url: &str) -> Option<String> {
    static POOLER: OnceLock<Pooler> = OnceLock::new();
    env::var_os("TREEMAP_TEST_POOLER")?;
    // Tests of refused roles and missing databases need the error of Postgres, not that of PgBouncer.
    let direct = format!("127.0.0.1:{}/", cluster().port);
    let usual = url.contains(&(direct.clone() + "test_")) && url.starts_with("postgres://postgres:");
    usual.then(|| {
        let pooler = POOLER.get_or_init(|| {
            let pooler = Pooler::start(cluster().port);
            after_this_process(r#"kill "$0""#, &pooler.process.lock().unwrap().id().to_string());
            pooler
        });
        url.replace(&direct, &format!("127.0.0.1:{}/", pooler.port))
    })
}
