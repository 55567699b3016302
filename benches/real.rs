//! The data of the benchmarks: the real reports, if they are on this machine.

use crate::support::{database::Database, files::real_data, treemap::treemap};

/// A database with the real reports and companies. Without them: the sample, and a printed note.
pub fn database() -> Database {
    let Some(data) = real_data() else {
        println!("the real reports are not on this machine (TREEMAP_TEST_DATA): measuring the sample");
        return Database::with_sample();
    };
    let database = Database::migrated();
    for list in ["asx/ASX_Listed_Companies_2024-04-07.csv", "asx/asx-official-20260302.csv"] {
        treemap(&database, &["load", "companies", &data.join(list).display().to_string()]).succeeds();
    }
    // Some of the files are known to be invalid: the loader reports them and loads the others.
    treemap(&database, &["load", "shorts", &data.join("asic").display().to_string()]).exits(1);
    treemap(&database, &["refresh"]).succeeds();
    database
}
