//! From the lines of all processes to what a report is drawn from.

use std::collections::HashMap;

use super::latency::{latencies, thin};
use super::lines::Lines;
use super::{Census, End, Hold, Lane, Mark, Sighting, Timeline};
use crate::recording::{HoldId, Line, State, Target, What};
use crate::report::Outcome;

/// The most of each that a record has.
const MOST_HOLDS: usize = 1_500;
const MOST_MARKS: usize = 1_000;
const MOST_ANSWERS: usize = 3_000;

/// So many holds of the beginning are left as they were, so that there is a stretch without gaps.
const WHOLE: usize = 300;

/// What one hold has of its deadlines: the first, and the last ones.
const MOST_DEADLINES: usize = 40;

/// What the lines tell of the last run; none if it never began.
pub(super) fn timeline(mut lines: Lines, outcome: &Outcome) -> Option<Timeline> {
    lines.keep_last_run();
    let origin = lines.all.first()?.1.t;
    let over = lines.all.iter().position(|(_, line)| line.what == What::Over);
    let mut story = Story::new(origin);
    for (index, (pid, line)) in lines.all.iter().enumerate() {
        if index == 0 {
            story.process(*pid, line.t);
        }
        // What comes later belongs to the look at what was left behind, which takes every lock once more.
        let looking_back = over.is_some_and(|over| index > over);
        if !looking_back || matches!(line.what, What::Census { .. } | What::Broken { .. }) {
            story.tell(*pid, line);
        }
    }
    let end = lines.all[over.unwrap_or(lines.all.len() - 1)].1.t;
    let mut timeline = story.close(end, outcome);
    timeline.recorded.beginning_is_missing = lines.beginning_is_missing;
    Some(timeline)
}

struct Story {
    origin: u64,
    timeline: Timeline,
    processes: Vec<u32>,
    instances: HashMap<(u32, String), u32>,
    locks: Vec<String>,
    /// The holds that have not ended, by lane, lock and token.
    open: HashMap<(u32, u32, u64), usize>,
    lines: Vec<u16>,
    /// The marks that last.
    lasting: HashMap<Target, Vec<usize>>,
}

impl Story {
    fn new(origin: u64) -> Self {
        Self {
            origin,
            timeline: Timeline::default(),
            processes: Vec::new(),
            instances: HashMap::new(),
            locks: Vec::new(),
            open: HashMap::new(),
            lines: Vec::new(),
            lasting: HashMap::new(),
        }
    }

    fn tell(&mut self, pid: u32, line: &Line) {
        let at = self.micros(line.t);
        match &line.what {
            What::Began | What::Over => {}
            What::Granted { hold, mode, waited, handed_on, valid_for } => {
                let Some(token) = hold.token else { return };
                let (lane, lock) = (self.lane(pid, &hold.instance, line.t), self.lock(&hold.lock));
                if *handed_on {
                    self.end(lane, lock, Some(token - 1), at, End::Released);
                }
                self.open.insert((lane, lock, token), self.timeline.holds.len());
                self.timeline.holds.push(Hold {
                    lane,
                    lock,
                    token,
                    mode: (mode != "exclusive").then(|| mode.clone()),
                    from: at,
                    to: None,
                    end: End::Open,
                    reason: None,
                    waited: *waited,
                    handed_on: *handed_on,
                    valid: valid_for.map(|valid_for| (at, at + valid_for)).into_iter().collect(),
                    at_risk: Vec::new(),
                    answers: Vec::new(),
                });
            }
            What::Renewed { hold, valid_for } => {
                if let Some(hold) = self.held(pid, hold, line.t) {
                    if hold.valid.len() >= MOST_DEADLINES {
                        hold.valid.remove(1);
                    }
                    hold.valid.push((at, at + valid_for));
                }
            }
            What::AtRisk { hold } => {
                if let Some(hold) = self.held(pid, hold, line.t) {
                    hold.at_risk.push(at);
                }
            }
            What::Lost { hold, reason } => {
                if let Some(hold) = self.held(pid, hold, line.t) {
                    hold.reason = Some(reason.clone());
                }
                self.end_of(pid, hold, line.t, End::Lost);
            }
            What::Released { hold } => self.end_of(pid, hold, line.t, End::Released),
            What::Checked { lock, token, held } => self.answered(lock, *token, at, *held),
            What::Fault { on, name, state } => self.fault(*on, name, *state, line.t),
            What::Broken { message, seen_at, lock, tokens } => {
                let lock = lock.as_ref().map(|lock| self.lock(lock));
                self.timeline.violations.push(Sighting {
                    at,
                    message: message.clone(),
                    seen_at: seen_at.clone(),
                    lock,
                    tokens: tokens.clone(),
                });
            }
            What::Census { before, after, leaks } => {
                let (before, after, leaks) = (before.clone(), after.clone(), leaks.clone());
                self.timeline.census = Some(Census { before, after, leaks });
            }
        }
    }

