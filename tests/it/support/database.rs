//! A database for each test: created from a template, dropped when the test ends.

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

use tokio_postgres::{Client, NoTls};

use super::{
    cluster::{Cluster, OwnCluster, cluster},
    files,
    treemap::treemap,
};

pub struct Database {
    pub name: String,
    cluster: &'static Cluster,
}

impl Database {
    /// An empty database.
    pub fn empty() -> Self {
        Self::from_template(cluster(), "template0")
    }

    /// A database with the sample, in the test's own cluster.
    pub fn with_sample_in(cluster: &OwnCluster) -> Self {
        let database = Self::from_template(cluster.shared(), "template0");
        database.load_sample();
        database
    }

    fn load_sample(&self) {
        let sample = files::sample();
        treemap(self, &["migrate"]).succeeds();
        treemap(self, &["load", "companies", &sample.companies()]).succeeds();
        treemap(self, &["load", "shorts", &sample.reports()]).succeeds();
        treemap(self, &["refresh"]).succeeds();
    }

    /// A migrated database without rows.
    pub fn migrated() -> Self {
        static TEMPLATE: OnceLock<Database> = OnceLock::new();
        Self::from_template(
            cluster(),
            &TEMPLATE
                .get_or_init(|| {
                    let template = Self::empty();
                    treemap(&template, &["migrate"]).succeeds();
                    template
                })
                .name,
        )
    }

    /// A migrated database with the sample: 60 companies, six and a half years.
    pub fn with_sample() -> Self {
        static TEMPLATE: OnceLock<Database> = OnceLock::new();
        Self::from_template(
            cluster(),
            &TEMPLATE
                .get_or_init(|| {
                    let template = Self::empty();
                    template.load_sample();
                    template
                })
                .name,
        )
    }

    fn from_template(cluster: &'static Cluster, template: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        cluster.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE {template}"));
        Self { name, cluster }
    }

    pub fn url(&self) -> String {
        self.cluster.url(&self.name)
    }

    /// The same database at another port of this machine.
    pub fn url_at(&self, port: u16) -> String {
        self.url().replace(&format!(":{}/", self.cluster.port), &format!(":{port}/"))
    }

    pub fn url_of(&self, role: &str) -> String {
        self.cluster.url_of(role, &self.name)
    }

    /// Runs SQL and returns the unaligned output of psql.
    pub fn psql(&self, sql: &str) -> String {
        self.cluster.psql(&self.name, sql).trim_end().to_owned()
    }

    pub fn psql_command(&self) -> std::process::Command {
        self.cluster.psql_command(&self.name)
    }

    /// Opens a session.
    pub async fn connect(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Inserts rows of reports: `(date, code, percent)`.
    pub fn add_shorts(&self, rows: &[(&str, &str, &str)]) {
        let values: Vec<_> = rows
            .iter()
            .map(|(date, code, percent)| format!("('{date}', '{code} LTD', '{code}', 1, 100, {percent})"))
            .collect();
        self.psql(&format!("INSERT INTO shorts VALUES {}", values.join(", ")));
    }

    /// Inserts companies: `(code, industry)`; the industry is an SQL expression.
    pub fn add_companies(&self, rows: &[(&str, &str)]) {
        let values: Vec<_> =
            rows.iter().map(|(code, industry)| format!("('{code}', '{code} LTD', {industry})")).collect();
        self.psql(&format!(
            r#"INSERT INTO "company-metadata" (stock_code, company_name, industry) VALUES {}"#,
            values.join(", ")
        ));
    }

    /// Adds a thousand stocks, so that answers are as large as in production.
    pub fn add_a_thousand_stocks(&self) {
        self.psql(
            r#"INSERT INTO "company-metadata" (stock_code, company_name, industry)
                SELECT 'L' || n, 'A company with a name of the usual length ' || n, 'Industry ' || n % 27
                FROM generate_series(1, 1000) AS n;
            INSERT INTO shorts SELECT '2023-12-29', 'L', 'L' || n, 1, 100, 1 + n % 97 FROM generate_series(1, 1000) AS n"#,
        );
        self.refresh();
    }

    pub fn refresh(&self) {
        self.psql("SELECT refresh_treemap_data()");
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A test's own cluster may be stopped already, and is removed as a whole.
        if !std::thread::panicking() && std::ptr::eq(self.cluster, cluster()) {
            self.cluster.psql("postgres", &format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}
