//! The page and the pictures, by GET: `/`, `/treemap.svg`, `/treemap.csv`. A drawing is made and compressed once for a model.

use std::{borrow::Cow, panic::resume_unwind, sync::Arc};

use bytes::Bytes;
use flate2::Compression;
use http::{HeaderMap, HeaderValue, Method as HttpMethod, Request, Response, StatusCode, header};
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{
    Treemap,
    body::{Body, date, plain},
    in_flight::{Counts, InFlight},
    query::Query,
    refusal::{Refusal, in_connect},
    request::{RequestBody, accepts_gzip, discard_in_time, names},
    treemap_v1::treemap,
};
use crate::{
    picture::{
        Picture,
        colour::Theme,
        csv,
        page::{FILES, File, POLICY, gzip},
        svg::{self, Canvas},
    },
    treemap::{
        Request as Asked, ViewMode,
        model::{Answer, Kind},
    },
};

const SVG: &str = "/treemap.svg";
const CSV: &str = "/treemap.csv";
/// Stocks per industry, where the request has no limit.
const LIMIT: i32 = 10;
const WIDTH: (u16, u16, u16) = (160, 1200, 7680);
const HEIGHT: (u16, u16, u16) = (120, 700, 4320);

/// What can be asked for.
#[derive(Debug, Clone, Copy)]
pub enum Resource {
    /// A file of the page.
    File(&'static File),
    /// The picture.
    Svg,
    /// The rows.
    Csv,
}

impl Resource {
    /// That of a path.
    pub fn of(path: &str) -> Option<Self> {
        match path {
            SVG => Some(Self::Svg),
            CSV => Some(Self::Csv),
            _ => FILES.iter().find(|file| file.path == path).map(Self::File),
        }
    }

    /// Its path, for metrics.
    pub const fn path(self) -> &'static str {
        match self {
            Self::File(file) => file.path,
            Self::Svg => SVG,
            Self::Csv => CSV,
        }
    }
}

