//! The ranked stocks of one period and view mode, encoded once as the protobuf fields of an answer, and sliced for a limit.

use std::ops::Range;

use bytes::Bytes;
use prost::encoding;
use sha2::{Digest, Sha256};

use super::Limit;
use crate::proto::stocks::v1alpha1::TreemapShortPosition;

/// A finished list.
#[derive(Debug)]
pub struct List {
    /// The `industries` field of every answer: an industry that has any stock has one within any limit.
    industries: Bytes,
    /// Elements of the `stocks` field, industry after industry.
    stocks: Bytes,
    /// For each industry, where in `stocks` it begins and where each of its stocks ends, in rank order.
    industry_ends: Vec<(usize, Vec<usize>)>,
}

impl List {
    /// The encoded `stocks.v1alpha1.IndustryTreeMap`, piece by piece.
    pub fn slices(&self, limit: Limit) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&self.industries[..]).chain(self.ranges(limit).map(|range| &self.stocks[range]))
    }

    /// The length of all [`List::slices`] together, in bytes.
    pub fn len(&self, limit: Limit) -> usize {
        self.industries.len() + self.ranges(limit).map(|range| range.len()).sum::<usize>()
    }

    /// The number of stocks, without a limit.
    pub fn stocks(&self) -> usize {
        self.industry_ends.iter().map(|(_, ends)| ends.len()).sum()
    }

    fn ranges(&self, limit: Limit) -> impl Iterator<Item = Range<usize>> {
        self.industry_ends.iter().map(move |(start, ends)| *start..ends[limit.get().min(ends.len()) - 1])
    }
}

/// Collects the stocks of a list.
#[derive(Debug, Default)]
pub struct Builder {
    industries: Vec<u8>,
    stocks: Vec<u8>,
    industry_ends: Vec<(usize, Vec<usize>)>,
    last_industry: String,
}

impl Builder {
    /// Adds the next stock: industry by industry, each in rank order.
    pub fn push(&mut self, stock: &TreemapShortPosition) {
        if self.industry_ends.is_empty() || self.last_industry != stock.industry {
            encoding::string::encode(1, &stock.industry, &mut self.industries);
            self.industry_ends.push((self.stocks.len(), Vec::new()));
            self.last_industry.clone_from(&stock.industry);
        }
        encoding::message::encode(2, stock, &mut self.stocks);
        if let Some((_, ends)) = self.industry_ends.last_mut() {
            ends.push(self.stocks.len());
        }
    }

    /// The finished list; `digest` takes in all of its content.
    pub fn build(self, digest: &mut Sha256) -> List {
        for part in [&self.industries, &self.stocks] {
            // The length keeps a byte from moving between the parts unnoticed.
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        List { industries: self.industries.into(), stocks: self.stocks.into(), industry_ends: self.industry_ends }
    }
}
