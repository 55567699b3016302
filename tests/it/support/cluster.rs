//! One Postgres cluster for the whole test binary, on a free port, gone when the binary ends, however it ends.

use std::{
    env, fs,
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

pub struct Cluster {
    pub port: u16,
    /// Removed when the tests end: whatever outlives a single test goes in here.
    pub folder: PathBuf,
}

/// The password of the role `locked`, the only one that needs one.
pub const LOCKED_PASSWORD: &str = "s3cret/of:locked";

pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::start)
}

impl Cluster {
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("treemap-test-").tempdir().unwrap().keep();
        let owner = Owner::of_processes();
        owner.give(&folder);
        let data = folder.join("data");
        let mut initdb = owner.command("initdb");
        initdb.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync"]).arg("-D").arg(&data);
        // A database whose own order is not that of bytes: what must be in byte order has to say so itself.
        if output(owner.command("initdb").arg("--help")).contains("--icu-locale") {
            initdb.args(["--locale-provider=icu", "--icu-locale=en", "--locale=C.UTF-8"]);
        }
        output(&mut initdb);
        let hba = data.join("pg_hba.conf");
        let trusting = fs::read_to_string(&hba).unwrap();
        fs::write(&hba, format!("host all locked all scram-sha-256\n{trusting}")).unwrap();

        let port = free_port();
        let settings = format!(
            "-p {port} -k {} -c listen_addresses=127.0.0.1 -c fsync=off -c synchronous_commit=off \
             -c full_page_writes=off -c max_connections=200",
            folder.display()
        );
        remove_with_this_process(&folder);
        let log = folder.join("log");
        let mut start = owner.command("pg_ctl");
        start.arg("-D").arg(&data).args(["-w", "-o", &settings, "-l"]).arg(&log).arg("start");
        // The server inherits what pg_ctl has: no pipe of ours, or reading it would never end.
        let status = start.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{}", fs::read_to_string(log).unwrap_or_default());
        let cluster = Self { port, folder };
        cluster.psql(
            "postgres",
            &format!("CREATE ROLE locked LOGIN PASSWORD '{LOCKED_PASSWORD}'; CREATE ROLE stranger LOGIN"),
        );
        cluster
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

/// A port that is free now. Nobody else takes it in the moment until it is used: the system hands out others first.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Who runs Postgres: it refuses root, so root steps down.
pub struct Owner(Option<(u32, u32)>);

impl Owner {
    pub fn of_processes() -> Self {
        let number = |flag: &str, user: &str| {
            let answer = Command::new("id").args([flag, user]).output().ok()?;
            String::from_utf8(answer.stdout).ok()?.trim().parse::<u32>().ok()
        };
        let me = output(Command::new("id").arg("-u"));
        if me.trim() != "0" {
            return Self(None);
        }
        let ids = ["postgres", "nobody"].into_iter().find_map(|user| Some((number("-u", user)?, number("-g", user)?)));
        Self(Some(ids.expect("root runs the tests, and there is no user postgres or nobody to step down to")))
    }

    pub fn give(&self, folder: &Path) {
        if let Some((user, group)) = self.0 {
            chown(folder, Some(user), Some(group)).unwrap();
        }
    }

    fn command(&self, name: &str) -> Command {
        self.run(&program(name).display().to_string())
    }

    /// Any program, as the owner.
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
    programs().join(name)
}

/// Where initdb and the others are: `TREEMAP_TEST_PG_BIN`, or the newest of Debian's, or with `pg_config`.
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

/// Stops the cluster and removes its folder when this process is gone: the watcher reads from a pipe that only this
/// process can write to, so it reads on until then.
#[expect(clippy::zombie_processes, reason = "it outlives this process, as it must")]
fn remove_with_this_process(folder: &Path) {
    const WATCH: &str = r#"cat > /dev/null
        kill -QUIT "$(head -n 1 "$0/data/postmaster.pid")"
        while [ -e "$0/data/postmaster.pid" ]; do sleep 0.1; done
        rm -rf "$0""#;
    let mut watch = Command::new("sh");
    // In a process group of its own: Ctrl-C ends the tests, not the one who cleans up after them.
    watch.args(["-c", WATCH]).arg(folder).process_group(0);
    let mut watch = watch.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::mem::forget(watch.stdin.take());
}

/// What a command prints; panics with all it said when it fails.
pub fn output(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{command:?}: {}{}", text(&done.stdout), text(&done.stderr));
    text(&done.stdout)
}