    fn micros(&self, t: u64) -> u64 {
        t.saturating_sub(self.origin) / 1_000
    }

    fn process(&mut self, pid: u32, t: u64) -> u32 {
        let known = self.processes.iter().position(|other| *other == pid);
        let number = known.unwrap_or_else(|| {
            self.processes.push(pid);
            self.processes.len() - 1
        });
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        if known.is_none() && number > 0 {
            // Each has one connection, which may be killed before it is granted anything.
            self.timeline.lanes.push(Lane {
                process: number,
                instance: 0,
                from: self.micros(t),
                killed: None,
            });
        }
        number
    }

    fn lane(&mut self, pid: u32, instance: &str, t: u64) -> u32 {
        let process = self.process(pid, t);
        let of_process = self.instances.keys().filter(|(other, _)| *other == pid).count();
        let next = u32::try_from(of_process).unwrap_or(u32::MAX);
        let instance = *self.instances.entry((pid, instance.to_owned())).or_insert(next);
        let lanes = &mut self.timeline.lanes;
        let is_it = |lane: &Lane| lane.process == process && lane.instance == instance;
        let lane = lanes.iter().position(is_it).unwrap_or_else(|| {
            let from = t.saturating_sub(self.origin) / 1_000;
            lanes.push(Lane { process, instance, from, killed: None });
            lanes.len() - 1
        });
        u32::try_from(lane).unwrap_or(u32::MAX)
    }

    fn lock(&mut self, name: &str) -> u32 {
        let known = self.locks.iter().position(|other| other == name);
        let lock = known.unwrap_or_else(|| {
            self.locks.push(name.to_owned());
            self.locks.len() - 1
        });
        u32::try_from(lock).unwrap_or(u32::MAX)
    }

    fn held(&mut self, pid: u32, hold: &HoldId, t: u64) -> Option<&mut Hold> {
        let (lane, lock) = (self.lane(pid, &hold.instance, t), self.lock(&hold.lock));
        self.open.get(&(lane, lock, hold.token?)).map(|index| &mut self.timeline.holds[*index])
    }

    fn end_of(&mut self, pid: u32, hold: &HoldId, t: u64, how: End) {
        let (lane, lock) = (self.lane(pid, &hold.instance, t), self.lock(&hold.lock));
        let at = self.micros(t);
        self.end(lane, lock, hold.token, at, how);
    }

    /// Ends the hold of this token, or, where nobody saw one, whatever is held there.
    fn end(&mut self, lane: u32, lock: u32, token: Option<u64>, at: u64, how: End) {
        let token = token.or_else(|| {
            self.open.keys().find(|(other, of, _)| (*other, *of) == (lane, lock)).map(|(.., token)| *token)
        });
        let Some(index) = token.and_then(|token| self.open.remove(&(lane, lock, token))) else { return };
        let hold = &mut self.timeline.holds[index];
        (hold.to, hold.end) = (Some(at), how);
    }

    fn answered(&mut self, lock: &str, token: u64, at: u64, held: bool) {
        let lock = self.lock(lock);
        self.timeline.recorded.answers += 1;
        let asked =
            self.timeline.holds.iter_mut().rev().find(|hold| hold.lock == lock && hold.token == token);
        if let Some(hold) = asked {
            hold.answers.push((at, held));
        }
    }

