//! `treemap load companies`.

use crate::support::{database::Database, files::Reports, treemap::treemap};

const COMPANIES: &str = r#"SELECT stock_code, company_name, industry FROM "company-metadata" ORDER BY 1"#;

#[test]
fn both_layouts_are_loaded_and_a_later_list_updates_companies() {
    let database = Database::migrated();
    let files = Reports::new();
    files.write("one.csv", "ASX listed companies as at Mon\r\n\r\nCompany name,ASX code,GICS industry group\r\n\"A, B LTD\",\"AB\",\"Banks\"\r\nC,CC,Energy\r\n");
    files.write("two.csv", "\"ASX code\",\"Company name\",\"GICs industry group\",\"Listing date\",\"Market Cap\"\n\"AB\",\"A LTD\",\"Not Applic\",\"01/01/2001\",1\n\"DD\",\"D\",\"Banks\",\"\",\n");
    treemap(&database, &["load", "companies", &files.file("one.csv")])
        .succeeds()
        .prints(&["2 companies: 2 added, 0 updated"]);
    treemap(&database, &["load", "companies", &files.file("one.csv")])
        .succeeds()
        .prints(&["2 companies: 0 added, 0 updated"]);
    treemap(&database, &["load", "companies", &files.file("two.csv")])
        .succeeds()
        .prints(&["2 companies: 1 added, 1 updated"]);
    assert_eq!(database.psql(COMPANIES), "AB|A LTD|Not Applic\nCC|C|Energy\nDD|D|Banks");
}

#[test]
fn an_invalid_list_is_refused_as_a_whole() {
    let database = Database::migrated();
    let files = Reports::new();
    files
        .write("short.csv", "Company name,ASX code,GICS industry group\nA,AA,Banks\nB,BB\n")
        .write("quote.csv", "Company name,ASX code,GICS industry group\nA,AA,Banks\n\n\"B,BB,Banks\nC,CC,Banks\n")
        .write("other.csv", "a,b\n1,2\n");
    treemap(&database, &["load", "companies", &files.file("short.csv")])
        .exits(1)
        .prints(&["short.csv: line 3 has 2 fields"]);
    treemap(&database, &["load", "companies", &files.file("quote.csv")])
        .exits(1)
        .prints(&["quote.csv: line 4 has a quote that is never closed"]);
    treemap(&database, &["load", "companies", &files.file("other.csv")]).exits(1).prints(&["expected \"ASX code\""]);
    treemap(&database, &["load", "companies", &files.file("none.csv")]).exits(1).prints(&["none.csv: No such file"]);
    assert_eq!(database.psql(COMPANIES), "");
}
