//! The messages of `treemap.v1`: each encoded once for a model, whoever asks.

use std::sync::Arc;

use prost::Message as _;
use prost_types::Timestamp;

use super::{in_flight::Counts, message::Message, refusal::Refusal, service::Codec};
use crate::{
    proto::treemap::v1::{
        GetTreemapResponse, Heartbeat, Industry, Stock, Treemap, ViewMode as Wire, WatchTreemapResponse,
        watch_treemap_response::Event,
    },
    treemap::{
        InvalidRequest, Request, ViewMode,
        json::{write_number, write_string},
        model::{Answer, Model},
    },
};

/// Checks the fields of a request.
///
/// Fails: the first field that is invalid.
pub fn parse(period: &str, limit: i32, view_mode: i32) -> Result<Request, InvalidRequest> {
    let view_mode = match Wire::try_from(view_mode) {
        Ok(Wire::Unspecified | Wire::Current) => ViewMode::CurrentChange,
        Ok(Wire::Change) => ViewMode::PercentageChange,
        Err(_) => {
            return Err(InvalidRequest {
                field: "view_mode",
                message: "invalid view mode. Valid modes: VIEW_MODE_CURRENT, VIEW_MODE_CHANGE",
            });
        }
    };
    Request::of(period, limit, view_mode)
}

/// The message that a treemap stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// `GetTreemapResponse`.
    Get,
    /// `WatchTreemapResponse`.
    Watch,
}

/// The message of an answer, made and compressed once for a model. The first who asks makes it, over its `connection`.
///
/// Fails: too many bytes wait for clients.
pub fn message(
    answer: &Answer,
    of: Of,
    codec: Codec,
    gzip: bool,
    connection: &Arc<Counts>,
) -> Result<Message, Refusal> {
    let bits = [true, codec == Codec::Json, gzip, of == Of::Watch, answer.model().is_stale()];
    let form = bits.into_iter().enumerate().map(|(place, bit)| u8::from(bit) << (place + 2)).sum();
    let make = || {
        let treemap = treemap(answer);
        let message = match (codec, of) {
            (Codec::Json, _) => Message::new(format!("{{\"treemap\":{}}}", json(&treemap)).as_bytes()),
            (Codec::Proto, Of::Get) => Message::new(&GetTreemapResponse { treemap: Some(treemap) }.encode_to_vec()),
            (Codec::Proto, Of::Watch) => {
                Message::new(&WatchTreemapResponse { event: Some(Event::Treemap(treemap)) }.encode_to_vec())
            }
        };
        if gzip { message.gzip() } else { message }.envelope()
    };
    answer.once(form, || connection.make(make)).map(Message::of_envelope)
}

/// A heartbeat for those who have the treemap of `model`.
pub fn heartbeat(model: &Model, codec: Codec) -> Message {
    let age = model.freshness.view_age().map_or(0, |age| age.as_secs());
    let heartbeat = Heartbeat {
        version: text(&model.version),
        refreshed_at: refreshed_at(model),
        age_seconds: i32::try_from(age).unwrap_or(i32::MAX),
        stale: model.is_stale(),
    };
    if codec == Codec::Proto {
        return Message::new(&WatchTreemapResponse { event: Some(Event::Heartbeat(heartbeat)) }.encode_to_vec());
    }
    let mut object = Object::default();
    object.string("version", &heartbeat.version);
    object.refreshed_at(heartbeat.refreshed_at);
    object.integer("ageSeconds", heartbeat.age_seconds);
    object.flag("stale", heartbeat.stale);
    Message::new(format!("{{\"heartbeat\":{}}}", object.end()).as_bytes())
}

fn text(value: &http::HeaderValue) -> String {
    value.to_str().unwrap_or_default().into()
}

fn refreshed_at(model: &Model) -> Option<Timestamp> {
    let at = model.freshness.last_refreshed?;
    Some(Timestamp { seconds: at.as_second(), nanos: at.subsec_nanosecond() })
}

