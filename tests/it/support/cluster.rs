//! Postgres clusters on free ports. They are removed when the test binary ends, even if it is killed. Most tests share
//! one cluster. A test that stops or kills Postgres, or needs other settings, starts its own cluster.

use std::{
    env, fs,
    net::TcpListener,
    ops::Deref,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use super::PATIENCE;

pub struct Cluster {
    pub port: u16,
    /// Removed when the tests end. Files that outlive a single test belong here.
    pub folder: PathBuf,
    /// Additional settings, as arguments of the server.
    settings: String,
}

/// A cluster that is stopped when the test ends.
pub struct OwnCluster(&'static Cluster);

/// The password in every connection string of the tests, and nowhere else: output that contains it leaks a secret. Most
/// roles can connect without it.
pub const PASSWORD: &str = "s3cret/of:all";

pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start(&[]))
}

impl OwnCluster {
    /// Starts a cluster with additional settings, each as `name=value`.
    pub fn start(settings: &[&str]) -> Self {
        Self(Box::leak(Box::new(Cluster::start(settings))))
    }

    /// The cluster, for a `Database` in it.
    pub fn shared(&self) -> &'static Cluster {
        self.0
    }

    /// Creates a hot standby of this cluster. The cluster stops for a moment while its files are copied.
    pub fn standby(&self) -> Self {
        self.stop("fast");
        let folder = new_folder();
        let data = folder.join("data");
        output(Owner::of_processes().run("cp").arg("-a").arg(self.folder.join("data")).arg(&data));
        let primary = format!("primary_conninfo = 'host=127.0.0.1 port={} user=postgres'\n", self.port);
        fs::write(data.join("postgresql.auto.conf"), primary).unwrap();
        fs::write(data.join("standby.signal"), "").unwrap();
        let standby = Cluster { port: free_port(), folder, settings: self.settings.clone() };
        self.start_again();
        standby.start_again();
        Self(Box::leak(Box::new(standby)))
    }
}

impl Deref for OwnCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.0
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        let _ = self.pg_ctl().args(["-m", "immediate", "stop"]).output();
    }
}

impl Cluster {
    pub fn url(&self, database: &str) -> String {
        self.url_of("postgres", database)
    }

    pub fn url_of(&self, role: &str, database: &str) -> String {
        let password = PASSWORD.replace('/', "%2F").replace(':', "%3A");
        format!("postgres://{role}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    fn start(settings: &[&str]) -> Self {
        let folder = new_folder();
        let owner = Owner::of_processes();
        let data = folder.join("data");
        let mut initdb = owner.command("initdb");
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"]).arg("-D").arg(&data);
        // The default collation does not sort by bytes: a query that needs byte order must use COLLATE "C".
        if output(owner.command("initdb").arg("--help")).contains("--icu-locale") {
            initdb.args(["--locale-provider=icu", "--icu-locale=en", "--locale=C.UTF-8"]);
        }
        output(&mut initdb);
        let hba = data.join("pg_hba.conf");
        let trusting = fs::read_to_string(&hba).unwrap();
        fs::write(&hba, format!("host all locked all scram-sha-256\n{trusting}")).unwrap();
        let settings = settings.iter().flat_map(|setting| ["-c ", setting, " "]).collect();
        let cluster = Self { port: free_port(), folder, settings };
        cluster.start_again();
        cluster
            .psql("postgres", &format!("CREATE ROLE locked LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE stranger LOGIN"));
        cluster
    }

    /// Starts the cluster, also after a stop or a kill, and waits until it accepts connections.
    pub fn start_again(&self) {
        self.start_by(self.pg_ctl().arg("-w"), "");
    }

    /// Starts the cluster while `standby.signal` exists: it recovers, and refuses all connections.
    pub fn start_without_connections(&self) {
        self.start_by(self.pg_ctl().arg("-W"), "-c hot_standby=off");
    }

    /// Starts the cluster with an additional disk of 24 MB, and returns the folder of that disk. `None` if the tests
    /// lack the privilege to mount it.
    pub fn start_with_a_small_disk(&self) -> Option<PathBuf> {
        let (user, group) = Owner::of_processes().0?;
        let small = self.folder.join("small");
        fs::create_dir(&small).unwrap();
        // Mounted in the mount namespace of the server: the mount disappears with the server.
        let mut unshare = Command::new("unshare");
        unshare.current_dir("/").args(["--mount", "sh", "-c"]);
        unshare.arg(format!(
            r#"mount -t tmpfs -o size=24m,mode=700,uid={user},gid={group} tmpfs "$0" &&
            exec setpriv --reuid={user} --regid={group} --clear-groups "$@""#
        ));
        unshare.arg(&small).arg(program("pg_ctl")).arg("-D").arg(self.folder.join("data")).arg("-w");
        self.start_by(&mut unshare, "");
        Some(small)
    }

    fn start_by(&self, pg_ctl: &mut Command, more: &str) {
        let settings = format!(
            "-p {} -k {} -c listen_addresses=127.0.0.1 -c fsync=off -c full_page_writes=off -c max_connections=200 {more} {}",
            self.port,
            self.folder.display(),
            self.settings,
        );
        let log = self.folder.join("log");
        pg_ctl.args(["-o", &settings, "-l"]).arg(&log).arg("start");
        // The server inherits the outputs of pg_ctl. They must not be pipes: reading from them would never end.
        pg_ctl.stdout(Stdio::null()).stderr(Stdio::null());
        let begun = Instant::now();
        while !pg_ctl.status().unwrap().success() {
            // After a kill, Postgres cannot start until its last process has ended.
            assert!(begun.elapsed() < PATIENCE, "{}", fs::read_to_string(&log).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Stops the cluster: `fast` ends sessions cleanly, `immediate` aborts them.
    pub fn stop(&self, mode: &str) {
        output(self.pg_ctl().args(["-w", "-m", mode, "stop"]));
    }

    /// Kills the postmaster, as in a crash.
    pub fn kill(&self) {
        let pid = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap();
        output(Command::new("kill").args(["-KILL", pid.lines().next().unwrap()]));
    }

    /// Promotes a standby to primary.
    pub fn promote(&self) {
        output(self.pg_ctl().args(["-w", "promote"]));
    }

    fn pg_ctl(&self) -> Command {
        let mut command = Owner::of_processes().command("pg_ctl");
        command.arg("-D").arg(self.folder.join("data"));
        command
    }

    /// Runs psql with SQL text; panics when a statement fails.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        output(self.psql_command(database).args(["-c", sql]))
    }

    /// psql for a database of this cluster, stopping at the first error.
    pub fn psql_command(&self, database: &str) -> Command {
        let mut command = Command::new(program("psql"));
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", &self.url(database)]);
        command
    }
}

fn new_folder() -> PathBuf {
    let folder = tempfile::Builder::new().prefix("treemap-test-").tempdir().unwrap().keep();
    Owner::of_processes().give(&folder);
    remove_with_this_process(&folder);
    folder
}

/// A port that is free now, with the next one, and stays free until it is used: each is given once, and Linux assigns those from 32,768
/// on, unless it is told otherwise.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests of the next process begin elsewhere.
    let first = std::process::id().wrapping_mul(101);
    for _ in 0..10_000 {
        let number = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed).into()) % 10_000;
        let port = u16::try_from(12_000 + 2 * number).unwrap();
        if [port, port + 1].iter().all(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok()) {
            return port;
        }
    }
    panic!("no two ports in a row are free between 12,000 and 32,000");
}