    fn fault(&mut self, on: Target, name: &str, state: State, t: u64) {
        let at = self.micros(t);
        if state == State::Ends {
            for mark in self.lasting.remove(&on).into_iter().flatten() {
                self.timeline.marks[mark].to = Some(at);
            }
            return;
        }
        let (word, number) = match on {
            Target::Process(pid) => ("process", self.process(pid, t)),
            Target::Line(port) => ("line", self.line(port)),
            Target::Messages => ("messages", 0),
            Target::Store => ("store", 0),
        };
        if state == State::Begins {
            self.lasting.entry(on).or_default().push(self.timeline.marks.len());
        }
        let mark = Mark { on: word.to_owned(), number, name: name.to_owned(), from: at, to: None };
        self.timeline.marks.push(mark);
        if word == "process" && name == "killed" {
            self.died(number, at);
        }
    }

    fn line(&mut self, port: u16) -> u32 {
        let known = self.lines.iter().position(|other| *other == port);
        let line = known.unwrap_or_else(|| {
            self.lines.push(port);
            self.lines.len() - 1
        });
        u32::try_from(line).unwrap_or(u32::MAX)
    }

    fn died(&mut self, process: u32, at: u64) {
        for (number, lane) in self.timeline.lanes.iter_mut().enumerate() {
            if lane.process != process {
                continue;
            }
            lane.killed = Some(at);
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let holds = &mut self.timeline.holds;
            self.open.retain(|(of, ..), index| {
                if *of == number {
                    (holds[*index].to, holds[*index].end) = (Some(at), End::Died);
                }
                *of != number
            });
        }
    }

    fn close(mut self, end: u64, outcome: &Outcome) -> Timeline {
        let length = self.micros(end);
        for mark in self.lasting.into_values().flatten() {
            self.timeline.marks[mark].to = Some(length);
        }
        let mut timeline = self.timeline;
        timeline.length = length;
        if let (Outcome::Failed(why), true) = (outcome, timeline.violations.is_empty()) {
            // It was ended from outside.
            let (message, at) = (why.clone(), length);
            timeline.violations.push(Sighting { at, message, seen_at: None, lock: None, tokens: Vec::new() });
        }
        timeline.recorded.holds = timeline.holds.len() as u64;
        timeline.recorded.marks = timeline.marks.len() as u64;
        timeline.latencies = latencies(&timeline.holds, &timeline.lanes, &timeline.marks);
        timeline.locks = short_names(&self.locks);
        thin(&mut timeline.marks, MOST_MARKS);
        thin_holds(&mut timeline);
        timeline
    }
}

/// The names without what the kit puts before all names of a run.
fn short_names(names: &[String]) -> Vec<String> {
    let short = |name: &String| match name.strip_prefix("kit/").and_then(|rest| rest.split_once('/')) {
        Some((_, short)) => short.to_owned(),
        None => name.clone(),
    };
    names.iter().map(short).collect()
}

