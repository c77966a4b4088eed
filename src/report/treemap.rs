//! A squarified treemap (Bruls, Huizing, van Wijk 2000): rectangles whose areas are as the weights,
//! and which are as square as can be.

/// A rectangle, in the units of the box it was laid out in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rect {
    pub x: f64,
    pub y: f64,
    pub w: f64,
    pub h: f64,
}

/// Lays out `weights`, heaviest first, in a box of this width and height. One rectangle for each;
/// those of no weight have no area.
pub fn squarified(weights: &[u64], width: f64, height: f64) -> Vec<Rect> {
    let total: f64 = weights.iter().map(|weight| *weight as f64).sum();
    let mut free = Rect {
        x: 0.0,
        y: 0.0,
        w: width,
        h: height,
    };
    let mut placed = Vec::with_capacity(weights.len());
    if total <= 0.0 || width <= 0.0 || height <= 0.0 {
        let nothing = Rect {
            w: 0.0,
            h: 0.0,
            ..free
        };
        placed.resize(weights.len(), nothing);
        return placed;
    }
    let scale = width * height / total;
    let mut areas: &[u64] = weights;
    while !areas.is_empty() {
        let side = free.w.min(free.h);
        let mut len = 1;
        while len < areas.len()
            && worst(&areas[..=len], side, scale) <= worst(&areas[..len], side, scale)
        {
            len += 1;
        }
        let (row, rest) = areas.split_at(len);
        place(row, scale, &mut free, &mut placed);
        areas = rest;
    }
    placed
}

/// The worst ratio of the sides in a row along `side`.
fn worst(row: &[u64], side: f64, scale: f64) -> f64 {
    let sum: f64 = row.iter().map(|weight| *weight as f64 * scale).sum();
    let areas = row.iter().map(|weight| *weight as f64 * scale);
    areas.fold(0.0, |worst: f64, area| {
        let ratio = (side * side * area) / (sum * sum);
        worst.max(ratio.max(1.0 / ratio))
    })
}

/// Puts a row along the shorter side of what is free, and takes its room.
fn place(row: &[u64], scale: f64, free: &mut Rect, placed: &mut Vec<Rect>) {
    let sum: f64 = row.iter().map(|weight| *weight as f64 * scale).sum();
    let is_column = free.w >= free.h;
    let side = free.w.min(free.h);
    let depth = if side > 0.0 { sum / side } else { 0.0 };
    let mut at = 0.0;
    for weight in row {
        let len = if depth > 0.0 {
            *weight as f64 * scale / depth
        } else {
            0.0
        };
        let (x, y, w, h) = match is_column {
            true => (free.x, free.y + at, depth, len),
            false => (free.x + at, free.y, len, depth),
        };
        placed.push(Rect { x, y, w, h });
        at += len;
    }
    if is_column {
        free.x += depth;
        free.w = (free.w - depth).max(0.0);
    } else {
        free.y += depth;
        free.h = (free.h - depth).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_as_the_weights_and_nothing_overlaps() {
        let weights = [600, 300, 200, 100, 60, 30, 7, 1];
        let rects = squarified(&weights, 200.0, 100.0);
        let total: u64 = weights.iter().sum();
        for (rect, weight) in rects.iter().zip(weights) {
            let area = 200.0 * 100.0 * weight as f64 / total as f64;
            assert!((rect.w * rect.h - area).abs() < 1e-6, "{rect:?}");
            assert!(rect.x >= 0.0 && rect.x + rect.w <= 200.0 + 1e-6, "{rect:?}");
            assert!(rect.y >= 0.0 && rect.y + rect.h <= 100.0 + 1e-6, "{rect:?}");
        }
        for (n, a) in rects.iter().enumerate() {
            for b in &rects[n + 1..] {
                let wide = (a.x + a.w).min(b.x + b.w) - a.x.max(b.x);
                let high = (a.y + a.h).min(b.y + b.h) - a.y.max(b.y);
                assert!(wide < 1e-6 || high < 1e-6, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn nothing_is_no_trouble() {
        assert_eq!(squarified(&[], 1.0, 1.0).len(), 0);
        assert_eq!(squarified(&[0, 0], 1.0, 1.0).len(), 2);
        assert!(
            squarified(&[1, 0], 1.0, 1.0)
                .iter()
                .all(|r| r.w.is_finite() && r.h.is_finite())
        );
    }
}
