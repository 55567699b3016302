//! The bytes of an answer, against what prost writes for the same message.

use std::{sync::Arc, time::Duration};

use industry_treemap::{
    Answer, Builder, Freshness, Model, Period, Request, Tolerance, ViewMode,
    proto::stocks::v1alpha1::{IndustryTreeMap, TreemapShortPosition},
};
use proptest::prelude::*;
use prost::Message;

/// The stocks of one list, by industry in order, each in rank order.
type List = Vec<(String, Vec<(String, f64)>)>;

fn model(lists: &[List]) -> Arc<Model> {
    let mut builder = Builder::default();
    for (number, list) in lists.iter().enumerate() {
        let (period, view_mode) = (Period::ALL[number / 2], ViewMode::ALL[number % 2]);
        for (industry, stocks) in list {
            for (code, value) in stocks {
                builder.push(period, view_mode, &stock(industry, code, *value));
            }
        }
    }
    let day = Duration::from_secs(86_400);
    Arc::new(builder.build(Freshness::default(), Tolerance { view: day, data: day }))
}

fn stock(industry: &str, code: &str, value: f64) -> TreemapShortPosition {
    TreemapShortPosition { industry: industry.into(), product_code: code.into(), short_position: value }
}

fn by_prost(list: &List, limit: usize) -> Vec<u8> {
    let stocks = list.iter().flat_map(|(industry, stocks)| {
        stocks.iter().take(limit).map(move |(code, value)| stock(industry, code, *value))
    });
    IndustryTreeMap {
        industries: list.iter().map(|(industry, _)| industry.clone()).collect(),
        stocks: stocks.collect(),
    }
    .encode_to_vec()
}

fn lists() -> impl Strategy<Value = Vec<List>> {
    // Zero and its negative are fields that proto3 leaves out.
    let value = prop_oneof![Just(0.0), Just(-0.0), Just(100.0), any::<f64>().prop_filter("finite", |v| v.is_finite())];
    let stocks = prop::collection::vec(("[A-Z0-9]{1,6}", value), 1..30);
    let list = prop::collection::btree_map(".{1,40}", stocks, 0..8).prop_map(|map| map.into_iter().collect());
    prop::collection::vec(list, 12)
}

proptest! {
    #[test]
    fn an_answer_has_the_bytes_that_prost_writes(lists in lists(), limits in prop::collection::vec(1..=500, 1..4)) {
        let model = model(&lists);
        for (number, list) in lists.iter().enumerate() {
            for limit in limits.iter().copied().chain([1, 500]) {
                let period = Period::ALL[number / 2].name();
                let request = Request::parse(&period.replace("max", "MAX"), limit, i32::from(number % 2 == 1)).unwrap();
                let answer = Answer::new(model.clone(), request);
                let bytes: Vec<u8> = answer.slices().flatten().copied().collect();
                prop_assert_eq!(answer.len(), bytes.len());
                prop_assert_eq!(answer.is_empty(), bytes.is_empty());
                prop_assert_eq!(bytes, by_prost(list, usize::try_from(limit).unwrap()));
            }
        }
    }

    #[test]
    fn the_version_is_that_of_the_content(one in lists(), other in lists()) {
        prop_assert_eq!(&model(&one).version, &model(&one).version);
        let encoded = |lists: &[List]| lists.iter().map(|list| by_prost(list, 500)).collect::<Vec<_>>();
        prop_assert_eq!(encoded(&one) == encoded(&other), model(&one).version == model(&other).version);
    }
}
