use std::process::ExitCode;

use super::table;
use crate::{
    client::TrustArgs,
    config::{Clock, DatabaseArgs, ScheduleArgs, ToleranceArgs},
    postgres::Session,
    proto::treemap::v1::GetTreemapRequest,
    status::{Status as State, words},
    telemetry::redacted,
    treemap::freshness::age,
    view::contents::{Contents, Refresh, View},
};

/// Show how fresh the view is, and its problems
///
/// The exit code is 0 when all is well, 1 when there is a problem or the state cannot be read, and 2 when the command
/// line is wrong.
#[derive(Debug, clap::Args)]
pub struct Status {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    tolerance: ToleranceArgs,
    #[command(flatten)]
    schedule: ScheduleArgs,
    /// Also ask this server (host:port, http:// or https://) what it serves, and compare
    #[arg(value_name = "ADDRESS")]
    server: Option<String>,
    #[command(flatten)]
    trust: TrustArgs,
    /// Print JSON, for machines
    #[arg(long)]
    json: bool,
}

impl Status {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let tolerance = self.tolerance.check()?;
        let clock = self.schedule.check()?;
        let session = Session::connect(&self.database.check()?).await?;
        let mut status = State::read(&session, tolerance, &clock).await?;
        if let Some(server) = &self.server {
            let served = match self.trust.connect(server).await {
                Ok(mut client) => client.get(GetTreemapRequest { limit: 1, ..GetTreemapRequest::default() }).await,
                Err(error) => Err(error),
            };
            let served = served.map_err(|error| redacted(&format!("{error:#}")).into_owned());
            status.compare(&redacted(server), served);
        }
        if self.json {
            out_line!("{:#}", status.json());
        } else {
            print(&status, &clock);
        }
        Ok(if status.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn print(status: &State, clock: &Clock) {
    let mut rows: Vec<_> = summary(&status.view).into_iter().map(|(name, value)| vec![name.into(), value]).collect();
    let lag = status.lag.map_or_else(|| "-".into(), |days| format!("{days} trading days"));
    rows.push(vec!["data lag".into(), lag]);
    let next = status.next_tick.map_or_else(
        || "never: the schedule is off".into(),
        |tick| format!("{}, in {}", tick.to_zoned(clock.zone.clone()), words(-age(tick))),
    );
    rows.push(vec!["next tick".into(), next]);
    let changes = match status.counted {
        Some(true) => "counted by Postgres",
        Some(false) => {
            "not counted by Postgres (a foreign table, Citus, a function below a view, or track_counts = off): \
             only a new day is noticed before the next tick"
        }
        None => "not looked at, nor the reports: this role may not call treemap_source_facts(), or that failed",
    };
    rows.push(vec!["source changes".into(), changes.into()]);
    table::print(&rows);
    print_log(&status.refreshes);
    if status.problems.is_empty() {
        let all = if status.counted.is_some() { "all" } else { "what was looked at" };
        out_line!("\n{all} is well");
    } else {
        out_line!("\nto repair:");
        for problem in &status.problems {
            out_line!("- {problem}");
        }
    }
}

/// Prints the newest refreshes as a table, or nothing when there are none.
pub fn print_log(refreshes: &[Refresh]) {
    if refreshes.is_empty() {
        return;
    }
    let mut rows = vec![["refreshed", "for", "seconds", "rows", "data date", "by"].map(String::from).to_vec()];
    rows.extend(refreshes.iter().map(|refresh| {
        vec![
            format!("{:.0}", refresh.finished_at),
            refresh.tick.map_or_else(|| "-".into(), |tick| format!("{tick:.0}")),
            format!("{:.2}", refresh.seconds()),
            refresh.rows.to_string(),
            refresh.data_date.map_or_else(|| "-".into(), |date| date.to_string()),
            refresh.who.clone(),
        ]
    }));
    out_line!("");
    table::print(&rows);
}

/// The state of the view as names and values. The names are the same in every state.
pub fn summary(view: &View) -> [(&'static str, String); 6] {
    let of =
        |value: &dyn Fn(&Contents) -> Option<String>| view.contents().and_then(value).unwrap_or_else(|| "-".into());
    let periods = |contents: &Contents| {
        let periods: Vec<_> = contents.periods.iter().map(|(name, stocks)| format!("{name} {stocks}")).collect();
        (!periods.is_empty()).then(|| periods.join(", "))
    };
    [
        ("view", view.state().into()),
        ("rows", of(&|contents| Some(contents.rows.to_string()))),
        ("periods", of(&periods)),
        ("industries", of(&|contents| Some(contents.industries.to_string()))),
        (
            "data date",
            of(&|contents| {
                let date = contents.freshness.data_date?;
                Some(format!("{date}, {} ago", words(contents.freshness.data_age()?)))
            }),
        ),
        (
            "last refreshed",
            of(&|contents| {
                let refreshed = contents.freshness.last_refreshed?;
                Some(format!("{refreshed:.0}, {} ago", words(age(refreshed))))
            }),
        ),
    ]
}
