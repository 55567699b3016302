//! Where each tile goes: the squarified treemap of Bruls, Huizing and van Wijk (2000). A pure function.

use crate::proto::treemap::v1::{Industry, Stock};

/// A rectangle: its left and upper edge, its width and height.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rect {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Rect {
    /// The same, smaller by `margin` on each side, and by `head` above; never outside of it.
    pub fn inset(self, margin: f64, head: f64) -> Self {
        Self {
            x: self.x + margin.min(self.width),
            y: self.y + (margin + head).min(self.height),
            width: (self.width - 2.0 * margin).max(0.0),
            height: (self.height - 2.0 * margin - head).max(0.0),
        }
    }
}

/// An industry with its rectangle, and its stocks with theirs.
pub struct Group<'a> {
    pub industry: &'a Industry,
    pub rect: Rect,
    pub tiles: Vec<(&'a Stock, Rect)>,
}

/// Industries within `whole`, and the tiles of each within the part of its rectangle that `inner` gives. The area of a tile is its stock's
/// current position. Both are sorted, largest first: then tiles are near to squares.
pub fn groups(industries: &[Industry], whole: Rect, inner: impl Fn(Rect) -> Rect) -> Vec<Group<'_>> {
    let area = |industry: &Industry| industry.stocks.iter().map(|stock| stock.current_percent).sum::<f64>();
    let mut industries: Vec<_> = industries.iter().map(|industry| (industry, area(industry))).collect();
    industries.sort_by(|(one, area), (other, others)| others.total_cmp(area).then_with(|| one.name.cmp(&other.name)));
    let areas: Vec<f64> = industries.iter().map(|(_, area)| *area).collect();
    let groups = industries.into_iter().zip(squarify(&areas, whole)).map(|((industry, _), rect)| {
        let mut stocks: Vec<&Stock> = industry.stocks.iter().collect();
        stocks.sort_by(|one, other| {
            other.current_percent.total_cmp(&one.current_percent).then_with(|| one.code.cmp(&other.code))
        });
        let areas: Vec<f64> = stocks.iter().map(|stock| stock.current_percent).collect();
        Group { industry, rect, tiles: stocks.into_iter().zip(squarify(&areas, inner(rect))).collect() }
    });
    groups.collect()
}

/// A rectangle for each of `values`, in their order, within `whole`: areas are in proportion, and what is 0 or no number has none. Tiles are
/// near to squares when the values are sorted, largest first.
fn squarify(values: &[f64], whole: Rect) -> Vec<Rect> {
    let size = |value: f64| if value.is_finite() && value > 0.0 { value } else { 0.0 };
    // Divided by the largest, so that a sum is finite.
    let largest = values.iter().copied().map(size).fold(0.0, f64::max);
    let sizes: Vec<f64> = values.iter().map(|value| if largest > 0.0 { size(*value) / largest } else { 0.0 }).collect();
    let mut left: f64 = sizes.iter().sum();
    let mut rects = vec![Rect { x: whole.x, y: whole.y, ..Rect::default() }; values.len()];
    if left <= 0.0 || whole.width <= 0.0 || whole.height <= 0.0 {
        return rects;
    }
    let mut free = whole;
    let mut start = 0;
    while start < sizes.len() {
        let short = free.width.min(free.height);
        // How much area one unit of size has, in what is free.
        let scale = free.width * free.height / left;
        let (mut end, mut sum) = (start + 1, sizes[start]);
        while end < sizes.len()
            && worst(&sizes[start..=end], sum + sizes[end], scale, short)
                <= worst(&sizes[start..end], sum, scale, short)
        {
            sum += sizes[end];
            end += 1;
        }
        // The last row takes what is left, so that rounding leaves no gap.
        let depth = if end == sizes.len() { free.width.max(free.height) } else { sum * scale / short };
        place(&sizes[start..end], sum, free, depth, &mut rects[start..end]);
        if free.width >= free.height {
            free = Rect { x: free.x + depth, width: (free.width - depth).max(0.0), ..free };
        } else {
            free = Rect { y: free.y + depth, height: (free.height - depth).max(0.0), ..free };
        }
        left -= sum;
        start = end;
        if left <= 0.0 {
            break;
        }
    }
    rects
}

/// The worst ratio of sides in a row of `sizes` along `short`.
fn worst(sizes: &[f64], sum: f64, scale: f64, short: f64) -> f64 {
    let depth = sum * scale / short;
    let ratio = |size: &f64| {
        let length = size * scale / depth;
        (length / depth).max(depth / length)
    };
    sizes.iter().filter(|size| **size > 0.0).map(ratio).fold(0.0, f64::max)
}

