//! A PgBouncer in transaction mode in front of one database.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use super::{
    cluster::{Owner, cluster, free_port, output, program},
    database::Database,
};

pub struct Pooler {
    process: Child,
    port: u16,
    database: String,
    _folder: tempfile::TempDir,
}

impl Pooler {
    pub fn start(database: &Database) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let owner = Owner::of_processes();
        owner.give(folder.path());
        let port = free_port();
        let settings = folder.path().join("pgbouncer.ini");
        let users = folder.path().join("users");
        fs::write(&users, "\"postgres\" \"\"\n").unwrap();
        fs::write(
            &settings,
            format!(
                "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
                 unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = 2\n",
                cluster().port,
                users.display()
            ),
        )
        .unwrap();
        let mut command = owner.run("/usr/sbin/pgbouncer");
        let process = command.arg("-q").arg(&settings).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.expect("PgBouncer is not installed; make test installs it");
        let pooler = Self { process, port, database: database.name.clone(), _folder: folder };
        let started = std::time::Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < super::PATIENCE, "PgBouncer does not start");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        pooler
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}", self.port, self.database)
    }

    /// Runs SQL through the pooler.
    pub fn psql(&self, sql: &str) -> String {
        output(Command::new(program("psql")).args(["-X", "-q", "-A", "-t", "-d", &self.url(), "-c", sql]))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
