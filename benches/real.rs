//! What is measured: the real reports, where the machine has them.

use crate::support::{database::Database, files::real_data, treemap::treemap};

/// A database with the real reports and companies; else with the sample, and a word about it.
pub fn database() -> Database {
    let Some(data) = real_data() else {
        println!("the real reports are not on this machine (TREEMAP_TEST_DATA): measuring the sample");
        return Database::with_sample();
    };
    let database = Database::migrated();
    for list in ["asx/ASX_Listed_Companies_2024-04-07.csv", "asx/asx-official-20260302.csv"] {
        treemap(&database, &["load", "companies", &data.join(list).display().to_string()]).succeeds();
    }
    // Some of the files are known to be no reports: they are named and left out.
    treemap(&database, &["load", "shorts", &data.join("asic").display().to_string()]).exits(1);
    treemap(&database, &["refresh"]).succeeds();
    database
}