/// Leaves all holds that a violation is about or that ended badly, and of the others as many as there is room for.
fn thin_holds(timeline: &mut Timeline) {
    let accused: Vec<(Option<u32>, u64)> = timeline
        .violations
        .iter()
        .flat_map(|seen| seen.tokens.iter().map(|token| (seen.lock, *token)))
        .collect();
    let matters = |hold: &Hold| {
        let is_accused = accused
            .iter()
            .any(|(lock, token)| *token == hold.token && lock.is_none_or(|lock| lock == hold.lock));
        is_accused || hold.end != End::Released
    };
    if timeline.holds.len() > MOST_HOLDS {
        let mut others = timeline.holds.split_off(WHOLE);
        let mut kept = std::mem::take(&mut timeline.holds);
        let (mut bad, good): (Vec<_>, Vec<_>) = others.drain(..).partition(matters);
        others = good;
        thin(&mut bad, MOST_HOLDS - WHOLE);
        kept.append(&mut bad);
        thin(&mut others, MOST_HOLDS - kept.len());
        kept.append(&mut others);
        kept.sort_by_key(|hold| hold.from);
        timeline.holds = kept;
    }
    let most = (MOST_ANSWERS / timeline.holds.len().max(1)).max(2);
    for hold in &mut timeline.holds {
        // The last answer is the one that may be wrong.
        let last = hold.answers.last().copied();
        thin(&mut hold.answers, most);
        if let (Some(kept), Some(last)) = (hold.answers.last_mut(), last) {
            *kept = last;
        }
        thin(&mut hold.at_risk, most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(token: u64) -> HoldId {
        HoldId { lock: "kit/0a/x".into(), instance: "i".into(), token: Some(token) }
    }

    fn granted(token: u64, handed_on: bool) -> What {
        let valid_for = Some(900);
        What::Granted { hold: hold(token), mode: "exclusive".into(), waited: 0, handed_on, valid_for }
    }

    fn told(lines: Vec<(u32, u64, What)>) -> Timeline {
        let all = lines.into_iter().map(|(pid, t, what)| (pid, Line { t: t * 1_000, what })).collect();
        timeline(Lines { all, beginning_is_missing: false }, &Outcome::Passed).unwrap()
    }

    #[test]
    fn holds_end_in_the_way_they_ended() {
        let timeline = told(vec![
            (1, 10, What::Began),
            (1, 20, granted(5, false)),
            (1, 30, granted(6, true)),
            (1, 35, What::Checked { lock: "kit/0a/x".into(), token: 6, held: true }),
            (1, 40, What::Lost { hold: hold(6), reason: "Expired".into() }),
            (1, 41, What::Released { hold: hold(6) }),
            (2, 50, granted(7, false)),
            (1, 60, What::Fault { on: Target::Process(2), name: "killed".into(), state: State::Event }),
            (1, 70, granted(9, false)),
            (1, 80, What::Over),
            (1, 90, granted(10, false)),
        ]);
        let ends: Vec<_> =
            timeline.holds.iter().map(|hold| (hold.token, hold.from, hold.to, hold.end)).collect();
        assert_eq!(
            ends,
            [
                (5, 10, Some(20), End::Released),
                (6, 20, Some(30), End::Lost),
                (7, 40, Some(50), End::Died),
                (9, 60, None, End::Open)
            ]
        );
        assert_eq!(timeline.holds[1].answers, [(25, true)]);
        assert_eq!(timeline.holds[2].valid, [(40, 940)]);
        assert_eq!((timeline.locks, timeline.length), (vec!["x".to_owned()], 70));
        assert_eq!(timeline.lanes[1].killed, Some(50));
        assert_eq!(timeline.latencies.takeover, [10]);
    }

    #[test]
    fn a_fault_lasts_until_it_is_ended() {
        let fault = |name: &str, state| What::Fault { on: Target::Line(9), name: name.into(), state };
        let timeline = told(vec![
            (1, 0, What::Began),
            (1, 5, fault("silent", State::Begins)),
            (1, 6, fault("cut", State::Event)),
            (1, 9, fault("", State::Ends)),
            (1, 12, fault("slow", State::Begins)),
            (1, 20, What::Over),
        ]);
        let marks: Vec<_> = timeline.marks.iter().map(|mark| (&*mark.name, mark.from, mark.to)).collect();
        assert_eq!(marks, [("silent", 5, Some(9)), ("cut", 6, None), ("slow", 12, Some(20))]);
    }

    #[test]
    fn only_the_last_run_is_told_and_never_more_than_there_is_room_for() {
        let mut lines = vec![(1, 0, What::Began), (1, 1, granted(1, false)), (1, 100, What::Began)];
        for number in 0..5_000 {
            lines.push((1, 200 + number * 2, granted(1_000 + number, false)));
            if number != 3_077 {
                lines.push((1, 201 + number * 2, What::Released { hold: hold(1_000 + number) }));
            }
        }
        let timeline = told(lines);
        assert_eq!((timeline.holds.len(), timeline.recorded.holds), (MOST_HOLDS, 5_000));
        assert!(timeline.holds.iter().any(|hold| hold.token == 4_077 && hold.end == End::Open));
        assert!(timeline.holds[..WHOLE].windows(2).all(|pair| pair[0].token + 1 == pair[1].token));
        assert!(timeline.holds.is_sorted_by_key(|hold| hold.from));
    }
}
