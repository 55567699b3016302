//! A model as bytes, to be built again by another process: a line with format and digest, then protobuf under gzip.

use std::io::{Read, Write};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use jiff::{Timestamp, civil::Date};
use prost::Message;
use sha2::{Digest, Sha256};

use super::{
    Period, ViewMode,
    freshness::{Freshness, Tolerance},
    model::{Builder, Model},
    stocks::Stock,
};

/// What the first line begins with. The number changes with the content.
const FORMAT: &str = "treemap model 1 sha256 ";
/// Bytes after decompression; a view of 100,000 stocks has some 30 MB.
const LARGEST: u64 = 256 << 20;

#[derive(Clone, PartialEq, Message)]
struct Snapshot {
    /// Microseconds since 1970.
    #[prost(int64, optional, tag = "1")]
    last_refreshed: Option<i64>,
    #[prost(string, optional, tag = "2")]
    data_date: Option<String>,
    #[prost(int64, tag = "3")]
    future_rows: i64,
    #[prost(message, repeated, tag = "4")]
    industries: Vec<SavedIndustry>,
}

#[derive(Clone, PartialEq, Message)]
struct SavedIndustry {
    #[prost(string, tag = "1")]
    period: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "3")]
    stocks: Vec<SavedStock>,
    /// By view mode.
    #[prost(message, repeated, tag = "4")]
    rankings: Vec<SavedRanking>,
}

#[derive(Clone, PartialEq, Message)]
struct SavedRanking {
    /// Places among the stocks, in rank order.
    #[prost(uint32, repeated, tag = "1")]
    places: Vec<u32>,
    /// Stocks without any limit.
    #[prost(uint64, tag = "2")]
    count: u64,
}

#[derive(Clone, PartialEq, Message)]
struct SavedStock {
    #[prost(string, tag = "1")]
    code: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(double, tag = "3")]
    current: f64,
    #[prost(double, tag = "4")]
    earliest: f64,
    #[prost(double, optional, tag = "5")]
    change: Option<f64>,
    #[prost(string, tag = "6")]
    reported: String,
}

/// Writes a model.
pub fn encode(model: &Model) -> Vec<u8> {
    let Freshness { last_refreshed, data_date, future_rows } = model.freshness;
    let industries = Period::ALL.into_iter().flat_map(|period| {
        model.industries(period).iter().map(move |industry| SavedIndustry {
            period: period.name().into(),
            name: industry.name.clone(),
            stocks: industry.stocks.iter().map(SavedStock::from).collect(),
            rankings: industry.ranks.iter().map(|(places, count)| SavedRanking::new(places, *count)).collect(),
        })
    });
    let snapshot = Snapshot {
        last_refreshed: last_refreshed.map(Timestamp::as_microsecond),
        data_date: data_date.map(|date| date.to_string()),
        future_rows,
        industries: industries.collect(),
    };
    let mut compressed = GzEncoder::new(Vec::new(), Compression::default());
    // Writing into memory does not fail.
    let _ = compressed.write_all(&snapshot.encode_to_vec());
    let compressed = compressed.finish().unwrap_or_default();
    let mut bytes = format!("{FORMAT}{}\n", digest(&compressed)).into_bytes();
    bytes.extend(compressed);
    bytes
}

/// Reads a model.
///
/// Fails: the bytes are of another format, or not what was written.
pub fn decode(bytes: &[u8], tolerance: Tolerance) -> Result<Model, String> {
    let other =
        || format!("it does not begin with {:?}: it was written by another version, or is no model", FORMAT.trim());
    let line = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(other)?;
    let expected = bytes[..line].strip_prefix(FORMAT.as_bytes()).ok_or_else(other)?;
    let compressed = &bytes[line + 1..];
    if digest(compressed).as_bytes() != expected {
        return Err("it is cut or damaged: its digest is another".into());
    }
    let mut encoded = Vec::new();
    let read = GzDecoder::new(compressed).take(LARGEST).read_to_end(&mut encoded);
    read.map_err(|error| format!("it cannot be decompressed: {error}"))?;
    let snapshot = Snapshot::decode(&encoded[..]).map_err(|error| format!("it cannot be read: {error}"))?;
    build(&snapshot, tolerance).ok_or_else(|| "it holds values that no model has".into())
}

