//! The ranked stocks of one period and view mode, encoded once as the fields of an answer, in protobuf and in JSON, and sliced for a
//! limit.

use std::ops::Range;

use prost::encoding;
use sha2::{Digest, Sha256};

use super::{
    Limit,
    json::{write_number, write_string},
};
use crate::proto::stocks::v1alpha1::TreemapShortPosition;

/// A finished list.
#[derive(Debug)]
pub struct List {
    proto: Encoded,
    json: Encoded,
}

/// A list in one encoding.
#[derive(Debug, Default)]
struct Encoded {
    /// The `industries` field of every answer: an industry that has any stock has one within any limit.
    industries: Vec<u8>,
    /// Elements of the `stocks` field, industry after industry.
    stocks: Vec<u8>,
    /// For each industry, where in `stocks` it begins and where each of its stocks ends, in rank order.
    industry_ends: Vec<(usize, Vec<usize>)>,
}

impl Encoded {
    fn begin_industry(&mut self) {
        self.industry_ends.push((self.stocks.len(), Vec::new()));
    }

    fn end_stock(&mut self) {
        let end = self.stocks.len();
        if let Some((_, ends)) = self.industry_ends.last_mut() {
            ends.push(end);
        }
    }

    fn ranges(&self, limit: Limit) -> impl Iterator<Item = Range<usize>> {
        self.industry_ends.iter().map(move |(start, ends)| *start..ends[limit.get().min(ends.len()) - 1])
    }
}

impl List {
    /// The `stocks.v1alpha1.IndustryTreeMap` in protobuf, piece by piece.
    pub fn proto(&self, limit: Limit) -> impl Iterator<Item = &[u8]> {
        let Encoded { industries, stocks, .. } = &self.proto;
        std::iter::once(&industries[..]).chain(self.proto.ranges(limit).map(|range| &stocks[range]))
    }

    /// The same in JSON. Each stock is kept with a comma before it.
    pub fn json(&self, limit: Limit) -> impl Iterator<Item = &[u8]> {
        let Encoded { industries, stocks, industry_ends } = &self.json;
        let [before, between, after]: [&[u8]; 3] =
            if industry_ends.is_empty() { [b"{", b"", b"}"] } else { [b"{\"industries\":[", b"],\"stocks\":[", b"]}"] };
        let skip_comma = |(place, range): (usize, Range<usize>)| {
            let first = usize::from(place == 0);
            &stocks[range.start + first..range.end]
        };
        let stocks = self.json.ranges(limit).enumerate().map(skip_comma);
        [before, industries, between].into_iter().chain(stocks).chain(std::iter::once(after))
    }

    /// The number of stocks, without a limit.
    pub fn stocks(&self) -> usize {
        self.proto.industry_ends.iter().map(|(_, ends)| ends.len()).sum()
    }
}

/// Collects the stocks of a list.
#[derive(Debug, Default)]
pub struct Builder {
    proto: Encoded,
    json: Encoded,
    last_industry: String,
    /// Kept for its memory.
    text: String,
}

impl Builder {
    /// Adds the next stock: industry by industry, each in rank order.
    pub fn push(&mut self, stock: &TreemapShortPosition) {
        let Self { proto, json, last_industry, text } = self;
        if proto.industry_ends.is_empty() || *last_industry != stock.industry {
            encoding::string::encode(1, &stock.industry, &mut proto.industries);
            text.clear();
            if !json.industry_ends.is_empty() {
                text.push(',');
            }
            write_string(&stock.industry, text);
            json.industries.extend_from_slice(text.as_bytes());
            proto.begin_industry();
            json.begin_industry();
            last_industry.clone_from(&stock.industry);
        }
        encoding::message::encode(2, stock, &mut proto.stocks);
        proto.end_stock();
        text.clear();
        text.push_str(",{");
        for (name, value) in [("\"industry\":", &stock.industry), ("\"productCode\":", &stock.product_code)] {
            if !value.is_empty() {
                field(name, text);
                write_string(value, text);
            }
        }
        // Zero is left out, as in protobuf.
        if stock.short_position != 0.0 {
            field("\"shortPosition\":", text);
            write_number(stock.short_position, text);
        }
        text.push('}');
        json.stocks.extend_from_slice(text.as_bytes());
        json.end_stock();
    }

    /// The finished list; `digest` takes in all of its content.
    pub fn build(self, digest: &mut Sha256) -> List {
        for part in [&self.proto.industries, &self.proto.stocks] {
            // The length keeps a byte from moving between the parts unnoticed.
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        List { proto: self.proto, json: self.json }
    }
}

/// Begins a field of an object.
fn field(name: &str, text: &mut String) {
    if !text.ends_with('{') {
        text.push(',');
    }
    text.push_str(name);
}
