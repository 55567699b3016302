//! Where each tile goes: the squarified treemap of Bruls, Huizing and van Wijk (2000). A pure function.

/// A rectangle: its left and upper edge, its width and height.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rect {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Rect {
    /// The same, smaller by `margin` on each side, and by `head` above.
    pub fn inset(self, margin: f64, head: f64) -> Self {
        Self {
            x: self.x + margin,
            y: self.y + margin + head,
            width: (self.width - 2.0 * margin).max(0.0),
            height: (self.height - 2.0 * margin - head).max(0.0),
        }
    }
}

/// A rectangle for each of `values`, in their order, within `whole`: areas are in proportion, and what is 0 or no number has none. Tiles are
/// near to squares when the values are sorted, largest first.
pub fn squarify(values: &[f64], whole: Rect) -> Vec<Rect> {
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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn areas_are_in_proportion_without_overlap_and_within_the_whole(
            mut values in proptest::collection::vec(prop_oneof![5 => 1e-3..1e6_f64, 1 => Just(0.0)], 1..60),
            (width, height) in (1.0..4000.0_f64, 1.0..4000.0_f64),
            sorted: bool,
        ) {
            if sorted {
                values.sort_by(|one, other| other.total_cmp(one));
            }
            let whole = Rect { x: 3.0, y: 7.0, width, height };
            let rects = squarify(&values, whole);
            prop_assert_eq!(rects.len(), values.len());
            let sum: f64 = values.iter().sum();
            let area = width * height;
            let tolerance = 1e-6 * (width + height);
            for (value, rect) in values.iter().zip(&rects) {
                let wanted = if sum > 0.0 { area * value / sum } else { 0.0 };
                prop_assert!((rect.width * rect.height - wanted).abs() <= 1e-6 * area, "{:?} for {}", rect, value);
                prop_assert!(rect.x >= whole.x - tolerance && rect.x + rect.width <= whole.x + width + tolerance);
                prop_assert!(rect.y >= whole.y - tolerance && rect.y + rect.height <= whole.y + height + tolerance);
            }
            for (place, one) in rects.iter().enumerate() {
                for other in &rects[place + 1..] {
                    let wide = (one.x + one.width).min(other.x + other.width) - one.x.max(other.x);
                    let high = (one.y + one.height).min(other.y + other.height) - one.y.max(other.y);
                    prop_assert!(wide <= tolerance || high <= tolerance, "{:?} and {:?}", one, other);
                }
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
