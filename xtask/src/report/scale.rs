//! Axes: from values to places, and round numbers in between.

/// A linear scale over microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linear {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) left: f64,
    pub(super) width: f64,
}

impl Linear {
    pub(super) fn at(&self, micros: u64) -> f64 {
        let span = self.to.saturating_sub(self.from).max(1) as f64;
        let inside = micros.clamp(self.from, self.to) - self.from;
        self.left + self.width * inside as f64 / span
    }

    /// Whether any of what lasts from here to there is to be seen.
    pub(super) fn shows(&self, from: u64, to: u64) -> bool {
        from <= self.to && to >= self.from
    }

    /// Five to ten round values.
    pub(super) fn ticks(&self) -> Vec<u64> {
        let step = self.step();
        (self.from.div_ceil(step)..=self.to / step).map(|number| number * step).collect()
    }

    /// A value with as many digits as tell ticks apart.
    pub(super) fn label(&self, micros: u64) -> String {
        let (step, value) = (self.step(), micros as f64);
        let decimals = |unit: u64| (unit.ilog10()).saturating_sub(step.ilog10()) as usize;
        match step {
            ..10 => format!("{micros} µs"),
            10..10_000 => format!("{:.*} ms", decimals(1_000), value / 1e3),
            _ if self.to < 1_000_000 => format!("{:.0} ms", value / 1e3),
            _ => format!("{:.*} s", decimals(1_000_000), value / 1e6),
        }
    }

    fn step(&self) -> u64 {
        let span = self.to.saturating_sub(self.from).max(1);
        let mut step = 1_u64;
        while span / step > 50 {
            step *= 10;
        }
        step * match span / step {
            0..=10 => 1,
            11..=20 => 2,
            _ => 5,
        }
    }
}

/// A logarithmic scale over microseconds, in whole decades.
#[derive(Clone, Copy, Debug)]
pub(super) struct Logarithmic {
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) left: f64,
    pub(super) width: f64,
}

impl Logarithmic {
    /// The decades that hold all values.
    pub(super) fn around(values: impl Iterator<Item = u64>, left: f64, width: f64) -> Self {
        let decades = values.map(|value| value.max(1).ilog10());
        let (first, last) =
            decades.fold((u32::MAX, 0), |(first, last), decade| (first.min(decade), last.max(decade + 1)));
        let first = first.min(last.saturating_sub(1));
        Self { first, last, left, width }
    }

    pub(super) fn at(&self, micros: u64) -> f64 {
        let decades = f64::from(self.last - self.first).max(1.0);
        self.left + self.width * ((micros.max(1) as f64).log10() - f64::from(self.first)) / decades
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        for (from, to) in [(0, 277), (0, 1), (0, 20_000_000), (1_234_567, 1_300_000), (0, 51), (3, 3)] {
            let ticks = Linear { from, to, left: 0.0, width: 100.0 }.ticks();
            assert!(ticks.len() <= 11, "{from}..{to}: {ticks:?}");
            assert!(ticks.iter().all(|tick| (from..=to).contains(tick)), "{from}..{to}: {ticks:?}");
        }
        assert_eq!(Linear { from: 0, to: 277, left: 0.0, width: 1.0 }.ticks(), [0, 50, 100, 150, 200, 250]);
    }

    #[test]
    fn labels_tell_ticks_apart() {
        for (from, to) in
            [(0, 277), (1_990_000, 2_003_400), (0, 30_000_000), (5_000, 5_040), (0, 900_000), (0, 21_000)]
        {
            let scale = Linear { from, to, left: 0.0, width: 100.0 };
            let mut labels: Vec<String> = scale.ticks().into_iter().map(|tick| scale.label(tick)).collect();
            let all = labels.len();
            labels.dedup();
            assert_eq!(labels.len(), all, "{labels:?}");
        }
        let scale = Linear { from: 0, to: 30_000_000, left: 0.0, width: 100.0 };
        assert_eq!(scale.label(5_000_000), "5 s");
    }

    #[test]
    fn places_are_inside() {
        let linear = Linear { from: 100, to: 200, left: 10.0, width: 100.0 };
        assert_eq!([50, 100, 150, 900].map(|at| linear.at(at)), [10.0, 10.0, 60.0, 110.0]);
        let log = Logarithmic::around([5, 3_000].into_iter(), 0.0, 40.0);
        assert_eq!((log.first, log.last), (0, 4));
        assert_eq!([1, 10, 10_000].map(|at| log.at(at)), [0.0, 10.0, 40.0]);
    }
}