/// The user that runs Postgres. Postgres refuses to run as root, so root switches to another user.
pub struct Owner(Option<(u32, u32)>);

impl Owner {
    pub fn of_processes() -> Self {
        static IDS: OnceLock<Option<(u32, u32)>> = OnceLock::new();
        let find = || {
            let number = |flag: &str, user: &str| {
                let answer = Command::new("id").args([flag, user]).output().ok()?;
                String::from_utf8(answer.stdout).ok()?.trim().parse::<u32>().ok()
            };
            if output(Command::new("id").arg("-u")).trim() != "0" {
                return None;
            }
            let ids =
                ["postgres", "nobody"].into_iter().find_map(|user| Some((number("-u", user)?, number("-g", user)?)));
            Some(ids.expect("the tests run as root, and there is no user postgres or nobody to switch to"))
        };
        Self(*IDS.get_or_init(find))
    }

    pub fn give(&self, path: &Path) {
        if let Some((user, group)) = self.0 {
            chown(path, Some(user), Some(group)).unwrap();
        }
    }

    fn command(&self, name: &str) -> Command {
        self.run(&program(name).display().to_string())
    }

    /// A command that runs any program as this user.
    pub fn run(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/");
        if let Some((user, group)) = self.0 {
            command.uid(user).gid(group);
        }
        command
    }
}

/// A program of Postgres.
pub fn program(name: &str) -> PathBuf {
    let own = programs().join(name);
    // Some Postgres packages contain no psql. Any other version of psql works.
    if own.exists() { own } else { name.into() }
}

/// The folder of initdb and the other programs: `TREEMAP_TEST_PG_BIN`, or Debian's newest, or that of `pg_config`.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        if let Some(folder) = env::var_os("TREEMAP_TEST_PG_BIN") {
            return folder.into();
        }
        let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let newest = debian
            .filter_map(|version| {
                let number: u32 = version.file_name().to_str()?.parse().ok()?;
                let folder = version.path().join("bin");
                folder.join("initdb").exists().then_some((number, folder))
            })
            .max();
        newest.map_or_else(|| output(Command::new("pg_config").arg("--bindir")).trim().into(), |(_, folder)| folder)
    })
}

/// Stops the cluster and removes its folder when this process has ended.
fn remove_with_this_process(folder: &Path) {
    const REMOVE: &str = r#"pid=$(head -n 1 "$0/data/postmaster.pid") && kill -QUIT "$pid"
        while [ -n "$pid" ] && kill -0 "$pid"; do sleep 0.1; done
        rm -rf "$0""#;
    after_this_process(REMOVE, &folder.display().to_string());
}

/// Runs a shell script when this process has ended, even by a kill. The shell reads from a pipe that only this process
/// can write to, so its read ends together with this process.
#[expect(clippy::zombie_processes, reason = "it outlives this process, as it must")]
pub fn after_this_process(script: &str, argument: &str) {
    let mut watch = Command::new("sh");
    // In its own process group: Ctrl-C must end the tests, but not this cleanup.
    watch.args(["-c", &format!("cat > /dev/null; {script}"), argument]).process_group(0);
    let mut watch = watch.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::mem::forget(watch.stdin.take());
}

/// Runs a command and returns its stdout. Panics with its output if it fails.
pub fn output(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{command:?}: {}{}", text(&done.stdout), text(&done.stderr));
    text(&done.stdout)
}