/// An answer with all that is known of its stocks.
pub fn treemap(answer: &Answer) -> Treemap {
    let (model, request) = (answer.model(), answer.request());
    let industries = answer.industries().map(|(industry, stocks)| Industry {
        name: industry.name.clone(),
        stock_count: i32::try_from(industry.count(request.view_mode)).unwrap_or(i32::MAX),
        stocks: stocks
            .map(|stock| Stock {
                code: stock.code.to_string(),
                company_name: stock.name.to_string(),
                current_percent: stock.current,
                earliest_percent: stock.earliest,
                change_percent: stock.change,
                report_date: stock.reported.to_string(),
            })
            .collect(),
    });
    Treemap {
        period: request.period.name().into(),
        view_mode: match request.view_mode {
            ViewMode::CurrentChange => Wire::Current.into(),
            ViewMode::PercentageChange => Wire::Change.into(),
        },
        version: text(&model.version),
        data_date: model.freshness.data_date.map(|date| date.to_string()).unwrap_or_default(),
        refreshed_at: refreshed_at(model),
        stale: model.is_stale(),
        industries: industries.collect(),
    }
}

/// By protobuf's JSON mapping, with numbers as JavaScript prints them.
pub fn json(treemap: &Treemap) -> String {
    let mut object = Object::default();
    object.string("period", &treemap.period);
    object.string("viewMode", treemap.view_mode().as_str_name());
    object.string("version", &treemap.version);
    object.string("dataDate", &treemap.data_date);
    object.refreshed_at(treemap.refreshed_at);
    object.flag("stale", treemap.stale);
    object.list(
        "industries",
        treemap.industries.iter().map(|industry| {
            let mut object = Object::default();
            object.string("name", &industry.name);
            object.integer("stockCount", industry.stock_count);
            object.list(
                "stocks",
                industry.stocks.iter().map(|stock| {
                    let mut object = Object::default();
                    object.string("code", &stock.code);
                    object.string("companyName", &stock.company_name);
                    object.number("currentPercent", Some(stock.current_percent).filter(|percent| *percent != 0.0));
                    object.number("earliestPercent", Some(stock.earliest_percent).filter(|percent| *percent != 0.0));
                    object.number("changePercent", stock.change_percent);
                    object.string("reportDate", &stock.report_date);
                    object.end()
                }),
            );
            object.end()
        }),
    );
    object.end()
}

/// A JSON object without its empty fields.
#[derive(Default)]
struct Object(String);

impl Object {
    fn name(&mut self, name: &str) -> &mut String {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        write_string(name, &mut self.0);
        self.0.push(':');
        &mut self.0
    }

    fn string(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            write_string(value, self.name(name));
        }
    }

    fn number(&mut self, name: &str, value: Option<f64>) {
        if let Some(value) = value {
            write_number(value, self.name(name));
        }
    }

    fn integer(&mut self, name: &str, value: i32) {
        self.number(name, (value != 0).then(|| value.into()));
    }

    fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.name(name).push_str("true");
        }
    }

    fn refreshed_at(&mut self, at: Option<Timestamp>) {
        // prost prints 3, 6 or 9 digits of a second, as the mapping wants; jiff would leave out zeros at the end.
        self.string("refreshedAt", &at.map(|at| at.to_string()).unwrap_or_default());
    }

    fn list(&mut self, name: &str, elements: impl Iterator<Item = String>) {
        let elements: Vec<_> = elements.collect();
        if !elements.is_empty() {
            let list = elements.join(",");
            let text = self.name(name);
            text.push('[');
            text.push_str(&list);
            text.push(']');
        }
    }

    fn end(mut self) -> String {
        if self.0.is_empty() {
            self.0.push('{');
        }
        self.0.push('}');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_has_three_six_or_nine_digits_of_a_second_or_none() {
        for (nanos, digits) in
            [(0, ""), (500_000_000, ".500"), (120_000, ".000120"), (123_450_000, ".123450"), (7, ".000000007")]
        {
            let mut object = Object::default();
            object.refreshed_at(Some(Timestamp { seconds: 1_700_000_000, nanos }));
            assert_eq!(object.end(), format!("{{\"refreshedAt\":\"2023-11-14T22:13:20{digits}Z\"}}"));
        }
    }
}
