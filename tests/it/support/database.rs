//! A database per test, made from a template, dropped with the test.

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
    /// With nothing in it.
    pub fn empty() -> Self {
        Self::from_template(cluster(), "template0")
    }

    /// With the sample, in a cluster of the test's own.
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

    /// Migrated, and without rows.
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

    /// Migrated, and filled with the sample: 60 companies, six and a half years.
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

    /// Runs SQL and gives what psql prints, unaligned.
    pub fn psql(&self, sql: &str) -> String {
        self.cluster.psql(&self.name, sql).trim_end().to_owned()
    }

    pub fn psql_command(&self) -> std::process::Command {
        self.cluster.psql_command(&self.name)
    }

    /// A session of the test's own.
    pub async fn connect(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Adds a report's rows by hand: `(date, code, percent)`.
    pub fn add_shorts(&self, rows: &[(&str, &str, &str)]) {
        let values: Vec<_> = rows
            .iter()
            .map(|(date, code, percent)| format!("('{date}', '{code} LTD', '{code}', 1, 100, {percent})"))
            .collect();
        self.psql(&format!("INSERT INTO shorts VALUES {}", values.join(", ")));
    }

    /// Adds companies by hand: `(code, industry)`, the industry as SQL.
    pub fn add_companies(&self, rows: &[(&str, &str)]) {
        let values: Vec<_> =
            rows.iter().map(|(code, industry)| format!("('{code}', '{code} LTD', {industry})")).collect();
        self.psql(&format!(
            r#"INSERT INTO "company-metadata" (stock_code, company_name, industry) VALUES {}"#,
            values.join(", ")
        ));
    }

    pub fn refresh(&self) {
        self.psql("SELECT refresh_treemap_data()");
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A cluster of the test's own may be stopped by now, and goes as a whole.
        if !std::thread::panicking() && std::ptr::eq(self.cluster, cluster()) {
            self.cluster.psql("postgres", &format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}
