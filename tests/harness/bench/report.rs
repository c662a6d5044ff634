//! What was measured, for people (a table, ratios first) and for programs (JSON).

use std::fmt::Write as _;

use serde::Serialize;

/// The product's own rows are called that.
pub(super) const OURS: &str = "umbra";

/// Everything that one run measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether it was a quick run.
    pub quick: bool,
    /// How many processors the machine has.
    pub processors: usize,
    /// The sections that ran.
    pub sections: Vec<Section>,
}

/// One subject.
#[derive(Debug, Clone, Serialize)]
pub struct Section {
    /// Its short name, as `--only` takes it.
    pub name: String,
    /// What was done, in a sentence or two.
    pub about: String,
    /// Candidates that could not be measured, each with the reason.
    pub missing: Vec<String>,
    /// What was measured.
    pub measures: Vec<Measure>,
}

/// One quantity, measured for several candidates.
#[derive(Debug, Clone, Serialize)]
pub struct Measure {
    /// What it is.
    pub name: String,
    /// Its unit.
    pub unit: &'static str,
    /// Whether more is better.
    pub more_is_better: bool,
    /// The candidates, ours first.
    pub results: Vec<Results>,
}

/// What one candidate reached, round by round.
#[derive(Debug, Clone, Serialize)]
pub struct Results {
    /// The candidate.
    pub who: String,
    /// One value per round.
    pub rounds: Vec<f64>,
    /// Their median.
    pub median: f64,
    /// Ours against this one: the median of the ratios within each round. None for ourselves.
    pub ours_to_this: Option<f64>,
}

impl Report {
    pub(super) fn new(quick: bool) -> Self {
        Self {
            quick,
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            sections: Vec::new(),
        }
    }

    /// The whole as Markdown.
    pub fn markdown(&self) -> String {
        self.sections.iter().map(Section::markdown).collect()
    }
}

impl Section {
    pub(super) fn new(name: &str, about: &str) -> Self {
        Self {
            name: name.to_owned(),
            about: about.to_owned(),
            missing: Vec::new(),
            measures: Vec::new(),
        }
    }

    /// Notes one value of this round.
    pub(super) fn note(&mut self, quantity: &Quantity, who: &str, value: f64) {
        let position = self
            .measures
            .iter()
            .position(|one| one.name == quantity.name);
        let position = position.unwrap_or_else(|| {
            self.measures.push(Measure {
                name: quantity.name.to_owned(),
                unit: quantity.unit,
                more_is_better: quantity.more_is_better,
                results: Vec::new(),
            });
            self.measures.len() - 1
        });
        let results = &mut self.measures[position].results;
        match results.iter_mut().find(|one| one.who == who) {
            Some(one) => one.rounds.push(value),
            None => results.push(Results {
                who: who.to_owned(),
                rounds: vec![value],
                median: value,
                ours_to_this: None,
            }),
        }
    }

    /// Computes medians and ratios once all rounds are over.
    pub(super) fn finished(mut self) -> Self {
        for measure in &mut self.measures {
            // Ours first, whoever happened to be measured first.
            measure
                .results
                .sort_by_key(|one| !one.who.starts_with(OURS));
            // Where the product has several ways, the plain one is compared, or else the one that there is.
            let ours = measure.results.iter().find(|one| one.who == OURS);
            let ours = ours.or(measure.results.first());
            let (our_name, ours) = ours
                .map(|one| (one.who.clone(), one.rounds.clone()))
                .unwrap_or_default();
            for one in &mut measure.results {
                one.median = median(&one.rounds);
                let ratios: Vec<f64> = ours
                    .iter()
                    .zip(&one.rounds)
                    .filter(|(_, theirs)| **theirs > 0.0)
                    .map(|(ours, theirs)| ours / theirs)
                    .collect();
                one.ours_to_this =
                    (one.who != our_name && !ratios.is_empty()).then(|| median(&ratios));
            }
        }
        self
    }

    fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n{}\n\n", self.name, self.about);
        let mut who: Vec<&str> = Vec::new();
        for results in self.measures.iter().flat_map(|measure| &measure.results) {
            if !who.contains(&results.who.as_str()) {
                who.push(&results.who);
            }
        }
        let _ = writeln!(text, "| | {} |", who.join(" | "));
        let _ = writeln!(text, "|---|{}", "---|".repeat(who.len()));
        for measure in &self.measures {
            let better = if measure.more_is_better {
                "more"
            } else {
                "less"
            };
            let _ = write!(
                text,
                "| {}, {} ({better} is better) |",
                measure.name, measure.unit
            );
            for who in &who {
                let cell = measure.results.iter().find(|one| one.who == *who);
                let _ = write!(text, " {} |", cell.map(Results::cell).unwrap_or_default());
            }
            text.push('\n');
        }
        text.push('\n');
        if !self.missing.is_empty() {
            let _ = writeln!(text, "Not measured: {}.\n", self.missing.join("; "));
        }
        text
    }
}

impl Results {
    fn cell(&self) -> String {
        let least = self.rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self
            .rounds
            .iter()
            .copied()
            .fold(f64::NEG_INFINITY, f64::max);
        let spread = match self.rounds.len() {
            0 | 1 => String::new(),
            _ => format!(" ({}–{})", figure(least), figure(most)),
        };
        match self.ours_to_this {
            Some(ratio) => format!("**{ratio:.2}** · {}{spread}", figure(self.median)),
            None => format!("{}{spread}", figure(self.median)),
        }
    }
}

/// Three digits that count.
fn figure(value: f64) -> String {
    let places = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.places$}")
}

/// What can be measured.
pub(super) struct Quantity {
    /// What it is called.
    pub(super) name: &'static str,
    /// Its unit.
    pub(super) unit: &'static str,
    /// Whether more is better.
    pub(super) more_is_better: bool,
}

/// Less of it is better.
pub(super) const fn less(name: &'static str, unit: &'static str) -> Quantity {
    Quantity {
        name,
        unit,
        more_is_better: false,
    }
}

/// More of it is better.
pub(super) const fn more(name: &'static str, unit: &'static str) -> Quantity {
    Quantity {
        name,
        unit,
        more_is_better: true,
    }
}

/// The middle of these values.
pub(super) fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// The value below which this part of a hundred lies; between two values, between them.
pub(super) fn percentile(values: &[f64], of_hundred: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = last as f64 * of_hundred / 100.0;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_doubles_every_time_in_one_round_changes_no_ratio() {
        let mut section = Section::new("some", "About.");
        let time = less("time", "s");
        for (ours, theirs) in [(1.0, 2.0), (2.0, 4.0), (1.5, 3.0)] {
            section.note(&time, OURS, ours);
            section.note(&time, "peer", theirs);
        }
        let section = section.finished();
        let results = &section.measures[0].results;
        assert_eq!(results[0].ours_to_this, None);
        assert_eq!(results[1].ours_to_this, Some(0.5));
        assert_eq!((results[0].median, results[1].median), (1.5, 3.0));
        let markdown = section.markdown();
        assert!(
            markdown.contains("| 1.50 (1.00–2.00) | **0.50** · 3.00 (2.00–4.00) |"),
            "{markdown}"
        );
    }

    #[test]
    fn percentiles_lie_between_the_values() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(median(&values), 2.5);
        assert_eq!(percentile(&values, 0.0), 1.0);
        assert_eq!(percentile(&values, 100.0), 4.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn what_is_missing_is_said() {
        let mut section = Section::new("some", "About.");
        section.missing.push("rathole: it cannot be built".into());
        assert!(
            section
                .markdown()
                .contains("Not measured: rathole: it cannot be built.")
        );
    }
}
