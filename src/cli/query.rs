use std::{env, io::IsTerminal, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::ValueEnum;

use super::table;
use crate::{
    api::treemap_v1::json,
    client::{TrustArgs, Watched},
    picture::{
        Picture,
        colour::Theme,
        csv, percent, plain,
        svg::{self, Canvas},
        terminal::{self, Colours},
    },
    proto::treemap::v1::{
        GetTreemapRequest, Heartbeat, Treemap, ViewMode, WatchTreemapRequest, watch_treemap_response::Event,
    },
    status::words,
    telemetry::redacted,
};

/// The pause before a watch is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// The size of an SVG, in pixels.
const SVG: (u16, u16) = (1200, 700);
/// The size of a picture where the terminal does not tell its own.
const TERMINAL: (usize, usize) = (100, 40);

/// Ask a running server, and show its treemap: a picture on a terminal, a table into a pipe
///
/// The exit code is 0 when there is an answer, 1 when there is none, and 2 when the command line is wrong.
#[derive(Debug, clap::Args)]
pub struct Query {
    /// The server: host:port, `http://host:port` or `https://host:port`
    #[arg(value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    address: String,
    #[command(flatten)]
    trust: TrustArgs,
    /// Look-back period: 1d, 1w, 1m, 3m, 6m, 1y, 2y, 5y, 10y or max
    #[arg(long, default_value = "3m")]
    period: String,
    /// What ranks and colours the stocks
    #[arg(long, value_enum, default_value_t = Mode::Current)]
    mode: Mode,
    /// Stocks per industry, 1 to 500
    #[arg(long, default_value_t = 10)]
    limit: i32,
    /// Only this industry
    #[arg(long, value_name = "NAME")]
    industry: Option<String>,
    /// How to print; by default a picture on a terminal, and a table otherwise
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write to a file in place of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Stay, and print again whenever the treemap changes or turns stale
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    /// The current short position
    Current,
    /// Its change over the period
    Change,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each stock
    Table,
    /// The message of treemap.v1, in one line
    Json,
    /// Comma-separated values, with a header
    Csv,
    /// A drawing of 1200 x 700 pixels
    Svg,
    /// Coloured tiles in the cells of the terminal
    Picture,
}

impl Query {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let mut client = self.trust.connect(&self.address).await?;
        let request = GetTreemapRequest {
            period: self.period.clone(),
            limit: self.limit,
            view_mode: match self.mode {
                Mode::Current => ViewMode::Current.into(),
                Mode::Change => ViewMode::Change.into(),
            },
        };
        if !self.watch {
            self.show(client.get(request).await?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let GetTreemapRequest { period, limit, view_mode } = request;
        let mut request = WatchTreemapRequest { period, limit, view_mode, version: String::new() };
        let mut stream = client.watch(request.clone()).await?;
        let mut treemap = Treemap::default();
        loop {
            while let Some(event) = stream.next().await? {
                let is_news = match event {
                    Event::Treemap(new) => {
                        request.version.clone_from(&new.version);
                        treemap = new;
                        true
                    }
                    Event::Heartbeat(Heartbeat { refreshed_at, stale, .. }) => {
                        let has_turned = stale != treemap.stale;
                        (treemap.refreshed_at, treemap.stale) = (refreshed_at, stale);
                        // A picture that is drawn over the last one shows its age; elsewhere that would only repeat the rows.
                        has_turned || self.format() == Format::Picture && self.is_on_terminal()
                    }
                };
                if is_news {
                    self.show(treemap.clone())?;
                }
            }
            stream = self.watch_again(&request).await;
        }
    }

    /// Another replica, or another connection, goes on.
    async fn watch_again(&self, request: &WatchTreemapRequest) -> Watched {
        let mut is_reported = false;
        loop {
            tokio::time::sleep(AGAIN).await;
            let again = match self.trust.connect(&self.address).await {
                Ok(mut client) => client.watch(request.clone()).await,
                Err(error) => Err(error),
            };
            match again {
                Ok(stream) => return stream,
                Err(error) if !is_reported => {
                    eprintln!("{}", redacted(&format!("the server is gone; trying again: {error:#}")));
                    is_reported = true;
                }
                Err(_) => {}
            }
        }
    }

    fn is_on_terminal(&self) -> bool {
        self.output.is_none() && std::io::stdout().is_terminal()
    }

    fn format(&self) -> Format {
        self.format.unwrap_or(if self.is_on_terminal() { Format::Picture } else { Format::Table })
    }

    fn show(&self, treemap: Treemap) -> anyhow::Result<()> {
        let mut picture = Picture { treemap, limit: usize::try_from(self.limit).unwrap_or_default() };
        if let Some(industry) = &self.industry {
            let names: Vec<_> = picture.treemap.industries.iter().map(|industry| plain(&industry.name)).collect();
            picture = picture.only(industry);
            if picture.treemap.industries.is_empty() {
                anyhow::bail!("there is no industry {industry:?} with stocks to show; there are: {}", names.join(", "));
            }
        }
        let text = match self.format() {
            Format::Table => format!("{}\n\n{}", headline(&picture), rows(&picture)),
            Format::Json => format!("{}\n", json(&picture.treemap)),
            Format::Csv => csv::write(&picture),
            Format::Svg => {
                let canvas = Canvas { width: SVG.0, height: SVG.1, theme: Theme::Light };
                svg::draw(&picture, canvas, self.industry.as_deref())
            }
            Format::Picture => {
                let terminal = self.is_on_terminal();
                let (columns, lines) = size(terminal);
                let headline = headline(&picture);
                // A terminal breaks a long headline; the last line is for the prompt.
                let above = if terminal { headline.chars().count().div_ceil(columns) } else { 1 };
                let lines = lines.saturating_sub(above + 1).max(1);
                let drawn = terminal::draw(&picture, columns, lines, colours(terminal));
                let clear = if self.watch && terminal { "\x1b[2J\x1b[H" } else { "" };
                format!("{clear}{headline}\n{drawn}")
            }
        };
        match &self.output {
            Some(file) => std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?,
            None => out!("{text}"),
        }
        Ok(())
    }
}

/// What is shown, and how fresh it is.
fn headline(picture: &Picture) -> String {
    let Treemap { data_date, version, stale, refreshed_at, .. } = &picture.treemap;
    let age =
        refreshed_at.and_then(|at| jiff::Timestamp::new(at.seconds, at.nanos).ok()).map(crate::treemap::freshness::age);
    let refreshed = age.map_or_else(|| "never refreshed".into(), |age| format!("refreshed {} ago", words(age)));
    let date = if data_date.is_empty() { "no reports" } else { data_date };
    let stale = if *stale { ", stale" } else { "" };
    format!("{}: reports up to {date}, {refreshed}{stale}, version {version}", picture.title())
}

fn rows(picture: &Picture) -> String {
    let mut rows = vec![["industry", "code", "company", "now", "then", "change", "report"].map(String::from).to_vec()];
    for industry in &picture.treemap.industries {
        for stock in &industry.stocks {
            let percent = |value, signed| percent(value, signed).replace('\u{202f}', " ");
            rows.push(vec![
                plain(&industry.name),
                plain(&stock.code),
                plain(&stock.company_name),
                percent(stock.current_percent, false),
                percent(stock.earliest_percent, false),
                stock.change_percent.map_or_else(|| "-".into(), |change| percent(change, true)),
                plain(&stock.report_date),
            ]);
        }
    }
    table::text(&rows)
}

/// Columns and lines.
fn size(terminal: bool) -> (usize, usize) {
    // Into a pipe or a file, the size of the terminal behind it says nothing.
    let size = terminal.then(terminal_size::terminal_size).flatten();
    size.map_or(TERMINAL, |(width, height)| (width.0.into(), height.0.into()))
}

/// By <https://no-color.org> and COLORTERM.
fn colours(terminal: bool) -> Colours {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let true_colour = env::var("COLORTERM").is_ok_and(|value| matches!(value.as_str(), "truecolor" | "24bit"));
    match (terminal && !is_set("NO_COLOR"), true_colour) {
        (false, _) => Colours::None,
        (true, true) => Colours::True,
        (true, false) => Colours::Palette,
    }
}