fn build(snapshot: &Snapshot, tolerance: Tolerance) -> Option<Model> {
    let freshness = Freshness {
        last_refreshed: snapshot.last_refreshed.map(Timestamp::from_microsecond).transpose().ok()?,
        data_date: snapshot.data_date.as_deref().map(str::parse).transpose().ok()?,
        future_rows: snapshot.future_rows,
    };
    let mut builder = Builder::default();
    for view_mode in ViewMode::ALL {
        for industry in &snapshot.industries {
            let period = Period::of_name(&industry.period)?;
            let ranking = industry.rankings.get(view_mode.index())?;
            if ranking.places.is_empty() {
                continue;
            }
            builder.industry(period, view_mode, &industry.name, usize::try_from(ranking.count).ok()?);
            for place in &ranking.places {
                builder.push(period, view_mode, industry.stocks.get(usize::try_from(*place).ok()?)?.stock()?);
            }
        }
    }
    Some(builder.build(freshness, tolerance))
}

fn digest(bytes: &[u8]) -> String {
    BASE64.encode(Sha256::digest(bytes))
}

impl SavedRanking {
    fn new(places: &[usize], count: usize) -> Self {
        let places = places.iter().map(|place| u32::try_from(*place).unwrap_or(u32::MAX));
        Self { places: places.collect(), count: count as u64 }
    }
}

impl From<&Stock> for SavedStock {
    fn from(stock: &Stock) -> Self {
        Self {
            code: stock.code.to_string(),
            name: stock.name.to_string(),
            current: stock.current,
            earliest: stock.earliest,
            change: stock.change,
            reported: stock.reported.to_string(),
        }
    }
}

impl SavedStock {
    fn stock(&self) -> Option<Stock> {
        Some(Stock {
            code: self.code.as_str().into(),
            name: self.name.as_str().into(),
            current: self.current,
            earliest: self.earliest,
            change: self.change,
            reported: self.reported.parse::<Date>().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::civil::date;

    use super::*;

    const TOLERANCE: Tolerance = Tolerance { view: Duration::from_secs(60), data: Duration::from_secs(60) };

    fn model() -> Model {
        let mut builder = Builder::default();
        let stock = |code: &str, current: f64, change| Stock {
            code: code.into(),
            name: format!("Company {code} \u{e9}").into(),
            current,
            earliest: 1.0,
            change,
            reported: date(2026, 11, 20),
        };
        let [current, change] = ViewMode::ALL;
        for period in Period::ALL {
            builder.industry(period, current, "Banks", 700);
            builder.push(period, current, stock("BBB", 3.0, Some(2.0)));
            builder.push(period, current, stock("AAA", 2.0, None));
            builder.industry(period, current, "Food", 1);
            builder.push(period, current, stock("CCC", 0.1, Some(-1.5)));
        }
        for period in Period::ALL {
            builder.industry(period, change, "Banks", 1);
            builder.push(period, change, stock("BBB", 3.0, Some(2.0)));
        }
        let freshness = Freshness {
            last_refreshed: Some(Timestamp::from_microsecond(1_700_000_000_123_456).unwrap()),
            data_date: Some(date(2026, 11, 20)),
            future_rows: 3,
        };
        builder.build(freshness, TOLERANCE)
    }

    #[test]
    fn a_model_is_the_same_after_it_was_written_and_read() {
        let model = model();
        let again = decode(&encode(&model), TOLERANCE).unwrap();
        assert_eq!(again.version, model.version);
        assert_eq!(again.freshness, model.freshness);
        for period in Period::ALL {
            assert_eq!(format!("{:?}", again.industries(period)), format!("{:?}", model.industries(period)));
        }
        assert_eq!(encode(&again), encode(&model));
    }

    #[test]
    fn a_model_that_is_cut_or_changed_at_any_byte_is_refused() {
        let whole = encode(&model());
        for at in 0..whole.len() {
            assert!(decode(&whole[..at], TOLERANCE).is_err(), "cut at {at}");
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(decode(&changed, TOLERANCE).is_err(), "changed at {at}");
        }
        let newer = String::from_utf8_lossy(&whole[..FORMAT.len()]).replace('1', "2");
        let other = decode(newer.as_bytes(), TOLERANCE).unwrap_err();
        assert!(other.contains("another version"), "{other}");
    }
}
