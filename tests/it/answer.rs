//! The bytes of an answer, compared with those that prost writes for the same message.

use std::{sync::Arc, time::Duration};

use industry_treemap::{
    Answer, Builder, Freshness, Model, Period, Request, Stock, Tolerance, ViewMode,
    proto::stocks::v1alpha1::{IndustryTreeMap, TreemapShortPosition},
    protocols::Message,
};
use proptest::prelude::*;
use prost::Message as _;

use crate::support::web::gunzip;

/// The stocks of one list: industries in order, and the stocks of each by rank.
type List = Vec<(String, Vec<(String, f64)>)>;

fn model(lists: &[List]) -> Arc<Model> {
    let mut builder = Builder::default();
    for (number, list) in lists.iter().enumerate() {
        let (period, view_mode) = (Period::ALL[number / 2], ViewMode::ALL[number % 2]);
        for (industry, stocks) in list {
            builder.industry(period, view_mode, industry, stocks.len());
            for (code, value) in stocks {
                builder.push(
                    period,
                    view_mode,
                    Stock {
                        code: code.as_str().into(),
                        name: "".into(),
                        current: *value,
                        earliest: 1.0,
                        change: Some(*value),
                        reported: jiff::civil::date(2023, 12, 29),
                    },
                );
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
    // proto3 omits fields that are zero, also negative zero.
    let value = prop_oneof![Just(0.0), Just(-0.0), Just(100.0), any::<f64>().prop_filter("finite", |v| v.is_finite())];
    let stocks = prop::collection::vec(("[A-Z0-9]{1,6}", value), 1..30);
    let list = prop::collection::btree_map(".{1,40}", stocks, 0..8).prop_map(|map| map.into_iter().collect());
    prop::collection::vec(list, 12)
}

proptest! {
    // A case is twelve lists.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_answer_has_the_bytes_that_prost_writes(lists in lists(), limits in prop::collection::vec(1..=500, 1..4)) {
        let model = model(&lists);
        for (number, list) in lists.iter().enumerate() {
            for limit in limits.iter().copied().chain([1, 500]) {
                let period = Period::ALL[number / 2].name();
                let request = Request::parse(&period.replace("max", "MAX"), limit, i32::from(number % 2 == 1)).unwrap();
                let answer = Answer::new(model.clone(), request);
                let bytes: Vec<u8> = answer.proto().flatten().copied().collect();
                prop_assert_eq!(bytes, by_prost(list, usize::try_from(limit).unwrap()));
            }
        }
    }

    #[test]
    fn two_models_have_the_same_version_exactly_when_their_content_is_the_same(one in lists(), other in lists()) {
        prop_assert_eq!(&model(&one).version, &model(&one).version);
        let encoded = |lists: &[List]| lists.iter().map(|list| by_prost(list, 500)).collect::<Vec<_>>();
        prop_assert_eq!(encoded(&one) == encoded(&other), model(&one).version == model(&other).version);
    }

    #[test]
    fn an_answer_in_json_is_what_protobufs_own_mapping_makes_of_it(
        lists in lists(),
        limit in prop_oneof![1..=30, 1..=500],
    ) {
        let model = model(&lists);
        for number in 0..lists.len() {
            let period = Period::ALL[number / 2].name();
            let request = Request::parse(&period.replace("max", "MAX"), limit, i32::from(number % 2 == 1)).unwrap();
            let answer = Answer::new(model.clone(), request);
            let json: Vec<u8> = answer.json().flatten().copied().collect();
            let ours: serde_json::Value = serde_json::from_slice(&json).unwrap();
            let proto: Vec<u8> = answer.proto().flatten().copied().collect();
            prop_assert_eq!(normal(ours), by_reflection(&proto));
            let message = Message::of_slices(json.len(), answer.json());
            let compressed = message.clone().gzip();
            let same = if compressed.is_compressed() { gunzip(&compressed.bytes()) } else { compressed.bytes().to_vec() };
            prop_assert_eq!(same, json);
        }
    }
}

/// The JSON of an encoded answer.
fn by_reflection(proto: &[u8]) -> serde_json::Value {
    use prost_reflect::{DescriptorPool, DynamicMessage};
    let pool = DescriptorPool::decode(industry_treemap::proto::DESCRIPTORS).unwrap();
    let kind = pool.get_message_by_name("stocks.v1alpha1.IndustryTreeMap").unwrap();
    let json = serde_json::to_value(DynamicMessage::decode(kind, proto).unwrap()).unwrap();
    normal(json)
}

/// Every number as a double: 100 and 100.0 are one.
fn normal(json: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match json {
        Value::Number(number) => Value::from(number.as_f64().unwrap()),
        Value::Array(all) => all.into_iter().map(normal).collect(),
        Value::Object(all) => all.into_iter().map(|(name, value)| (name, normal(value))).collect(),
        other => other,
    }
}