/// Why there is no picture: the status, and a sentence.
type Problem = (StatusCode, Cow<'static, str>);

/// Drawings are made one after another, and not where connections are served: clients that ask for ever other ones hold up only each other.
static DRAWING: Semaphore = Semaphore::const_new(1);

/// Answers a request over a connection. `admit` gives it a place among the calls.
pub async fn answer(
    resource: Resource,
    from: &Treemap,
    cache_control: &HeaderValue,
    request: &mut Request<RequestBody>,
    connection: &Arc<Counts>,
    admit: impl FnOnce() -> Result<InFlight, Refusal>,
) -> Response<Body> {
    discard_in_time(request.body_mut()).await;
    let mut response = if !matches!(*request.method(), HttpMethod::GET | HttpMethod::HEAD) {
        let mut response = problem((StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are served here.".into()));
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        response
    } else if let Resource::File(file) = resource {
        of_file(file, request.headers())
    } else {
        match admit() {
            Ok(place) => {
                let query = Query::of(request.uri());
                let drawn = drawn(resource, from, cache_control, query, request.headers(), connection).await;
                let mut response = drawn.unwrap_or_else(problem);
                response.body_mut().in_flight(place);
                response
            }
            Err(refusal) => problem(of_refusal(refusal)),
        }
    };
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    response.headers_mut().insert(header::DATE, date());
    response
}

fn of_file(file: &'static File, headers: &HeaderMap) -> Response<Body> {
    let plain = Bytes::from_static(file.plain.as_bytes());
    let gzip = accepts_gzip(headers, &header::ACCEPT_ENCODING);
    let mut response = compressed(if gzip { file.gzip.clone() } else { plain }, gzip);
    let all = response.headers_mut();
    all.insert(header::CONTENT_TYPE, HeaderValue::from_static(file.kind));
    // Its names carry no version.
    all.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    all.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    all.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

async fn drawn(
    resource: Resource,
    from: &Treemap,
    cache_control: &HeaderValue,
    query: Query<'_>,
    headers: &HeaderMap,
    connection: &Arc<Counts>,
) -> Result<Response<Body>, Problem> {
    let request = asked(query)?;
    let canvas = canvas(query)?;
    let answer = from.answer(request).await.map_err(of_refusal)?;
    let industry = query.value("industry").filter(|industry| !industry.is_empty());
    if let Some(industry) = &industry
        && !answer.industries().any(|(candidate, _)| candidate.name == **industry)
    {
        return Err((StatusCode::NOT_FOUND, format!("There is no industry {industry:?} with stocks to show.").into()));
    }
    let tag = answer.model().entity_tag_with_freshness();
    let mut response = if headers.get_all(header::IF_NONE_MATCH).into_iter().any(|known| names(known, &tag)) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let is_table = matches!(resource, Resource::Csv);
        let kind = Kind {
            canvas: (!is_table).then_some((canvas.width, canvas.height, canvas.theme == Theme::Dark)),
            gzip: accepts_gzip(headers, &header::ACCEPT_ENCODING),
            industry: industry.map(Box::from),
        };
        let bytes = match answer.drawing(&kind) {
            Some(kept) => kept,
            None => drawing(&answer, kind.clone(), connection.clone()).await.map_err(of_refusal)?,
        };
        compressed(bytes, kind.gzip)
    };
    let mut all = answer.metadata();
    all.reserve(12);
    if let Some(encoding) = response.headers_mut().remove(header::CONTENT_ENCODING) {
        all.insert(header::CONTENT_ENCODING, encoding);
    }
    all.insert(header::ETAG, tag);
    // Who asks for a version that we do not have yet is not to keep another under its address.
    let is_other = query.value("version").is_some_and(|version| *version != answer.model().version);
    let cache_control = if is_other { HeaderValue::from_static("no-store") } else { cache_control.clone() };
    all.insert(header::CACHE_CONTROL, cache_control);
    let kind =
        if matches!(resource, Resource::Csv) { "text/csv; charset=utf-8; header=present" } else { "image/svg+xml" };
    all.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // Opened by itself, it has no use for anything.
    all.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    if matches!(resource, Resource::Csv) {
        all.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=\"treemap.csv\""));
    }
    *response.headers_mut() = all;
    Ok(response)
}

/// A drawing that is made for a connection, and kept for whoever asks for the same.
async fn drawing(answer: &Answer, kind: Kind, connection: Arc<Counts>) -> Result<Bytes, Refusal> {
    let _turn = DRAWING.acquire().await;
    // It may have been made while we waited.
    if let Some(kept) = answer.drawing(&kind) {
        return Ok(kept);
    }
    let answer = answer.clone();
    let made = spawn_blocking(move || {
        let make = || {
            let limit = answer.request().limit.get();
            let mut picture = Picture { treemap: treemap(&answer), limit };
            if let Some(industry) = &kind.industry {
                picture = picture.only(industry);
            }
            let plain = match kind.canvas {
                None => csv::write(&picture),
                Some((width, height, is_dark)) => {
                    let theme = if is_dark { Theme::Dark } else { Theme::Light };
                    svg::draw(&picture, Canvas { width, height, theme }, kind.industry.as_deref())
                }
            };
            if kind.gzip { gzip(plain.as_bytes(), Compression::default()) } else { plain.into() }
        };
        let drawing = connection.make(make)?;
        answer.keep_drawing(&kind, drawing.clone());
        Ok(drawing)
    });
    // It fails only when it panicked: then the call does too.
    made.await.unwrap_or_else(|panic| resume_unwind(panic.into_panic()))
}

fn compressed(bytes: Bytes, gzip: bool) -> Response<Body> {
    let mut response = Response::new(Body::whole(bytes));
    if gzip {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// The request for an answer that the query makes.
fn asked(query: Query<'_>) -> Result<Asked, Problem> {
    let bad = |sentence: String| (StatusCode::BAD_REQUEST, Cow::from(sentence));
    let limit = match query.value("limit").as_deref() {
        None | Some("") => LIMIT,
        Some(text) => text.parse().map_err(|_| bad(format!("limit is {text:?}; expected a number from 1 to 500.")))?,
    };
    let view_mode = match query.value("mode").as_deref() {
        None | Some("" | "current") => ViewMode::CurrentChange,
        Some("change") => ViewMode::PercentageChange,
        Some(other) => return Err(bad(format!("mode is {other:?}; expected current or change."))),
    };
    Asked::of(&query.value("period").unwrap_or_default(), limit, view_mode)
        .map_err(|invalid| bad(format!("{invalid}.")))
}

fn canvas(query: Query<'_>) -> Result<Canvas, Problem> {
    let bad = |sentence: String| (StatusCode::BAD_REQUEST, Cow::from(sentence));
    let side = |name: &str, (least, usual, most): (u16, u16, u16)| match query.value(name).as_deref() {
        None | Some("") => Ok(usual),
        Some(text) => {
            let side = text.parse().ok().filter(|side| (least..=most).contains(side));
            side.ok_or_else(|| bad(format!("{name} is {text:?}; expected pixels from {least} to {most}.")))
        }
    };
    let theme = match query.value("theme").as_deref() {
        None | Some("" | "light") => Theme::Light,
        Some("dark") => Theme::Dark,
        Some(other) => return Err(bad(format!("theme is {other:?}; expected light or dark."))),
    };
    Ok(Canvas { width: side("width", WIDTH)?, height: side("height", HEIGHT)?, theme })
}

fn of_refusal(refusal: Refusal) -> Problem {
    let status = refusal.status();
    let (_, http) = in_connect(status.code());
    (http, format!("{}.", status.message()).into())
}

fn problem((status, sentence): Problem) -> Response<Body> {
    plain(status, &format!("{sentence}\n"))
}