/// Lays a row along the shorter side of what is free.
fn place(sizes: &[f64], sum: f64, free: Rect, depth: f64, rects: &mut [Rect]) {
    let upright = free.width >= free.height;
    let length = if upright { free.height } else { free.width };
    let mut before = 0.0;
    for (size, rect) in sizes.iter().zip(rects) {
        let (from, to) = (length * before / sum, length * (before + size) / sum);
        before += size;
        *rect = if *size <= 0.0 {
            Rect { x: free.x, y: free.y, width: 0.0, height: 0.0 }
        } else if upright {
            Rect { x: free.x, y: free.y + from, width: depth, height: to - from }
        } else {
            Rect { x: free.x + from, y: free.y, width: to - from, height: depth }
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// What a tile or group lacks in area at most, in parts of its own.
    const INEXACT: f64 = 1e-6;
    /// How far an edge is off at most, in pixels.
    const OFF: f64 = 1e-6;

    fn is_within(rect: Rect, whole: Rect) -> bool {
        rect.x >= whole.x - OFF
            && rect.y >= whole.y - OFF
            && rect.x + rect.width <= whole.x + whole.width + OFF
            && rect.y + rect.height <= whole.y + whole.height + OFF
    }

    /// Whether areas are in proportion to their values, without overlap and within the whole.
    fn check(values: &[f64], rects: &[Rect], whole: Rect) -> Result<(), TestCaseError> {
        prop_assert_eq!(rects.len(), values.len());
        let sum: f64 = values.iter().sum();
        for (value, rect) in values.iter().zip(rects) {
            let wanted = if sum > 0.0 { whole.width * whole.height * value / sum } else { 0.0 };
            let area = rect.width * rect.height;
            prop_assert!(
                (area - wanted).abs() <= INEXACT * wanted,
                "{:?} for {} of {} in {:?}",
                rect,
                value,
                sum,
                whole
            );
            prop_assert!(is_within(*rect, whole), "{:?} in {:?}", rect, whole);
        }
        for (place, one) in rects.iter().enumerate() {
            for other in &rects[place + 1..] {
                let wide = (one.x + one.width).min(other.x + other.width) - one.x.max(other.x);
                let high = (one.y + one.height).min(other.y + other.height) - one.y.max(other.y);
                prop_assert!(wide <= OFF || high <= OFF, "{:?} and {:?}", one, other);
            }
        }
        Ok(())
    }

    fn values(most: usize) -> impl Strategy<Value = Vec<f64>> {
        vec(prop_oneof![5 => 1e-2..1e2_f64, 1 => Just(0.0)], 0..most)
    }

    fn whole() -> impl Strategy<Value = Rect> {
        (1.0..4000.0_f64, 1.0..4000.0_f64).prop_map(|(width, height)| Rect { x: 3.0, y: 7.0, width, height })
    }

    proptest! {
        #[test]
        fn areas_are_in_proportion_without_overlap_and_within_the_whole_in_any_order(values in values(60), whole in whole()) {
            check(&values, &squarify(&values, whole), whole)?;
        }

        #[test]
        fn groups_lie_within_the_whole_and_tiles_within_their_group(areas in vec(values(20), 0..20), whole in whole()) {
            let stock = |current_percent| Stock { current_percent, ..Stock::default() };
            let industry = |areas: Vec<f64>| Industry { stocks: areas.into_iter().map(stock).collect(), ..Industry::default() };
            let industries: Vec<_> = areas.into_iter().map(industry).collect();
            let inner = |rect: Rect| rect.inset(1.0, if rect.height >= 34.0 { 18.0 } else { 0.0 });
            let groups = groups(&industries, whole, inner);
            let areas: Vec<f64> =
                groups.iter().map(|group| group.tiles.iter().map(|(stock, _)| stock.current_percent).sum()).collect();
            let rects: Vec<_> = groups.iter().map(|group| group.rect).collect();
            prop_assert!(areas.is_sorted_by(|one, other| *one >= *other - INEXACT));
            check(&areas, &rects, whole)?;
            for Group { industry, rect, tiles } in groups {
                prop_assert_eq!(industry.stocks.len(), tiles.len());
                prop_assert!(is_within(inner(rect), rect));
                let (areas, rects): (Vec<_>, Vec<_>) =
                    tiles.into_iter().map(|(stock, rect)| (stock.current_percent, rect)).unzip();
                check(&areas, &rects, inner(rect))?;
            }
        }
    }

    #[test]
    fn the_figure_of_the_paper_is_laid_out_as_in_the_paper() {
        let rects = squarify(&[6.0, 6.0, 4.0, 3.0, 2.0, 2.0, 1.0], Rect { width: 6.0, height: 4.0, ..Rect::default() });
        assert_eq!(rects[0], Rect { x: 0.0, y: 0.0, width: 3.0, height: 2.0 });
        assert_eq!(rects[1], Rect { x: 0.0, y: 2.0, width: 3.0, height: 2.0 });
        assert!((rects[2].height - 7.0 / 3.0).abs() < 1e-9 && (rects[2].y).abs() < 1e-9);
    }

    #[test]
    fn what_is_no_number_has_no_area() {
        let rects = squarify(
            &[f64::NAN, f64::INFINITY, -1.0, 1e308, 1e308],
            Rect { width: 2.0, height: 1.0, ..Rect::default() },
        );
        assert!(rects[..3].iter().all(|rect| rect.width * rect.height == 0.0));
        assert!((rects[3].width * rects[3].height - 1.0).abs() < 1e-9);
        assert!(squarify(&[], Rect::default()).is_empty());
    }
}
