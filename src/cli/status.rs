use std::process::ExitCode;

use super::table;
use crate::{
    config::{DatabaseArgs, ToleranceArgs},
    db::Session,
    status::{View, age, data_age, problems, words},
};

/// Show how fresh the view is and whether it is as it should be; exit with 1 if not
#[derive(Debug, clap::Args)]
pub struct Status {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    tolerance: ToleranceArgs,
}

impl Status {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let tolerance = self.tolerance.check()?;
        let session = Session::connect(&self.database.check()?).await?;
        let view = View::read(&session).await?;
        let rows: Vec<_> = summary(&view).into_iter().map(|(name, value)| vec![name.into(), value]).collect();
        table::print(&rows);
        let problems = problems(&session, &view, tolerance).await?;
        if problems.is_empty() {
            println!("\nall is well");
            return Ok(ExitCode::SUCCESS);
        }
        println!("\nto be mended:");
        for problem in problems {
            println!("- {problem}");
        }
        Ok(ExitCode::FAILURE)
    }
}

/// The view's state as names and values; the same names whatever the state.
pub fn summary(view: &View) -> [(&'static str, String); 6] {
    let none = || "-".to_owned();
    let (state, contents) = match view {
        View::Missing => ("missing", None),
        View::Foreign => ("not migrated", None),
        View::Unpopulated => ("never filled", None),
        View::Populated(contents) => ("populated", Some(contents)),
    };
    let of = |value: &dyn Fn(&crate::status::Contents) -> Option<String>| contents.and_then(value).unwrap_or_else(none);
    [
        ("view", state.into()),
        ("rows", of(&|c| Some(c.rows.to_string()))),
        (
            "periods",
            of(&|c| {
                let periods: Vec<_> = c.periods.iter().map(|(name, stocks)| format!("{name} {stocks}")).collect();
                (!periods.is_empty()).then(|| periods.join(", "))
            }),
        ),
        ("industries", of(&|c| Some(c.industries.to_string()))),
        (
            "data date",
            of(&|c| {
                let date = c.freshness.data_date?;
                Some(format!("{date}, {} ago", words(data_age(date)?)))
            }),
        ),
        (
            "last refreshed",
            of(&|c| {
                let refreshed = c.freshness.last_refreshed?;
                Some(format!("{refreshed:.0}, {} ago", words(age(refreshed))))
            }),
        ),
    ]
}
